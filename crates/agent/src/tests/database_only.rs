//! A machine's database alone (`DesiredBackend::database_only`), under both runtimes: into it, out
//! of it, restarted in it, and whatever befalls agent, Postgres and docker meanwhile.

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{faults::enumerate_faults, machine::*, *};

fn alone(project: ProjectId, restarts: i64) -> DesiredBackend {
    DesiredBackend {
        database_only: true,
        ..Lab::backend(project, restarts)
    }
}

impl Lab {
    async fn until_alone(&self, project: ProjectId, restarts: i64) -> ReportRequest {
        let generation = self.control.want(Some(alone(project, restarts)));
        let report = self.control.until(0, database_only(generation)).await;
        assert_eq!(report.restarts, restarts);
        assert_eq!((&report.backend_version, &report.message), (&None, &None));
        assert!(self.ask("/api/health", "").await.is_none());
        assert!(self.backends().is_empty());
        report
    }

    async fn until_all(&self, project: ProjectId, restarts: i64) {
        let desired = Lab::backend(project, restarts);
        let generation = self.control.want(Some(desired));
        self.control.until(0, serving(generation)).await;
    }

    /// As the control plane comes: by what it knows of the machine and of the project.
    async fn connect(&self, database: &str) -> PgConnection {
        let desired = Lab::backend(ProjectId::generate(), 0);
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.cluster.port())
            .username("postgres")
            .password(&desired.database_password)
            .database(database)
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await.unwrap()
    }

    async fn run(&self, database: &str, sql: &'static str) {
        let mut connection = self.connect(database).await;
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn ask_database(&self, database: &str, question: &'static str) -> bool {
        let mut connection = self.connect(database).await;
        let answer = sqlx::query_scalar(question).fetch_one(&mut connection);
        let answer = answer.await.unwrap();
        connection.close().await.unwrap();
        answer
    }

    async fn postmaster(&self) -> u32 {
        self.cluster.pid().await.unwrap()
    }
}

const HAS_DATABASE: &str = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'insforge')";

#[tokio::test]
async fn a_database_runs_alone_before_the_backend_and_again_later() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.start();
    lab.control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    let project = ProjectId::generate();
    lab.until_alone(project, 0).await;

    // What a release's container has after its first start: the roles, and an empty database.
    let no_schema = "SELECT to_regclass('system.migrations') IS NULL";
    assert!(lab.ask_database("insforge", no_schema).await);
    let has_roles = "SELECT count(*) = 3 FROM pg_roles
        WHERE rolname IN ('anon', 'authenticated') OR (rolname = 'project_admin' AND rolbypassrls)";
    assert!(lab.ask_database("postgres", has_roles).await);
    let postmaster = lab.postmaster().await;
    lab.run("insforge", "CREATE TABLE public.restored (id integer)")
        .await;

    // The rest is started beside it, and stopped again.
    lab.until_all(project, 0).await;
    assert_eq!(lab.postmaster().await, postmaster);
    let is_kept = "SELECT to_regclass('public.restored') IS NOT NULL
        AND to_regclass('system.migrations') IS NOT NULL";
    assert!(lab.ask_database("insforge", is_kept).await);
    lab.until_alone(project, 0).await;
    assert_eq!(lab.postmaster().await, postmaster);
    assert!(lab.ask_database("insforge", is_kept).await);

    // A database that somebody drops to make it anew is theirs: the same desire again is no reason
    // to touch it, nor is another password.
    lab.run("postgres", "DROP DATABASE insforge WITH (FORCE)")
        .await;
    lab.until_alone(project, 0).await;
    assert!(!lab.ask_database("postgres", HAS_DATABASE).await);

    // Here a grown count is for Postgres.
    let before = lab.control.reports();
    lab.until_alone(project, 1).await;
    let restarted = lab.postmaster().await;
    assert_ne!(restarted, postmaster);
    let starting = |report: &ReportRequest| report.state == ObservedState::Starting;
    let reports = lab.control.seen.lock().unwrap().reports[before..].to_vec();
    assert!(reports.iter().any(starting), "{reports:?}");
    assert!(!lab.ask_database("postgres", HAS_DATABASE).await);
    lab.until_all(project, 1).await;
    lab.until_all(project, 2).await;
    lab.until_alone(project, 2).await;
    assert_eq!(lab.postmaster().await, restarted, "it was the backend's");
    lab.until_alone(project, 3).await;
    assert_ne!(lab.postmaster().await, restarted);
    lab.stop().await;
}

