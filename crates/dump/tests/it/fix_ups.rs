//! A copy becomes a branch.

use cp_dump::{Contents, How};

use crate::{backend, copies::is_without_data, harness::with_world};

const SECRETS: &str = "SELECT string_agg(key, ' ' ORDER BY key COLLATE \"C\") FROM system.secrets";

#[tokio::test]
async fn the_parents_keys_and_deployments_are_gone_and_the_rest_stays() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        // Even from an archive that holds everything.
        world.copy(Contents::Everything, How::NewMachine).await.unwrap();
        for _ in 0..2 {
            world.fix_up(false, false).await.unwrap();
            assert_eq!(
                world.branch.value(SECRETS).await,
                "API_KEYXOLD_1 GOOGLE_CLIENT_SECRET JWT_KEY_ID JWT_PRIVATE_KEY JWT_PUBLIC_KEY JWT_SECRET MY_API_KEY"
            );
            let emptied = "SELECT (SELECT count(*) FROM functions.deployments) + (SELECT count(*) FROM compute.services)
                + (SELECT count(*) FROM deployments.files) + (SELECT count(*) FROM deployments.runs)
                + (SELECT count(*) FROM system.mcp_usage) + (SELECT count(*) FROM system.audit_logs)
                + (SELECT count(*) FROM storage.s3_access_keys) + (SELECT count(*) FROM auth.email_otps)
                + (SELECT count(*) FROM system.database_backups)";
            assert_eq!(world.branch.value(emptied).await, "0");
            let jobs = "SELECT count(*) FILTER (WHERE is_active) || ' active, ' || count(cron_job_id) || ' cron'
                        FROM schedules.jobs";
            assert_eq!(world.branch.value(jobs).await, "0 active, 0 cron");
            assert_eq!(world.branch.value("SELECT count(*) FROM auth.users").await, "50");
            assert_eq!(world.branch.value("SELECT count(*) FROM storage.object_tags").await, "20");
            let served = "SELECT setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                          WHERE datname = 'insforge'";
            assert_eq!(
                world.branch.value(served).await,
                r#"{"pgrst.db_schemas=public,My.Schema*?"}"#
            );
        }
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        let posts = "SELECT count(*) FROM public.posts WHERE body LIKE '%!'";
        assert_eq!(world.branch.value(posts).await, "0", "no trigger fired");
    })
    .await;
}

#[tokio::test]
async fn schedules_run_on_the_branch_if_they_are_to() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        // The release's function, and what it would call: a plain Postgres has no pg_cron (see `cron`).
        world
            .parent
            .sql(
                "CREATE SCHEMA cron; CREATE TABLE cron.job (jobid bigserial, jobname text UNIQUE, schedule text, command text);
                 CREATE FUNCTION cron.schedule(name text, at text, what text) RETURNS bigint LANGUAGE sql AS
                     'INSERT INTO cron.job (jobname, schedule, command) VALUES (name, at, what) RETURNING jobid';
                 CREATE FUNCTION realtime.cleanup_messages() RETURNS void LANGUAGE sql AS 'SELECT';
                 CREATE FUNCTION schedules.cleanup_job_logs() RETURNS void LANGUAGE sql AS 'SELECT';
                 CREATE FUNCTION schedules.enable_job(job uuid) RETURNS TABLE (success boolean, message text)
                     LANGUAGE plpgsql AS $$ BEGIN
                         UPDATE schedules.jobs SET is_active = true,
                             cron_job_id = cron.schedule(NULL, cron_schedule, 'SELECT schedules.execute_job(''' || id || '''::UUID)')
                         WHERE id = job;
                         RETURN QUERY SELECT true, NULL::text; END $$;
                 INSERT INTO cron.job (jobname, command) VALUES ('parent''s', 'SELECT 1')",
            )
            .await;
        world.copy(Contents::Everything, How::NewMachine).await.unwrap();
        for _ in 0..2 {
            world.fix_up(false, true).await.unwrap();
            let jobs = "SELECT string_agg(COALESCE(jobname, left(command, 30)), ',' ORDER BY command, jobname) FROM cron.job";
            assert_eq!(
                world.branch.value(jobs).await,
                "realtime-message-retention,schedules-job-logs-retention,SELECT schedules.execute_job('"
            );
            let linked = "SELECT name FROM schedules.jobs j JOIN cron.job c ON c.jobid = j.cron_job_id";
            assert_eq!(world.branch.value(linked).await, "tick");
        }
        world.fix_up(false, false).await.unwrap();
        assert_eq!(world.branch.value("SELECT count(*) FROM cron.job").await, "2");
    })
    .await;
}

#[tokio::test]
async fn data_can_be_emptied_afterwards_too() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world
            .parent
            .sql(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
                 CREATE TRIGGER refuse BEFORE TRUNCATE ON posts EXECUTE FUNCTION refuse();
                 ALTER EVENT TRIGGER users_own ENABLE",
            )
            .await;
        world.copy(Contents::Everything, How::NewMachine).await.unwrap();
        for _ in 0..2 {
            world.fix_up(true, false).await.unwrap();
            is_without_data(&world).await;
            world.branch.sql("SELECT nextval('tickets')").await;
        }
    })
    .await;
}

#[tokio::test]
async fn tables_on_other_servers_are_not_emptied() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        let branch = world.branch.cluster.port();
        world.branch.create_database("insforge").await;
        world.branch.sql("CREATE TABLE far AS SELECT 2 AS i").await;
        world
            .parent
            .sql(&format!(
                "CREATE EXTENSION postgres_fdw;
                 CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{branch}', dbname 'insforge');
                 CREATE USER MAPPING FOR postgres SERVER other OPTIONS (user 'postgres', password 'swordfish');
                 CREATE TABLE p (i int) PARTITION BY LIST (i);
                 CREATE TABLE near PARTITION OF p FOR VALUES IN (1);
                 CREATE FOREIGN TABLE far PARTITION OF p FOR VALUES IN (2) SERVER other;
                 INSERT INTO near VALUES (1)"
            ))
            .await;
        let fix_ups = cp_dump::FixUps {
            schema_only: true,
            run_schedules: false,
        };
        cp_dump::fix_up_branch(&world.parent.database(), fix_ups).await.unwrap();
        assert_eq!(world.parent.value("SELECT count(*) FROM public.near").await, "0");
        assert_eq!(world.branch.value("SELECT count(*) FROM public.far").await, "1");
    })
    .await;
}
