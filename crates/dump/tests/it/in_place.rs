//! Going back to the archive, whatever was made since; and machines that are not as new as they seem.

use cp_dump::{Contents, Error, How, discard_kept, put_back};
use sqlx::Connection;
use uuid::Uuid;

use crate::{backend, harness::with_world};

#[tokio::test]
async fn a_reset_brings_back_the_archive_each_time() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let schema = world.parent.schema().await;
        let archive = world.archive(Contents::Branch).await;
        world.restore(&archive, How::NewMachine).await.unwrap();
        world.fix_up(false, false).await.unwrap();
        let rows = world.branch.rows().await;

        for _ in 0..2 {
            // The branch's life: edits, an event trigger, somebody connected, a slot, a subscription, a transaction that is
            // prepared or not.
            world
                .branch
                .sql(
                    "CREATE TABLE extra AS SELECT id FROM posts; DROP TABLE comments CASCADE; DELETE FROM auth.users;
                     ALTER TABLE posts ADD COLUMN new int;
                     CREATE VIEW depends AS SELECT title FROM posts;
                     CREATE FUNCTION nag() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL'; END $$;
                     CREATE SUBSCRIPTION sub CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false);
                     CREATE EVENT TRIGGER nag ON ddl_command_start EXECUTE FUNCTION nag();
                     ALTER EVENT TRIGGER nag ENABLE ALWAYS",
                )
                .await;
            let mut connected = world.branch.connect().await;
            sqlx::raw_sql("BEGIN; LOCK TABLE auth.users")
                .execute(&mut connected)
                .await
                .unwrap();

            let restored = world.restore(&archive, How::InPlace).await.unwrap();
            assert!(!restored.restart_postgres, "there is no pg_cron here");
            world.fix_up(false, false).await.unwrap();
            assert!(connected.ping().await.is_err());
            assert_eq!(world.branch.schema().await, schema);
            assert_eq!(world.branch.rows().await, rows);
            assert_eq!(
                world
                    .branch
                    .value("SELECT has_database_privilege('project_admin', 'insforge', 'CREATE')")
                    .await,
                "true"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_reset_replaced_can_be_put_back_until_it_is_discarded() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        world.restore(&archive, How::NewMachine).await.unwrap();
        world
            .branch
            .sql("CREATE TABLE public.mine AS SELECT 7 AS i; ALTER DATABASE insforge SET app.jwt = 'kept'")
            .await;
        let mine = "SELECT i FROM public.mine";
        let databases = "SELECT count(*) FROM pg_database WHERE datname LIKE 'control_plane%'";
        let jwt = "SELECT current_setting('app.jwt')";
        let id = Uuid::new_v4();
        let database = world.branch.database();

        // Nothing was kept, so nothing is put back.
        put_back(&database, id).await.unwrap();
        assert_eq!(world.branch.value(mine).await, "7");

        // An archive that broke off, twice; somebody is connected, and a transaction open.
        for _ in 0..2 {
            let mut connected = world.branch.connect().await;
            let open = "BEGIN; CREATE TABLE public.open (i int)";
            sqlx::raw_sql(open).execute(&mut connected).await.unwrap();
            let half = &archive[..archive.len() / 2];
            let broken = world.restore(half, How::InPlaceKeeping(id)).await;
            assert!(broken.is_err());
            assert!(connected.ping().await.is_err());
        }
        let is_gone = "SELECT to_regclass('public.mine') IS NULL";
        assert_eq!(world.branch.value(is_gone).await, "true");
        for _ in 0..2 {
            put_back(&database, id).await.unwrap();
            assert_eq!(world.branch.value(mine).await, "7");
            assert_eq!(world.branch.value(jwt).await, "kept");
        }
        assert_eq!(world.branch.value(databases).await, "0");

        // One that is whole: what was before is still there, and entered by nobody.
        let schema = world.parent.schema().await;
        for _ in 0..2 {
            let how = How::InPlaceKeeping(id);
            world.restore(&archive, how).await.unwrap();
            assert_eq!(world.branch.schema().await, schema);
            assert_eq!(world.branch.value(jwt).await, "kept");
        }
        let closed = "SELECT bool_or(datallowconn) FROM pg_database WHERE datname LIKE 'control_plane_before_%'";
        assert_eq!(world.branch.value(closed).await, "false");
        put_back(&database, id).await.unwrap();
        assert_eq!(world.branch.value(mine).await, "7");

        // A later reset does not take what an earlier one left for its own.
        world
            .restore(&archive, How::InPlaceKeeping(id))
            .await
            .unwrap();
        let later = How::InPlaceKeeping(Uuid::new_v4());
        world.restore(&archive, later).await.unwrap();
        assert_eq!(world.branch.value(databases).await, "1");
        discard_kept(&database).await.unwrap();
        assert_eq!(world.branch.value(databases).await, "0");
        put_back(&database, id).await.unwrap();
        assert_eq!(world.branch.schema().await, schema);
    })
    .await;
}