#[tokio::test]
async fn a_database_that_runs_alone_outlives_its_agent_and_comes_back_alone() {
    let mut lab = Lab::new(cp_provider::local::Runtime::Builtin).await;
    lab.start();
    let project = ProjectId::generate();
    let generation = lab.until_alone(project, 4).await.generation;
    let postmaster = lab.postmaster().await;
    lab.run("postgres", "DROP DATABASE insforge WITH (FORCE)")
        .await;

    // A crash of the agent leaves Postgres running; the next one takes it over.
    let (_, agent) = lab.agent.take().unwrap();
    agent.abort();
    let _ = agent.await;
    assert!(lab.cluster.is_running().await);
    let before = lab.control.reports();
    lab.start();
    lab.control.until(before, database_only(generation)).await;
    assert_eq!(lab.postmaster().await, postmaster);

    // A reboot.
    lab.stop().await;
    let before = lab.control.reports();
    lab.start();
    lab.control.until(before, database_only(generation)).await;
    assert!(lab.backends().is_empty());

    // Postgres ends, and is started.
    let before = lab.control.reports();
    lab.cluster
        .stop(cp_pg::StopMode::Immediate, Duration::from_secs(5))
        .await
        .unwrap();
    lab.control
        .until(before, |report| report.state == ObservedState::Starting)
        .await;
    lab.control.until(before, database_only(generation)).await;
    assert!(!lab.ask_database("postgres", HAS_DATABASE).await);

    // It cannot be started: that is told.
    let settings = lab.dir.path().join("pgdata/postgresql.auto.conf");
    let well = fs::read(&settings).unwrap();
    fs::write(&settings, "nonsense = on\n").unwrap();
    let before = lab.control.reports();
    let failing = lab.control.want(Some(alone(project, 5)));
    let report = lab
        .control
        .until(before, |report| report.state == ObservedState::Failing)
        .await;
    assert_eq!((report.generation, report.restarts), (failing, 5));
    assert!(report.message.unwrap().starts_with("Postgres: "));
    fs::write(&settings, well).unwrap();
    lab.control.until(before, database_only(failing)).await;

    lab.until_all(project, 5).await;
    assert!(lab.ask_database("postgres", HAS_DATABASE).await);
    lab.stop().await;
}

fn assert_alone(machine: &Machine) {
    assert_eq!(machine.docker.release(), None, "something else runs");
    assert!(machine.docker.state().volumes.len() == 1);
}

fn postgres_starts(machine: &Machine) -> usize {
    machine.docker.state().postgres_starts
}

#[tokio::test]
async fn the_containers_beside_the_database_go_and_come_and_it_stays() {
    let mut machine = Machine::new().await;
    machine.start();
    machine
        .control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    let report = machine.until_database_only(None, 0).await;
    assert_eq!((report.restarts, report.backend_release), (0, None));
    assert_alone(&machine);
    assert!(machine.started().is_empty());

    let report = machine.until_serving(None, 0).await;
    assert_eq!(report.backend_release.as_deref(), Some(V1));
    assert_eq!((machine.started().len(), postgres_starts(&machine)), (1, 1));

    machine.until_database_only(None, 0).await;
    assert_alone(&machine);
    assert_eq!(postgres_starts(&machine), 1);
    let report = machine.until_database_only(None, 1).await;
    assert_eq!((report.restarts, postgres_starts(&machine)), (1, 2));
    assert_alone(&machine);

    // The count was Postgres's: the rest is made anew, and Postgres left alone.
    machine.until_serving(Some(V2), 1).await;
    assert_eq!(machine.started(), [V1, V2]);
    machine.until_serving(Some(V2), 2).await;
    machine.until_database_only(Some(V2), 2).await;
    assert_eq!(postgres_starts(&machine), 2, "it was the backend's");
    machine.until_database_only(Some(V2), 3).await;
    assert_eq!(postgres_starts(&machine), 3);
    machine.check();
    machine.stop().await;
}

/// That its database ran under a release says nothing of the release.
#[tokio::test]
async fn a_release_that_never_served_is_rolled_back_after_the_phase_too() {
    let mut machine = Machine::new().await;
    machine.start_seconds = 2;
    machine.docker.state().unhealthy.insert(V2.to_owned());
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    machine.until_database_only(Some(V2), 1).await;
    let generation = machine.want(Some(V2), 1);
    let report = machine.until_failing(generation).await;
    assert_eq!(report.rolled_back_from.as_deref(), Some(V2));
    assert_eq!(report.backend_release.as_deref(), Some(V1));
    // Given up for the backend; the database has no part in that.
    let report = machine.until_database_only(Some(V2), 1).await;
    assert_eq!((report.rolled_back_from, report.message), (None, None));
    assert_eq!(postgres_starts(&machine), 2);
    machine.check();
    machine.stop().await;
}

#[tokio::test]
async fn a_database_needs_no_other_image_than_its_own() {
    let mut machine = Machine::new().await;
    let server = format!("ghcr.io/insforge/insforge-oss:{V1}");
    machine.docker.state().unpullable.insert(server);
    machine.start();
    machine.until_database_only(None, 0).await;
    assert_alone(&machine);
    // The rest is fetched meanwhile, as far as it is to be had.
    machine
        .docker
        .until_called(1, "pull postgrest/postgrest")
        .await;
    machine.docker.state().unpullable.clear();
    machine.until_serving(None, 0).await;
    assert_eq!(postgres_starts(&machine), 1);
    machine.check();
    machine.stop().await;
}

