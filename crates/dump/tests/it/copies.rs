//! What arrives.

use cp_dump::{Contents, Exported, How, make_roles};

use crate::{backend, harness::with_world};

#[tokio::test]
async fn a_copy_is_its_original() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        let restored = world.copy(Contents::Everything, How::NewMachine).await;
        assert!(restored.is_ok(), "{restored:?}");

        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        assert_eq!(world.branch.rows().await, world.parent.rows().await);
        assert_eq!(world.branch.sequences().await, world.parent.sequences().await);
        let roles = "SELECT string_agg(format('%s %s %s', rolname, rolcanlogin, rolbypassrls), ',' ORDER BY 1)
                     FROM pg_roles WHERE rolname !~ '^pg_'";
        assert_eq!(world.branch.value(roles).await, world.parent.value(roles).await);
        let may_create = "SELECT has_database_privilege('project_admin', 'insforge', 'CREATE')";
        assert_eq!(world.branch.value(may_create).await, "true");
        let large = "SELECT convert_from(lo_get(4711), 'UTF8')";
        assert_eq!(world.branch.value(large).await, "large object");
        let by_event = "SELECT to_regclass('public.made_by_event_trigger')";
        assert_eq!(world.branch.value(by_event).await, "");
    })
    .await;
}

#[tokio::test]
async fn a_branch_lacks_what_is_its_parents_alone() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world.copy(Contents::Branch, How::NewMachine).await.unwrap();

        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        let emptied = [
            "auth.email_otps",
            "compute.services",
            "deployments.files",
            "deployments.runs",
            "functions.deployments",
            "storage.s3_access_keys",
            "system.audit_logs",
            "system.database_backups",
            "system.mcp_usage",
        ];
        let before = world.parent.rows().await;
        for ((table, rows, digest), (_, had, original)) in
            world.branch.rows().await.into_iter().zip(before)
        {
            if emptied.contains(&table.as_str()) {
                assert!(rows == 0 && had > 0, "{table}: {rows} of {had}");
            } else {
                assert_eq!(digest, original, "{table}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_branch_without_data_has_all_its_configuration() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world
            .copy(Contents::BranchWithoutData, How::NewMachine)
            .await
            .unwrap();

        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        assert_eq!(
            world
                .branch
                .value("SELECT count(*) FROM pg_largeobject_metadata")
                .await,
            "0"
        );
        is_without_data(&world).await;
    })
    .await;
}

/// Rows only where 6.1 and the ledgers are; sequences at their start; materialized views that can be read.
pub async fn is_without_data(world: &crate::harness::World) {
    let kept = [
        "auth.config",
        "auth.oauth_configs",
        "email.config",
        "email.templates",
        "functions.definitions",
        "realtime.channels",
        "realtime.config",
        "schedules.config",
        "schedules.jobs",
        "storage.buckets",
        "storage.config",
        "system.advisor_suppressions",
        "system.custom_migrations",
        "system.database_config",
        "system.migrations",
        "system.secrets",
    ];
    let changed_by_fix_ups = ["schedules.jobs", "system.secrets"];
    let before = world.parent.rows().await;
    let after = world.branch.rows().await;
    assert_eq!(before.len(), after.len());
    for ((table, rows, digest), (_, had, original)) in after.into_iter().zip(before) {
        if kept.contains(&table.as_str()) {
            assert!(rows > 0, "{table}: {rows} of {had}");
            if !changed_by_fix_ups.contains(&table.as_str()) {
                assert_eq!(digest, original, "{table}");
            }
        } else if table == "public.total" {
            assert_eq!(rows, 1, "{table} has the sum of nothing");
        } else {
            assert_eq!(rows, 0, "{table}");
        }
    }
    let total = "SELECT n FROM public.total";
    assert_eq!(world.branch.value(total).await, "");
    let mut connection = world.branch.connect().await;
    let next = async |query: &str, connection: &mut sqlx::PgConnection| {
        crate::harness::value(connection, query).await
    };
    let posts = "SELECT nextval(pg_get_serial_sequence('public.posts', 'id'))";
    assert_eq!(next(posts, &mut connection).await, "100");
    assert_eq!(
        next("SELECT nextval('public.tickets')", &mut connection).await,
        "5"
    );
    assert_eq!(
        next("SELECT nextval('public.comments_id_seq')", &mut connection).await,
        "1"
    );
    // The ledger's rows stay, so its numbers go on.
    let goes_on = "SELECT nextval('system.migrations_id_seq') > max(id) FROM system.migrations";
    assert_eq!(next(goes_on, &mut connection).await, "true");
}

