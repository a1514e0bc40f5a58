//! Usage that bills can trust (contract/partnership-api.md, "Usage"): every figure is compared with
//! a plain count of what was told and of the machines' runs.

mod answers;
mod collection;
mod compute;
mod concurrency;
mod events;
mod property;
mod queries;
mod real;
mod reference;
mod retention;

use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use cp_model::{Clock as _, ProjectId};
use cp_tests::{App, AppOptions, PartnerClient, StoryClock, UsageService};
use serde_json::Value;

use reference::Reference;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn midnight(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// A partner with one project that is a hundred days old and paused, and a service that counts what
/// it uses. No worker runs: nothing happens but what the scenario does.
struct Story {
    app: App,
    clock: Arc<StoryClock>,
    partner: PartnerClient,
    project: ProjectId,
    service: UsageService,
}

impl Story {
    async fn start() -> Self {
        let mut this = Self::start_working().await;
        this.partner
            .pause(&this.project.to_string())
            .await
            .expect(200);
        this.app.settle().await;
        this.app.kill_worker();
        this
    }

    /// The same with a worker, and a project that runs.
    async fn start_working() -> Self {
        let clock = StoryClock::new();
        let app = App::start_with(AppOptions {
            clock: clock.clone(),
            ..AppOptions::default()
        })
        .await;
        let partner = app.partner().await;
        let project = partner.create_active_project("shop").await;
        let project = ProjectId(project.parse().unwrap());
        app.settle().await;
        app.set_created_at(project, clock.now() - Days::new(100))
            .await;
        Self {
            service: app.usage_service("gateway").await,
            app,
            clock,
            partner,
            project,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    fn today(&self) -> NaiveDate {
        self.now().date_naive()
    }

    fn event(&self, id: &str, metric: &str, value: impl Into<Value>) -> Value {
        self.service
            .event(id, self.project, metric, value, self.now())
    }

    async fn project_usage(&self, project: ProjectId, query: &str) -> Value {
        let path = format!("/{project}/usage{query}");
        self.partner.get(&path).await.expect(200)
    }

    async fn partner_usage(&self, query: &str) -> Value {
        self.partner
            .get(&format!("/usage{query}"))
            .await
            .expect(200)
    }

    /// The machines' runs, as a part of what is to be counted.
    async fn runs(&self) -> Reference {
        let mut reference = Reference::default();
        reference.measure(&self.app, self.now()).await;
        reference
    }
}