#[tokio::test]
async fn containers_stay_as_they_are_over_agents_and_reboots() {
    let mut machine = Machine::new().await;
    machine.start();
    machine.until_serving(Some(V1), 0).await;
    let generation = machine.until_database_only(Some(V1), 0).await.generation;
    for reboots in [false, true] {
        machine.stop().await;
        if reboots {
            machine.docker.reboot().await;
        }
        let (before, calls) = (machine.control.reports(), machine.calls().len());
        machine.start();
        machine
            .control
            .until(before, database_only(generation))
            .await;
        assert_eq!(machine.calls()[calls], "compose exec postgres pg_isready");
        let changed = machine.calls()[calls..].join("\n");
        assert!(
            !changed.contains("up") && !changed.contains("rm"),
            "{changed}"
        );
        assert_alone(&machine);
        assert_eq!(postgres_starts(&machine), 1 + usize::from(reboots));
    }

    // Postgres hangs. Docker starts what ends; whether that helps here is not for the agent to
    // guess, and it does not hide it.
    let before = machine.control.reports();
    machine.docker.state().postgres_hangs = true;
    machine
        .control
        .until(before, |report| report.state == ObservedState::Starting)
        .await;
    let report = machine
        .control
        .until(before, |report| report.state == ObservedState::Failing)
        .await;
    assert_eq!(report.generation, generation);
    assert!(report.message.unwrap().contains("is unhealthy"));
    let before = machine.control.reports();
    machine.docker.state().postgres_hangs = false;
    machine
        .control
        .until(before, database_only(generation))
        .await;
    assert_eq!(postgres_starts(&machine), 2);

    // Another project's data is refused in this phase, too.
    let stranger = alone(ProjectId::generate(), 0);
    let generation = machine.control.want(Some(stranger));
    let report = machine.until_failing(generation).await;
    assert!(report.message.unwrap().contains("takes no other"));
    machine.until_serving(Some(V1), 0).await;
    machine.check();
    machine.stop().await;
}

/// A branch that is made, reset, and served again.
async fn live_as_a_branch(machine: &mut Machine) {
    machine.start();
    machine
        .control
        .until(0, |report| report.state == ObservedState::Idle)
        .await;
    machine.until_database_only(Some(V1), 0).await;
    assert_alone(machine);
    machine.until_serving(Some(V1), 0).await;
    machine.docker.until_called(1, "image ls").await;
    machine.until_database_only(Some(V1), 0).await;
    assert_alone(machine);
    let before = postgres_starts(machine);
    machine.until_database_only(Some(V1), 1).await;
    assert_alone(machine);
    assert!(postgres_starts(machine) > before, "not restarted");
    machine.until_serving(Some(V1), 1).await;
}

/// docker call × fault: each ends with the backend serving, started once for each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_docker_call_fails_a_database_runs_alone_when_it_says_so() {
    let mut plain = Machine::new().await;
    live_as_a_branch(&mut plain).await;
    plain.check();
    plain.stop().await;
    assert_eq!(plain.started(), [V1, V1]);
    assert_eq!(postgres_starts(&plain), 2);
    enumerate_faults(plain.calls(), |mut machine| async move {
        live_as_a_branch(&mut machine).await;
        machine.check();
        machine.stop().await;
        assert_eq!(machine.started(), [V1, V1]);
    })
    .await;
}

/// Not only at a call of docker: on the way into the phase, and on the way out of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_agent_is_killed_on_its_way_into_the_phase_or_out_it_arrives() {
    let mut running = tokio::task::JoinSet::new();
    for (into, step) in [true, false]
        .into_iter()
        .flat_map(|into| (0..15).map(move |i| (into, i)))
    {
        if running.len() >= 6 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(async move {
            let mut machine = Machine::new().await;
            machine.start();
            machine.until_serving(Some(V1), 0).await;
            machine.docker.until_called(1, "image ls").await;
            let generation = if into {
                machine.want_database_only(Some(V1), 1)
            } else {
                machine.until_database_only(Some(V1), 1).await;
                machine.want(Some(V1), 1)
            };
            tokio::time::sleep(Duration::from_millis(step * 20)).await;
            let agent = machine.docker.state().agent.unwrap();
            process::signal(agent, rustix::process::Signal::KILL);
            if into {
                machine.control.until(0, database_only(generation)).await;
                assert_alone(&machine);
                assert!(postgres_starts(&machine) >= 2, "grown as it entered");
            } else {
                machine.control.until(0, serving(generation)).await;
                assert_eq!(machine.started(), [V1, V1]);
                assert_eq!(postgres_starts(&machine), 2);
            }
            machine.check();
            machine.stop().await;
        });
    }
    running.join_all().await;
}