#[tokio::test]
async fn tables_that_no_list_names_follow_the_rows_that_they_reference() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        // A newer release's table that hangs on users; a user's table that hangs on deployments.
        world
            .parent
            .sql(
                "CREATE TABLE auth.sessions (id int PRIMARY KEY, user_id uuid REFERENCES auth.users);
                 CREATE TABLE auth.session_events (session int REFERENCES auth.sessions);
                 INSERT INTO auth.sessions SELECT 1, id FROM auth.users LIMIT 1;
                 INSERT INTO auth.session_events VALUES (1);
                 CREATE TABLE public.visits (run uuid REFERENCES deployments.runs ON DELETE CASCADE);
                 INSERT INTO public.visits SELECT id FROM deployments.runs",
            )
            .await;

        world.copy(Contents::BranchWithoutData, How::NewMachine).await.unwrap();
        assert_eq!(world.branch.value("SELECT count(*) FROM auth.session_events").await, "0");

        world.copy(Contents::Branch, How::InPlace).await.unwrap();
        let runs = "SELECT count(*) FROM deployments.runs";
        assert_eq!(world.branch.value(runs).await, "1");
        world.fix_up(false, false).await.unwrap();
        assert_eq!(world.branch.value(runs).await, "0");
        assert_eq!(world.branch.value("SELECT count(*) FROM auth.session_events").await, "1");
    })
    .await;
}

#[tokio::test]
async fn roles_of_the_users_own_can_be_made_first() {
    with_world(|world| async move {
        backend::set_up(&world.parent).await;
        world
            .parent
            .sql(
                "CREATE ROLE readers; CREATE ROLE \"re\"\"porter\" LOGIN PASSWORD 'x' NOINHERIT IN ROLE readers;
                 CREATE ROLE bystander LOGIN; CREATE ROLE boss SUPERUSER LOGIN; CREATE TABLE its (i int);
                 ALTER TABLE its OWNER TO boss;
                 GRANT SELECT ON posts TO \"re\"\"porter\"",
            )
            .await;
        let error = world.copy(Contents::Branch, How::NewMachine).await.unwrap_err();
        assert!(error.is_permanent(), "{error}");
        assert!(error.to_string().contains("role"), "{error}");

        let mut snapshot = Exported::open(&world.parent.database()).await.unwrap();
        let roles = snapshot.roles().await.unwrap();
        snapshot.close().await.unwrap();
        let names: Vec<&str> = roles.iter().map(|role| role.name.as_str()).collect();
        assert_eq!(names, ["boss", "re\"porter", "readers"]);

        for _ in 0..2 {
            make_roles(&world.branch.database(), &roles).await.unwrap();
        }
        world.copy(Contents::Branch, How::NewMachine).await.unwrap();
        assert_eq!(world.branch.schema().await, world.parent.schema().await);
        let logins = "SELECT count(*) FROM pg_roles WHERE (rolcanlogin OR rolsuper) AND oid <> 10";
        assert_eq!(world.branch.value(logins).await, "0");
        let member = "SELECT pg_has_role('re\"porter', 'readers', 'MEMBER')";
        assert_eq!(world.branch.value(member).await, "true");
    })
    .await;
}

#[tokio::test]
async fn databases_may_have_any_name() {
    with_world(|world| async move {
        let name = r#"host=elsewhere 'it"s' \ ü"#;
        for server in [&world.parent, &world.branch] {
            server.create_database(&name.replace('"', "\"\"")).await;
        }
        world
            .parent
            .sql_in(name, "CREATE TABLE t AS SELECT 42 AS i")
            .await;
        let (parent, branch) = (world.parent.named(name), world.branch.named(name));
        for how in [How::NewMachine, How::InPlace] {
            let archive = cp_dump::dump(
                &parent,
                &world.programs,
                Contents::BranchWithoutData,
                None,
                cp_dump::Meter::new(),
            );
            let restoring = cp_dump::restore(
                &branch,
                &world.programs,
                archive.await.unwrap(),
                how,
                cp_dump::Meter::new(),
            );
            restoring.await.unwrap();
            let mut connection = branch.connect().await.unwrap();
            let rows =
                crate::harness::value(&mut connection, "SELECT count(*) FROM public.t").await;
            // No InsForge backend, so `public` is the user's all the same.
            assert_eq!(rows, "0");
        }
    })
    .await;
}
