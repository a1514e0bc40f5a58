//! A copy becomes a branch.

use cp_dump::{Contents, Error, Exported, How, fix_up_backup};
use uuid::Uuid;

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

#[tokio::test]
async fn a_backup_has_the_keys_of_the_database_that_it_replaced() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Everything).await;
        world.restore(&archive, How::NewMachine).await.unwrap();
        // Since then a key was replaced, one was made, one withdrawn; and what is no key was changed.
        world
            .branch
            .sql(
                "UPDATE system.secrets SET value_ciphertext = 'today' WHERE key IN ('API_KEY', 'MY_API_KEY');
                 DELETE FROM system.secrets WHERE key ~ '^ANON_KEY_OLD_';
                 UPDATE storage.s3_access_keys SET access_key_id = 'TODAY'",
            )
            .await;
        let (database, id) = (world.branch.database(), Uuid::new_v4());
        let how = How::InPlaceKeeping(id);
        world.restore(&archive, how).await.unwrap();
        let keys = "SELECT string_agg(key || '=' || value_ciphertext, ' ' ORDER BY key COLLATE \"C\") FROM system.secrets
                    WHERE key ~ '^(MY_)?(API|ANON)_KEY(_|$)'";
        for _ in 0..2 {
            fix_up_backup(&database, id).await.unwrap();
            assert_eq!(
                world.branch.value(keys).await,
                "ANON_KEY=c2 API_KEY=today API_KEY_OLD_1700000000000=c3 MY_API_KEY=c13"
            );
            let s3 = "SELECT string_agg(access_key_id, ' ') FROM storage.s3_access_keys";
            assert_eq!(world.branch.value(s3).await, "TODAY");
        }
    })
    .await;
}

/// Whoever has the database's password can make as many as they like; ours is the memory that they are read into.
#[tokio::test]
async fn keys_and_roles_are_read_as_far_as_any_backend_has_them() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Everything).await;
        world.restore(&archive, How::NewMachine).await.unwrap();
        let (database, id) = (world.branch.database(), Uuid::new_v4());
        let is_too_much = |error: &Error, of: &str| {
            assert!(matches!(error, Error::TooMuch { .. }), "{error}");
            assert!(error.is_permanent());
            assert!(error.to_string().contains(of), "{error}");
        };
        for (fill, table) in [
            (
                "INSERT INTO storage.s3_access_keys (access_key_id, secret_access_key_encrypted)
                 SELECT 'AK' || i, 'x' FROM generate_series(1, 10000) i",
                "storage.s3_access_keys",
            ),
            (
                "INSERT INTO system.secrets (key, value_ciphertext, is_reserved)
                 SELECT 'API_KEY_OLD_' || i, 'x', true FROM generate_series(1, 10001) i",
                "system.secrets",
            ),
            (
                "UPDATE system.secrets SET value_ciphertext = repeat('x', 9 << 20) WHERE key = 'API_KEY'",
                "system.secrets",
            ),
        ] {
            world.branch.sql(fill).await;
            world.restore(&archive, How::InPlaceKeeping(id)).await.unwrap();
            let refused = fix_up_backup(&database, id).await.unwrap_err();
            is_too_much(&refused, table);
            // What was there before is untouched, and can be put back.
            cp_dump::put_back(&database, id).await.unwrap();
            world
                .branch
                .sql(
                    "DELETE FROM storage.s3_access_keys WHERE access_key_id <> 'AK';
                     DELETE FROM system.secrets WHERE key ~ '^API_KEY_OLD_'",
                )
                .await;
        }

        let roles = "DO $$ BEGIN FOR i IN 1..1001 LOOP
                         EXECUTE format('CREATE ROLE of_theirs_%s', i);
                         EXECUTE format('GRANT SELECT ON posts TO of_theirs_%s', i);
                     END LOOP; END $$";
        world.parent.sql(roles).await;
        let mut snapshot = Exported::open(&world.parent.database()).await.unwrap();
        let refused = snapshot.roles().await.unwrap_err();
        is_too_much(&refused, "roles");
        world.parent.sql("DROP OWNED BY of_theirs_1; DROP ROLE of_theirs_1").await;
        let mut snapshot = Exported::open(&world.parent.database()).await.unwrap();
        assert_eq!(snapshot.roles().await.unwrap().len(), 1000);
    })
    .await;
}
