//! Webhooks: what happens is told, signed, at least once, and to nobody whom it could harm; and
//! usage that reaches a limit is told once.

use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use chrono::{Days, TimeDelta, Utc};
use cp_domain::usage::NewLimit;
use cp_domain::{DomainError, Thing};
use cp_model::{Clock as _, LimitPeriod, Metric, ProjectId, WebhookState};
use cp_tests::{
    App, AppOptions, MovingClock, PartnerClient, StoryClock, UsageService, eventually, fields,
};
use futures::future::join_all;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const SOON: Duration = Duration::from_secs(10);

/// How a receiver answers.
#[derive(Clone, Copy)]
enum Reply {
    Status(u16),
    /// It has read the event, and says nothing for longer than anybody waits.
    Silence,
}

#[derive(Clone)]
struct Received {
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    /// Time and signatures of the header.
    fn signatures(&self) -> (i64, Vec<String>) {
        let header = self.header("x-insforge-signature");
        let mut parts = header.split(',');
        let time = parts.next().unwrap().strip_prefix("t=").unwrap();
        let signatures = parts.map(|part| part.strip_prefix("v1=").unwrap().to_owned());
        (time.parse().unwrap(), signatures.collect())
    }

    fn is_signed_with(&self, secret: &str) -> bool {
        let (time, signatures) = self.signatures();
        let mut signed = format!("{time}.").into_bytes();
        signed.extend_from_slice(&self.body);
        signatures.contains(&hmac_sha256(secret.as_bytes(), &signed))
    }
}

