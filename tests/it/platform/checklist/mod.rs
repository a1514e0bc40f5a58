//! The checklist of contract/platform-api.md, section 19: a test for each command of the command-line client that calls the
//! platform. It sends what the client sends, and every answer is looked at field by field.

mod backups;
mod billing;
mod branches;
mod create_and_link;
mod diagnose;
mod forms;
mod integrations;
mod login;
mod members;
mod organizations;
mod projects;
mod rows;
mod sessions;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use cp_tests::{Answer, App, AppOptions, CommandLineClient, Member, MovingClock, Person};
use serde_json::Value;

use self::rows::{ROWS, Row};

/// Somebody at a terminal, about to give one command. When the story is over, what was sent has to be the command's row.
struct Story {
    app: App,
    clock: Arc<MovingClock>,
    /// Ada.
    person: Person,
    /// The same person elsewhere, for what a scenario only arranges.
    ada: Member,
    cli: CommandLineClient,
    row: &'static Row,
}

impl Story {
    /// Without a worker: projects stay as they are set.
    async fn of(command: &str) -> Self {
        let options = AppOptions {
            worker: false,
            ..AppOptions::default()
        };
        Self::with(command, options).await
    }

    /// With a worker, and machines.
    async fn at_work(command: &str) -> Self {
        Self::with(command, AppOptions::default()).await
    }

    async fn with(command: &str, options: AppOptions) -> Self {
        let clock = MovingClock::new();
        let options = AppOptions {
            clock: clock.clone(),
            ..options
        };
        let app = App::start_with(options).await;
        let person = app.stranger("Ada").await;
        let cli = app.command_line_of(&person).await;
        Self {
            ada: app.member_of(&person).await,
            app,
            clock,
            person,
            cli,
            row: rows::find(command),
        }
    }

    /// `R`: nothing names an organization, and there is one.
    async fn organization(&self) -> String {
        let listed = self.cli.get("/organizations/v1").await;
        let listed = listed.shaped(200, &forms::ORGANIZATIONS);
        let [one] = &listed["organizations"].as_array().unwrap()[..] else {
            panic!("the client would ask which one: {listed}");
        };
        id_of(one)
    }

    /// Another administrator of a new team of Ada's, and the team.
    async fn team_with(&self, name: &str) -> (String, Member) {
        let other = self.app.stranger(name).await;
        let team = self.ada.create_organization("Moreno Labs").await;
        self.ada
            .add(&self.app, &team, &other, "administrator")
            .await;
        (team, self.app.member_of(&other).await)
    }

    /// A project of hers that nobody works on; with a worker it is active.
    async fn project(&self) -> String {
        let home = self.ada.home().await;
        let made = self
            .ada
            .begin_project(&home, "storefront")
            .await
            .expect(201);
        id_of(&made["project"])
    }

    async fn active_project(&self) -> String {
        let home = self.ada.home().await;
        self.ada.create_project(&home, "storefront").await
    }

    /// A statement with an id, for states that a worker would bring about.
    async fn run(&self, statement: &'static str, id: &str) {
        let done = sqlx::query(statement)
            .bind(uuid::Uuid::parse_str(id).unwrap())
            .execute(&mut self.app.database.connect().await)
            .await
            .unwrap();
        assert!(done.rows_affected() > 0, "{statement}");
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let sent = self.cli.sent();
        let misses = self.row.misses(&sent);
        assert!(
            misses.is_empty(),
            "{}: {misses:#?}\nsent: {sent:#?}",
            self.row.command
        );
    }
}

fn id_of(thing: &Value) -> String {
    thing["id"].as_str().expect("it has an id").to_owned()
}

/// What the client shows of an error (3.2), which has no word that would make it end well.
#[track_caller]
fn shown(answer: Answer, status: u16) -> String {
    let body = answer.shaped(status, &forms::ERROR);
    assert_eq!(body.get("message"), None, "another text would be shown");
    let text = body["error"].as_str().unwrap().to_owned();
    assert!(!text.contains("cancelled"), "{text}");
    text
}

/// What has no adapter says so, and is nothing that the client takes for something else.
#[track_caller]
fn is_not_configured(answer: Answer) {
    assert_eq!(answer.body["code"], "not_configured", "{}", answer.text);
    shown(answer, 501);
}

#[test]
fn every_row_has_its_test() {
    let listed = Command::new(std::env::current_exe().unwrap())
        .args(["--list", "--format", "terse"])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let tests: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter_map(|name| name.strip_prefix("platform::checklist::"))
        .filter_map(|name| name.rsplit_once("::").map(|(_, test)| test))
        .collect();
    let mut names = BTreeSet::new();
    for row in ROWS {
        let name = row.test();
        assert!(names.insert(name.clone()), "{name} twice");
        let there = tests.iter().filter(|test| **test == name).count();
        let wanted = usize::from(!row.calls.is_empty());
        assert_eq!(there, wanted, "tests named {name} for `{}`", row.command);
    }
    assert!(names.contains("orgs_members_invite"), "{names:?}");
}

/// Section 1 counts the calls; a row that was copied wrongly would make another number.
#[test]
fn the_rows_have_all_the_calls_of_the_contract() {
    let calls = ROWS.iter().flat_map(|row| row.calls);
    let calls: BTreeSet<String> = calls
        .map(|call| {
            let call = call.strip_prefix("? ").unwrap_or(call);
            let call = call.split('?').next().unwrap();
            let parts = call.split('/');
            let parts = parts.map(|part| if part.starts_with('{') { "{}" } else { part });
            parts.collect::<Vec<_>>().join("/")
        })
        .collect();
    assert_eq!(calls.len(), rows::CALLS, "{calls:#?}");
}
