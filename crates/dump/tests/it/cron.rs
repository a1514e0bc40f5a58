//! With the real pg_cron, where this machine's Postgres has it; else there is nothing to try.

use std::time::Duration;

use cp_dump::{Contents, How};

use crate::{
    backend,
    harness::{Server, with_settings, with_world},
};

const SETTINGS: [(&str, &str); 3] = [
    ("shared_preload_libraries", "pg_cron"),
    ("cron.database_name", "insforge"),
    // Without a password for the launcher's own connections.
    ("cron.use_background_workers", "on"),
];

/// What the release's migrations make; and a job that a superuser made by hand.
const JOBS: &str = "
    DROP EVENT TRIGGER users_own; -- else what it makes becomes a part of the extension
    CREATE EXTENSION pg_cron;
    CREATE FUNCTION realtime.cleanup_messages() RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION schedules.cleanup_job_logs() RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION schedules.execute_job(job uuid) RETURNS void LANGUAGE sql AS
        'INSERT INTO schedules.job_logs (job_id, success) VALUES (job, true)';
    CREATE FUNCTION schedules.enable_job(job uuid) RETURNS TABLE (success boolean, message text)
        LANGUAGE plpgsql AS $$ BEGIN
            UPDATE schedules.jobs SET is_active = true, cron_job_id =
                cron.schedule(cron_schedule, 'SELECT schedules.execute_job(''' || id || '''::UUID)')
            WHERE id = job;
            RETURN QUERY SELECT true, NULL::text; END $$;
    SELECT cron.schedule('realtime-message-retention', '0 0 * * *', 'SELECT realtime.cleanup_messages()');
    SELECT schedules.enable_job(id) FROM schedules.jobs WHERE is_active;
    SELECT cron.schedule('by hand', '* * * * *', 'SELECT 1');
    INSERT INTO cron.job_run_details (jobid, runid, database, status) VALUES (1, 1, 'insforge', 'succeeded')";

const NAMES: &str =
    "SELECT string_agg(COALESCE(jobname, left(command, 29)) || ' on ' || database, ', '
                     ORDER BY jobname) FROM cron.job";
const EXPECTED: &str = "realtime-message-retention on insforge, schedules-job-logs-retention on insforge, \
                        SELECT schedules.execute_job( on insforge";

#[tokio::test]
async fn a_branch_runs_its_own_jobs_and_none_of_its_parents() {
    if !is_available().await {
        println!("skipped: this machine's Postgres has no pg_cron");
        return;
    }
    with_settings(&SETTINGS, |world| async move {
        backend::set_up(&world.parent).await;
        world.parent.sql(JOBS).await;
        // A container of the release has its database, and the launcher sits in it.
        world.branch.create_database("insforge").await;

        let restored = world.copy(Contents::Branch, How::NewMachine).await.unwrap();
        assert!(!restored.restart_postgres);
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        let copied =
            "SELECT (SELECT count(*) FROM cron.job) + (SELECT count(*) FROM cron.job_run_details)";
        assert_eq!(world.branch.value(copied).await, "0");
        for _ in 0..2 {
            world.fix_up(false, true).await.unwrap();
            assert_eq!(world.branch.value(NAMES).await, EXPECTED);
        }
        run_a_job(&world.branch).await;

        let restored = world
            .copy(Contents::BranchWithoutData, How::InPlace)
            .await
            .unwrap();
        assert!(
            restored.restart_postgres,
            "the launcher ended with the database"
        );
        world.fix_up(true, true).await.unwrap();
        assert_eq!(world.branch.value(NAMES).await, EXPECTED);
        world.branch.restart(&SETTINGS).await;
        run_a_job(&world.branch).await;

        // A whole archive brings the entries along, and the fix-ups take them out.
        world
            .copy(Contents::Everything, How::InPlace)
            .await
            .unwrap();
        let all = "SELECT count(*) FROM cron.job WHERE jobname = 'by hand'";
        assert_eq!(world.branch.value(all).await, "1");
        world.fix_up(false, false).await.unwrap();
        assert_eq!(
            world.branch.value("SELECT count(*) FROM cron.job").await,
            "2"
        );
    })
    .await;
}

async fn is_available() -> bool {
    let (answer, available) = tokio::sync::oneshot::channel();
    with_world(|world| async move {
        let mut postgres = world.branch.named("postgres").connect().await.unwrap();
        let query = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'";
        let found = crate::harness::value(&mut postgres, query).await;
        answer.send(found == "1").unwrap();
    })
    .await;
    available.await.unwrap()
}

/// Jobs run once a minute at most.
async fn run_a_job(server: &Server) {
    server.sql("DELETE FROM cron.job_run_details").await;
    for _ in 0..80 {
        let succeeded = "SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'";
        if server.value(succeeded).await != "0" {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("no job ran within 80 seconds");
}