/// RFC 2104, by the letter: the receiver's own way to check.
fn hmac_sha256(key: &[u8], text: &[u8]) -> String {
    let mut block = [0_u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner)
        .finalize();
    hex(&outer)
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A partner's server.
struct Receiver {
    url: String,
    inbox: Arc<Inbox>,
}

#[derive(Default)]
struct Inbox {
    received: Mutex<Vec<Received>>,
    replies: Mutex<VecDeque<Reply>>,
    always: Mutex<Option<Reply>>,
}

impl Receiver {
    async fn listen() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let inbox = Arc::new(Inbox::default());
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(inbox.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inbox }
    }

    /// The next answers; after them 200, or what is always answered.
    fn replies(&self, replies: &[Reply]) {
        lock(&self.inbox.replies).extend(replies);
    }

    fn always(&self, reply: Reply) {
        *lock(&self.inbox.always) = Some(reply);
    }

    fn received(&self) -> Vec<Received> {
        lock(&self.inbox.received).clone()
    }

    fn of(&self, kind: &str) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|one| one.kind() == kind);
        received
    }

    async fn wait_for(&self, kind: &str, count: usize) -> Vec<Received> {
        eventually(&format!("{count} of {kind}"), SOON, async || {
            let received = self.of(kind);
            (received.len() >= count).then_some(received)
        })
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn receive(State(inbox): State<Arc<Inbox>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    lock(&inbox.received).push(Received { headers, body });
    let next = lock(&inbox.replies).pop_front();
    let always = *lock(&inbox.always);
    match next.or(always).unwrap_or(Reply::Status(200)) {
        Reply::Status(status) => StatusCode::from_u16(status).unwrap(),
        Reply::Silence => std::future::pending().await,
    }
}

/// Lets the partner be told; gives the secret.
async fn hook(app: &App, partner: &PartnerClient, receiver: &Receiver) -> SecretString {
    let set = app
        .control_plane
        .set_webhook(&partner.partner_id(), &receiver.url, false)
        .await
        .unwrap();
    set.secret.expect("the first time there is a new secret")
}

async fn with_moving_clock(worker: bool) -> (App, PartnerClient, Arc<MovingClock>) {
    let clock = MovingClock::new();
    let app = App::start_with(AppOptions {
        clock: clock.clone(),
        worker,
        create_wait: if worker { SOON } else { Duration::ZERO },
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    (app, partner, clock)
}

async fn states(app: &App, partner: &PartnerClient) -> Vec<WebhookState> {
    let events = app
        .control_plane
        .list_webhook_events(&partner.partner_id(), None, 100)
        .await
        .unwrap();
    events.iter().map(|event| event.state).collect()
}

async fn wait_for_state(app: &App, partner: &PartnerClient, state: WebhookState) {
    eventually(state.as_str(), SOON, async || {
        let states = states(app, partner).await;
        (!states.is_empty() && states.iter().all(|one| *one == state)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_projects_life_is_told_signed() {
    let app = App::start().await;
    let partner = app.partner().await;
    let receiver = Receiver::listen().await;
    let secret = hook(&app, &partner, &receiver).await;
    assert!(secret.expose_secret().starts_with("whsec_"));

    let project = partner.create_active_project("shop").await;
    let told = receiver.wait_for("project.active", 1).await.remove(0);
    let body = told.json();
    assert_eq!(fields(&body), ["created_at", "data", "id", "type"]);
    assert_eq!(body["id"], told.header("x-insforge-event-id"));
    assert_eq!(body["type"], told.header("x-insforge-event-type"));
    assert_eq!(told.header("content-type"), "application/json");
    let data = &body["data"];
    assert_eq!(data["project_id"], project.as_str());
    assert_eq!(data["name"], "shop");
    assert_eq!(data["status"], "active");
    assert_eq!(data["region"], "us-east");
    assert_eq!(data["instance_type"], "nano");
    assert_eq!(data["failure"], Value::Null);
    assert!(data["occurred_at"].is_string());
    assert!(told.is_signed_with(secret.expose_secret()));
    assert!(!told.is_signed_with("whsec_other"));
    let (time, signatures) = told.signatures();
    assert!((Utc::now().timestamp() - time).abs() < 30);
    assert_eq!(signatures.len(), 1);

    partner.pause(&project).await.expect(200);
    receiver.wait_for("project.paused", 1).await;
    partner.restore(&project).await.expect(200);
    receiver.wait_for("project.active", 2).await;
    partner.delete_project(&project).await;
    receiver.wait_for("project.deleted", 1).await;
    wait_for_state(&app, &partner, WebhookState::Delivered).await;
    assert_eq!(receiver.received().len(), 4, "each is told once");
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    let (app, partner, _) = with_moving_clock(false).await;
    let receiver = Receiver::listen().await;
    hook(&app, &partner, &receiver).await;
    let project = partner.begin_project("shop").await;
    let operation = app.newest_operation(project).await.id;
    app.control_plane.cancel_operation(operation).await.unwrap();
    let _worker = app.start_worker(app.worker_config("late"));
    let told = receiver.wait_for("project.failed", 1).await.remove(0);
    let data = &told.json()["data"];
    assert_eq!(data["status"], "failed");
    assert_eq!(data["failure"]["code"], "operation_cancelled");
}

#[tokio::test]
async fn nobody_is_told_who_did_not_ask() {
    let app = App::start().await;
    let (asking, silent) = (app.partner().await, app.partner().await);
    let receiver = Receiver::listen().await;
    hook(&app, &asking, &receiver).await;
    silent.create_active_project("shop").await;
    assert_eq!(app.database.count("webhook_events").await, 0);
    let error = app.control_plane.test_webhook(&silent.partner_id()).await;
    assert!(matches!(error, Err(DomainError::NotFound(Thing::Webhook))));
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_receiver_that_fails_is_told_again_under_the_same_id() {
    let (app, partner, clock) = with_moving_clock(true).await;
    let receiver = Receiver::listen().await;
    receiver.replies(&[Reply::Status(500), Reply::Status(302)]);
    hook(&app, &partner, &receiver).await;
    let id = partner.partner_id();
    let event = app.control_plane.test_webhook(&id).await.unwrap();
    for attempt in 1..=2 {
        receiver.wait_for("webhook.test", attempt).await;
        eventually("the refusal is kept", SOON, async || {
            let event = app
                .control_plane
                .find_webhook_event(&id, event)
                .await
                .unwrap();
            let is_kept =
                event.last_error.is_some() && usize::try_from(event.attempts) == Ok(attempt);
            is_kept.then_some(())
        })
        .await;
        clock.advance(TimeDelta::seconds(30));
    }
    let received = receiver.wait_for("webhook.test", 3).await;
    wait_for_state(&app, &partner, WebhookState::Delivered).await;
    let ids: BTreeSet<_> = received
        .iter()
        .map(|one| one.header("x-insforge-event-id").to_owned())
        .collect();
    assert_eq!(ids, [event.to_string()].into());
    assert!(received.iter().all(|one| one.body == received[0].body));
    let times: BTreeSet<_> = received.iter().map(|one| one.signatures().0).collect();
    assert_eq!(times.len(), 3, "each attempt has a time of its own");
}

#[tokio::test]
async fn what_a_dead_worker_did_not_note_is_told_again() {
    let (mut app, partner, clock) = with_moving_clock(true).await;
    let receiver = Receiver::listen().await;
    receiver.replies(&[Reply::Silence]);
    hook(&app, &partner, &receiver).await;
    let event = app
        .control_plane
        .test_webhook(&partner.partner_id())
        .await
        .unwrap();
    // The receiver has it; the worker dies before it can note that.
    receiver.wait_for("webhook.test", 1).await;
    app.kill_worker();
    let _second = app.start_worker(app.worker_config("second"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.received().len(), 1, "it is still the first one's");
    clock.advance(TimeDelta::minutes(2));
    let received = receiver.wait_for("webhook.test", 2).await;
    assert_eq!(received[1].json()["id"], event.to_string());
    wait_for_state(&app, &partner, WebhookState::Delivered).await;
}

#[tokio::test]
async fn after_three_days_an_event_is_given_up_until_an_operator_sends_it_again() {
    let (app, partner, clock) = with_moving_clock(true).await;
    let receiver = Receiver::listen().await;
    receiver.always(Reply::Status(503));
    hook(&app, &partner, &receiver).await;
    let id = partner.partner_id();
    let event = app.control_plane.test_webhook(&id).await.unwrap();
    receiver.wait_for("webhook.test", 1).await;
    eventually("the refusal is kept", SOON, async || {
        let event = app
            .control_plane
            .find_webhook_event(&id, event)
            .await
            .unwrap();
        event.last_error.is_some().then_some(())
    })
    .await;
    clock.advance(TimeDelta::days(3));
    wait_for_state(&app, &partner, WebhookState::Failed).await;
    let seen = app
        .control_plane
        .find_webhook_event(&id, event)
        .await
        .unwrap();
    assert_eq!(seen.last_status, Some(503));
    let tried = receiver.received().len();
    clock.advance(TimeDelta::days(1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(receiver.received().len(), tried, "it is not tried any more");

    receiver.always(Reply::Status(204));
    app.control_plane
        .redeliver_webhook_event(&id, event)
        .await
        .unwrap();
    wait_for_state(&app, &partner, WebhookState::Delivered).await;
    let again = receiver.received().pop().unwrap();
    assert_eq!(again.json()["id"], event.to_string());
    let others = app.partner().await.partner_id();
    assert!(
        app.control_plane
            .redeliver_webhook_event(&others, event)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_slow_receiver_delays_nobody_else() {
    let app = App::start().await;
    let (slow, quick) = (app.partner().await, app.partner().await);
    let (silent, prompt) = (Receiver::listen().await, Receiver::listen().await);
    silent.always(Reply::Silence);
    hook(&app, &slow, &silent).await;
    hook(&app, &quick, &prompt).await;
    for _ in 0..200 {
        app.control_plane
            .test_webhook(&slow.partner_id())
            .await
            .unwrap();
    }
    silent.wait_for("webhook.test", 4).await;
    for _ in 0..20 {
        app.control_plane
            .test_webhook(&quick.partner_id())
            .await
            .unwrap();
    }
    prompt.wait_for("webhook.test", 20).await;
    assert_eq!(silent.received().len(), 4, "it has four places, no more");
}

/// Places for all partners together are fewer than those of many partners that say nothing.
#[tokio::test]
async fn many_slow_receivers_delay_nobody_else_by_more_than_one_wait() {
    let app = App::start().await;
    let silent = Receiver::listen().await;
    silent.always(Reply::Silence);
    for _ in 0..30 {
        let slow = app.partner().await;
        hook(&app, &slow, &silent).await;
        for _ in 0..6 {
            app.control_plane
                .test_webhook(&slow.partner_id())
                .await
                .unwrap();
        }
    }
    silent.wait_for("webhook.test", 64).await;
    let quick = app.partner().await;
    let prompt = Receiver::listen().await;
    hook(&app, &quick, &prompt).await;
    app.control_plane
        .test_webhook(&quick.partner_id())
        .await
        .unwrap();
    // 180 events of the others came before it; they take 30 seconds.
    let began = Instant::now();
    eventually("one wait", Duration::from_secs(14), async || {
        (!prompt.received().is_empty()).then_some(())
    })
    .await;
    let silent = silent.received().len();
    assert!(silent <= 128, "{silent} after {:?}", began.elapsed());
}

#[tokio::test]
async fn after_a_rotation_both_secrets_sign_for_a_day() {
    let (app, partner, clock) = with_moving_clock(true).await;
    let receiver = Receiver::listen().await;
    let old = hook(&app, &partner, &receiver).await;
    let id = partner.partner_id();
    let same = app
        .control_plane
        .set_webhook(&id, &receiver.url, false)
        .await
        .unwrap();
    assert!(same.secret.is_none());
    let rotated = app
        .control_plane
        .set_webhook(&id, &receiver.url, true)
        .await
        .unwrap();
    let new = rotated.secret.unwrap();
    assert!(rotated.webhook.previous_secret_until.is_some());
    app.control_plane.test_webhook(&id).await.unwrap();
    let told = receiver.wait_for("webhook.test", 1).await.remove(0);
    for secret in [&old, &new] {
        assert!(told.is_signed_with(secret.expose_secret()));
    }
    clock.advance(TimeDelta::hours(25));
    app.control_plane.test_webhook(&id).await.unwrap();
    let told = receiver.wait_for("webhook.test", 2).await.remove(1);
    assert!(told.is_signed_with(new.expose_secret()));
    assert!(!told.is_signed_with(old.expose_secret()));
}

#[tokio::test]
async fn a_removed_webhook_is_told_nothing_more() {
    let (app, partner, _) = with_moving_clock(false).await;
    let receiver = Receiver::listen().await;
    hook(&app, &partner, &receiver).await;
    let id = partner.partner_id();
    app.control_plane.test_webhook(&id).await.unwrap();
    app.control_plane.remove_webhook(&id).await.unwrap();
    assert_eq!(states(&app, &partner).await, [WebhookState::Failed]);
    assert!(app.control_plane.remove_webhook(&id).await.is_err());
    let _worker = app.start_worker(app.worker_config("late"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn nobody_reaches_into_our_network_through_a_webhook() {
    let app = App::start_with(AppOptions {
        allow_http_webhooks: false,
        ..AppOptions::default()
    })
    .await;
    let partner = app.partner().await;
    let id = partner.partner_id();
    let receiver = Receiver::listen().await;
    for url in [
        receiver.url.as_str(),
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "http://example.com/",
        "https://user:pw@example.com/",
        "https://example.com/#part",
    ] {
        let refused = app.control_plane.set_webhook(&id, url, false).await;
        assert!(
            matches!(&refused, Err(DomainError::InvalidField(e)) if e.field == "url"),
            "{url}"
        );
    }
    // Set before the rule was, or when the name meant something else.
    let set = app
        .control_plane
        .set_webhook(&id, "https://example.com/", false);
    set.await.unwrap();
    for url in [receiver.url.as_str(), "https://127.0.0.1/"] {
        sqlx::query("update partner_webhooks set url = $1")
            .bind(url)
            .execute(&mut app.database.connect().await)
            .await
            .unwrap();
        let event = app.control_plane.test_webhook(&id).await.unwrap();
        eventually("it is refused", SOON, async || {
            let event = app
                .control_plane
                .find_webhook_event(&id, event)
                .await
                .unwrap();
            event
                .last_error
                .filter(|error| error.contains("url must be"))
        })
        .await;
    }
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn secrets_are_nowhere_in_the_clear() {
    let log = Log::default();
    let copy = log.clone();
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || copy.clone())
        .try_init();
    let app = App::start().await;
    let partner = app.partner().await;
    let receiver = Receiver::listen().await;
    receiver.replies(&[Reply::Status(500)]);
    let secret = hook(&app, &partner, &receiver).await;
    app.control_plane
        .test_webhook(&partner.partner_id())
        .await
        .unwrap();
    receiver.wait_for("webhook.test", 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let secret = secret.expose_secret();
    let mut written = String::from_utf8_lossy(&lock(&log.0)).into_owned();
    for table in ["partner_webhooks", "webhook_events", "audit_log"] {
        let sql = format!("select coalesce(string_agg(t::text, ' '), '') from {table} t");
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(&mut app.database.connect().await)
            .await
            .unwrap();
        written.push_str(&text);
    }
    assert!(written.contains("webhook.set"), "there is something to see");
    assert!(!written.contains(secret));
    // Nor in the hexadecimal of a bytea.
    assert!(!written.contains(&hex(secret.as_bytes())));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A partner with a paused project that is a hundred days old, a service that counts, and no worker.
/// It is noon of the 15th of a month.
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

    async fn start_working() -> Self {
        let clock = StoryClock::new();
        let next = LimitPeriod::Month
            .last_day(LimitPeriod::Month.first_day(clock.now().date_naive()))
            + Days::new(15);
        clock.set(next.and_hms_opt(12, 0, 0).unwrap().and_utc());
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
        let service = app.usage_service("gateway").await;
        let nowhere = Receiver::listen().await;
        hook(&app, &partner, &nowhere).await;
        Self {
            app,
            clock,
            partner,
            project,
            service,
        }
    }

    async fn limit(
        &self,
        metric: Metric,
        amount: &str,
        project: Option<ProjectId>,
        period: LimitPeriod,
    ) {
        let new = NewLimit {
            metric,
            amount,
            project,
            period,
        };
        self.app
            .control_plane
            .set_usage_limit(&self.partner.partner_id(), new)
            .await
            .unwrap();
    }

    async fn tell(&self, id: &str, metric: &str, value: impl Into<Value>) {
        self.tell_of(id, metric, value, TimeDelta::zero()).await;
    }

    async fn tell_of(&self, id: &str, metric: &str, value: impl Into<Value>, ago: TimeDelta) {
        let at = self.clock.now() - ago;
        let event = self.service.event(id, self.project, metric, value, at);
        self.service.tell(&[event]).await;
    }

    /// What was told of limits, oldest first.
    async fn crossings(&self) -> Vec<Value> {
        let mut events = self
            .app
            .control_plane
            .list_webhook_events(&self.partner.partner_id(), None, 1000)
            .await
            .unwrap();
        events.retain(|event| event.kind.as_str() == "usage.limit_crossed");
        events.reverse();
        events.into_iter().map(|event| event.data).collect()
    }

    fn month(&self) -> String {
        self.clock.now().format("%Y-%m").to_string()
    }

    fn day(&self) -> String {
        self.clock.now().format("%Y-%m-%d").to_string()
    }
}

#[tokio::test]
async fn reaching_a_limit_is_told_once_a_period() {
    let story = Story::start().await;
    story
        .limit(Metric::AiTokens, "100", None, LimitPeriod::Month)
        .await;
    story
        .limit(
            Metric::AiTokens,
            "60",
            Some(story.project),
            LimitPeriod::Day,
        )
        .await;
    story.tell("a", "ai_tokens", 50).await;
    assert!(story.crossings().await.is_empty());
    story.tell("b", "ai_tokens", 10).await;
    let told = story.crossings().await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["partner_id"], story.partner.id.as_str());
    assert_eq!(told[0]["project_id"], story.project.to_string());
    assert_eq!(told[0]["metric"], "ai_tokens");
    assert_eq!(told[0]["period_type"], "day");
    assert_eq!(told[0]["period"], story.day());
    assert_eq!(
        (&told[0]["limit"], &told[0]["value"]),
        (&60.into(), &60.into())
    );

    story.tell("c", "ai_tokens", 45).await;
    let told = story.crossings().await;
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["project_id"], Value::Null);
    assert_eq!(told[1]["period"], story.month());
    assert_eq!(told[1]["value"], 105);

    // Below and above again.
    story.tell("d", "ai_tokens", -100).await;
    story.tell("e", "ai_tokens", 500).await;
    assert_eq!(
        story
            .app
            .control_plane
            .check_all_usage_limits()
            .await
            .unwrap(),
        0
    );
    assert_eq!(story.crossings().await.len(), 2);

    // Another day, the same month.
    story.clock.advance(TimeDelta::days(1));
    story.tell("f", "ai_tokens", 60).await;
    let told = story.crossings().await;
    assert_eq!(told.len(), 3);
    assert_eq!(told[2]["period"], story.day());
}

#[tokio::test]
async fn late_usage_reaches_the_limit_of_its_own_day_but_of_none_before_the_limit() {
    let story = Story::start().await;
    story
        .limit(Metric::McpCalls, "10", None, LimitPeriod::Day)
        .await;
    story.clock.advance(TimeDelta::days(2));
    let yesterday = TimeDelta::days(1);
    let the_day = (story.clock.now() - yesterday).date_naive().to_string();
    story.tell_of("a", "mcp_calls", 10, yesterday).await;
    let told = story.crossings().await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["period"], the_day);
    story
        .tell_of("b", "mcp_calls", 10, TimeDelta::days(5))
        .await;
    assert_eq!(story.crossings().await.len(), 1);
}

#[tokio::test]
async fn of_many_batches_at_once_one_tells_it() {
    let story = Story::start().await;
    story
        .limit(Metric::FunctionCalls, "800", None, LimitPeriod::Month)
        .await;
    story
        .limit(Metric::AiCredits, "0.8", None, LimitPeriod::Day)
        .await;
    let batches = (0..16).map(|batch| {
        let at = story.clock.now();
        let service = story.service.clone();
        let project = story.project;
        async move {
            for round in 0..10 {
                let events = [
                    service.event(
                        format!("f{batch}.{round}"),
                        project,
                        "function_calls",
                        10,
                        at,
                    ),
                    service.event(format!("c{batch}.{round}"), project, "ai_credits", 0.01, at),
                ];
                service.tell(&events).await;
            }
        }
    });
    join_all(batches).await;
    let told = story.crossings().await;
    assert_eq!(told.len(), 2, "{told:?}");
    for one in told {
        let (limit, value) = (
            one["limit"].as_f64().unwrap(),
            one["value"].as_f64().unwrap(),
        );
        assert!(value >= limit, "{one}");
    }
}

#[tokio::test]
async fn a_size_reaches_its_limit_by_its_greatest_day() {
    let story = Story::start().await;
    story
        .limit(Metric::StorageBytes, "1000", None, LimitPeriod::Month)
        .await;
    // Two days do not add up.
    story
        .tell_of("a", "storage_bytes", 600, TimeDelta::days(1))
        .await;
    story.tell("b", "storage_bytes", 700).await;
    assert!(story.crossings().await.is_empty());
    story.tell("c", "storage_bytes", 1000).await;
    assert_eq!(story.crossings().await.len(), 1);
}

#[tokio::test]
async fn compute_reaches_its_limit_by_time_alone() {
    let mut story = Story::start_working().await;
    story.app.kill_worker();
    story
        .limit(Metric::Ec2Compute, "7200", None, LimitPeriod::Day)
        .await;
    story
        .limit(
            Metric::Ec2Compute,
            "7200",
            Some(story.project),
            LimitPeriod::Month,
        )
        .await;
    let control_plane = &story.app.control_plane;
    story.clock.advance(TimeDelta::hours(1));
    assert_eq!(control_plane.check_all_usage_limits().await.unwrap(), 0);
    story.clock.advance(TimeDelta::hours(1));
    assert_eq!(control_plane.check_all_usage_limits().await.unwrap(), 2);
    assert_eq!(control_plane.check_all_usage_limits().await.unwrap(), 0);
    assert_eq!(story.crossings().await.len(), 2);
}

#[tokio::test]
async fn a_worker_looks_at_limits_by_itself() {
    let mut story = Story::start_working().await;
    story.app.kill_worker();
    story
        .limit(Metric::Ec2Compute, "60", None, LimitPeriod::Day)
        .await;
    story.clock.advance(TimeDelta::hours(1));
    let _worker = story.app.start_worker(story.app.worker_config("later"));
    eventually("the limit is told", SOON, async || {
        (story.crossings().await.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn one_partners_damaged_limit_keeps_nobody_else_from_being_told() {
    let story = Story::start().await;
    for _ in 0..4 {
        let other = story.app.partner().await;
        let new = NewLimit {
            metric: Metric::AiTokens,
            amount: "100",
            project: None,
            period: LimitPeriod::Month,
        };
        story
            .app
            .control_plane
            .set_usage_limit(&other.partner_id(), new)
            .await
            .unwrap();
    }
    // Before and behind it in any order.
    sqlx::query("update usage_limits set metric = 'beyond our time'")
        .execute(&mut story.app.database.connect().await)
        .await
        .unwrap();
    story
        .limit(Metric::AiTokens, "100", None, LimitPeriod::Month)
        .await;
    let at = story.clock.now();
    sqlx::query(
        "insert into usage_partner_daily (partner_id, day, lane, ai_tokens) values ($1, $2, 60, 100)",
    )
    .bind(story.partner.id.as_str())
    .bind(at.date_naive())
    .execute(&mut story.app.database.connect().await)
    .await
    .unwrap();
    let crossed = story.app.control_plane.check_all_usage_limits().await;
    assert_eq!(crossed.unwrap(), 1);
    assert_eq!(story.crossings().await.len(), 1);
}

#[tokio::test]
async fn who_asks_later_is_told_of_the_period_that_goes_on() {
    let story = Story::start().await;
    let cp = &story.app.control_plane;
    cp.remove_webhook(&story.partner.partner_id())
        .await
        .unwrap();
    story
        .limit(Metric::AiTokens, "100", None, LimitPeriod::Month)
        .await;
    story.tell("a", "ai_tokens", 100).await;
    assert_eq!(cp.check_all_usage_limits().await.unwrap(), 0);
    assert_eq!(story.crossings().await, [] as [Value; 0]);
    let receiver = Receiver::listen().await;
    hook(&story.app, &story.partner, &receiver).await;
    assert_eq!(cp.check_all_usage_limits().await.unwrap(), 1);
    assert_eq!(cp.check_all_usage_limits().await.unwrap(), 0);
    assert_eq!(story.crossings().await.len(), 1);
}

#[tokio::test]
async fn limits_are_set_for_what_is_the_partners() {
    let story = Story::start().await;
    let cp = &story.app.control_plane;
    let (id, other) = (
        story.partner.partner_id(),
        story.app.partner().await.partner_id(),
    );
    let new = NewLimit {
        metric: Metric::AiTokens,
        amount: "5",
        project: Some(story.project),
        period: LimitPeriod::Day,
    };
    let refused = cp.set_usage_limit(&other, new).await;
    assert!(matches!(
        refused,
        Err(DomainError::NotFound(Thing::Project))
    ));
    let limit = cp.set_usage_limit(&id, new).await.unwrap();
    let refused = cp.set_usage_limit(&id, new).await;
    assert!(matches!(refused, Err(DomainError::Conflict(_))));
    for amount in ["0", "-1", "1.5", "1e3", "99999999999999999999", ""] {
        let refused = cp.set_usage_limit(&id, NewLimit { amount, ..new }).await;
        assert!(
            matches!(&refused, Err(DomainError::InvalidField(e)) if e.field == "amount"),
            "{amount}"
        );
    }
    story.tell("a", "ai_tokens", 5).await;
    let listed = cp.list_usage_limits(&id).await.unwrap();
    assert_eq!(listed[0].reached_in, Some(story.day()));
    assert!(cp.remove_usage_limit(&other, limit.id).await.is_err());
    cp.remove_usage_limit(&id, limit.id).await.unwrap();
    assert!(cp.list_usage_limits(&id).await.unwrap().is_empty());
}

/// With the real programs.
mod real {
    use cp_tests::programs::{Dev, NO_POOL, Said};
    use serde_json::{Value, json};

    use super::{Receiver, Reply};

    async fn operator(dev: &Dev, line: &str) -> Said {
        let args: Vec<&str> = line.split(' ').collect();
        dev.home().operator(&args).await
    }

    #[tokio::test]
    async fn operators_lead_webhooks_and_limits() {
        let dev = Dev::start_with(&[NO_POOL]).await;
        let receiver = Receiver::listen().await;
        let id = &dev.partner.id;
        let run = async |line: String| operator(&dev, &format!("partner {line} --json")).await;

        let refused = run(format!("webhook test {id}")).await;
        assert!(refused.refused().contains("webhook"), "{refused:?}");
        let set = run(format!("webhook set {id} {}", receiver.url))
            .await
            .json();
        assert_eq!(set["url"], receiver.url);
        let secret = set["secret"].as_str().unwrap().to_owned();
        let shown = run(format!("webhook show {id}")).await.json();
        assert_eq!(shown.get("secret"), None);

        let tested = run(format!("webhook test {id}")).await.json();
        assert_eq!(tested["state"], "delivered");
        assert_eq!(tested["last_status"], 200);
        let told = receiver.wait_for("webhook.test", 1).await.remove(0);
        assert!(told.is_signed_with(&secret));
        receiver.replies(&[Reply::Status(418)]);
        let refused = run(format!("webhook test {id}")).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.out.contains("418"), "{refused:?}");

        let event = tested["id"].as_str().unwrap();
        run(format!("webhook redeliver {id} {event}")).await.json();
        let again = receiver.wait_for("webhook.test", 3).await;
        assert!(again.iter().filter(|one| one.json()["id"] == event).count() == 2);
        let listed = run(format!("webhook list {id}")).await.json();
        assert_eq!(listed.as_array().map(Vec::len), Some(2));

        let limit = run(format!("limit set {id} ai_credits 0.5 --period day"))
            .await
            .json();
        assert_eq!(limit["amount"], "0.5");
        assert_eq!(limit["project"], Value::Null);
        let listed = run(format!("limit list {id}")).await.json();
        assert_eq!(listed[0]["id"], limit["id"]);
        let limit = limit["id"].as_str().unwrap();
        run(format!("limit remove {id} {limit} --yes")).await.json();
        assert_eq!(run(format!("limit list {id}")).await.json(), json!([]));

        run(format!("webhook remove {id} --yes")).await.json();
        let refused = run(format!("webhook show {id}")).await;
        assert!(refused.refused().contains("webhook"), "{refused:?}");
    }
}