#[tokio::test]
async fn the_new_database_has_the_locale_of_the_old_one() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        let mut connection = world.branch.named("postgres").connect().await.unwrap();
        sqlx::raw_sql("CREATE DATABASE insforge TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'")
            .execute(&mut connection)
            .await
            .unwrap();
        let likeness = "SELECT format('%s %s %s', datcollate, datctype, pg_encoding_to_char(encoding))
                        FROM pg_database WHERE datname = current_database()";
        let before = world.branch.value(likeness).await;
        world.restore(&archive, How::InPlace).await.unwrap();
        assert_eq!(world.branch.value(likeness).await, before);
        assert_eq!(before, "C C UTF8");
        assert_ne!(world.parent.value(likeness).await, before);
    })
    .await;
}

#[tokio::test]
async fn settings_of_the_database_outlive_it() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let archive = world.archive(Contents::Branch).await;
        world.branch.create_database("insforge").await;
        // As the release's first-start script for JWTs makes one.
        world
            .branch
            .sql(
                "CREATE ROLE anon NOLOGIN;
                 ALTER DATABASE insforge SET app.jwt = 'it''s = secret';
                 ALTER DATABASE insforge SET search_path = \"$user\", public, \"odd, name\";
                 ALTER ROLE anon IN DATABASE insforge SET statement_timeout = '3s'",
            )
            .await;
        let settings =
            "SELECT string_agg(setrole::regrole || ' ' || setconfig::text, ';' ORDER BY setrole)
                        FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
                        WHERE datname = current_database()";
        let before = world.branch.value(settings).await;
        assert!(
            before.contains("secret") && before.contains("3s"),
            "{before}"
        );
        world.restore(&archive, How::InPlace).await.unwrap();
        assert_eq!(world.branch.value(settings).await, before);

        // As if we had died between the old database's end and the new one's name.
        let md5 = world.branch.value("SELECT md5('insforge')").await;
        world.branch.drop_database("insforge").await;
        let aside = format!("control_plane_{md5}");
        world.branch.create_database(&aside).await;
        let set = format!("ALTER DATABASE {aside} SET app.jwt = 'kept'");
        world.branch.sql_in("postgres", &set).await;
        world.restore(&archive, How::InPlace).await.unwrap();
        assert_eq!(world.branch.value(settings).await, "- {app.jwt=kept}");
    })
    .await;
}

#[tokio::test]
async fn a_container_whose_first_start_script_ran_is_prepared() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world.branch.create_database("insforge").await;
        // What `db-init.sql` of the release makes, as far as it matters here (contract, 5.10).
        world
            .branch
            .sql(
                "CREATE ROLE anon NOLOGIN; CREATE ROLE authenticated NOLOGIN; CREATE ROLE project_admin NOLOGIN;
                 CREATE FUNCTION public.create_default_policies() RETURNS event_trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE 'this trigger must be gone'; END $$;
                 CREATE FUNCTION public.create_policies_after_rls() RETURNS event_trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE 'this trigger must be gone'; END $$;
                 CREATE EVENT TRIGGER create_policies_on_table_create ON ddl_command_end
                     WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.create_default_policies();
                 CREATE EVENT TRIGGER create_policies_on_rls_enable ON ddl_command_end
                     WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION public.create_policies_after_rls()",
            )
            .await;
        let restored = world.copy(Contents::Branch, How::NewMachine).await.unwrap();
        assert!(!restored.restart_postgres);
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        let bypass = "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'project_admin'";
        assert_eq!(world.branch.value(bypass).await, "true");
    })
    .await;
}

#[tokio::test]
async fn somebody_elses_database_is_not_taken_for_a_new_machine() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world.branch.create_database("insforge").await;
        world
            .branch
            .sql(
                "CREATE FUNCTION create_default_policies() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
                 CREATE EVENT TRIGGER create_policies_on_table_create ON ddl_command_end
                     EXECUTE FUNCTION create_default_policies()",
            )
            .await;
        for contents in [
            "CREATE TABLE precious (i int)",
            "DROP TABLE precious; CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DROP FUNCTION f; CREATE SCHEMA s",
        ] {
            world.branch.sql(contents).await;
            let refused = world.copy(Contents::Branch, How::NewMachine).await;
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::NotEmpty(_)), "{error}");
            assert!(error.is_permanent());
        }
        assert_eq!(
            world
                .branch
                .value("SELECT count(*) FROM pg_namespace WHERE nspname = 's'")
                .await,
            "1"
        );
        let triggers = "SELECT count(*) FROM pg_event_trigger";
        assert_eq!(world.branch.value(triggers).await, "1", "nothing was touched");
        // Extensions alone are no contents.
        world
            .branch
            .sql("DROP SCHEMA s; CREATE EXTENSION citext")
            .await;
        world.copy(Contents::Branch, How::NewMachine).await.unwrap();
        // What an earlier restore made is ours to make anew.
        world.copy(Contents::Branch, How::NewMachine).await.unwrap();
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
    })
    .await;
}
