//! Databases of the product: configuration, edge functions, migrations, and what belongs to the product itself.

use cp_merge::{ApplyOptions, Choice, Error, Record, Snapshot, apply, is_recorded, snapshot};
use uuid::Uuid;

use crate::{
    database::Database,
    merging::{Pair, changes, conflicts, warnings},
};

/// The stand-in's schema is written from the contract's descriptions (project-backend 5 and 6).
pub const PRODUCT: &str = concat!(
    "CREATE SCHEMA system;
     CREATE TABLE system.migrations (
        id serial PRIMARY KEY, name varchar(255) NOT NULL UNIQUE, run_on timestamp NOT NULL DEFAULT now());
     SELECT format('GRANT CREATE ON DATABASE %I TO project_admin', current_database()) \\gexec
    ",
    include_str!("../../../devbackend/src/schema.sql"),
    "INSERT INTO auth.config DEFAULT VALUES;
     INSERT INTO auth.oauth_configs (provider, client_id, use_shared_key) VALUES ('google', 'shared', true);
     INSERT INTO storage.buckets (name, public) VALUES ('avatars', true), ('old', false);
     INSERT INTO functions.definitions (slug, name, code, status) VALUES ('hello', 'Hello', 'export 1', 'active');"
);

/// What `pg_cron` and the product's functions around it do, by the contract's 5.4.
const SCHEDULES: &str = "
    CREATE TABLE schedules.entries (id bigserial PRIMARY KEY, job uuid NOT NULL);
    CREATE FUNCTION schedules.enable_job(p_job_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE entry bigint;
    BEGIN
        INSERT INTO schedules.entries (job) VALUES (p_job_id) RETURNING id INTO entry;
        UPDATE schedules.jobs SET cron_job_id = entry, is_active = true WHERE id = p_job_id;
        RETURN true;
    END $$;
    CREATE FUNCTION schedules.disable_job(p_job_id uuid) RETURNS boolean LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM schedules.entries e USING schedules.jobs j WHERE j.id = p_job_id AND e.id = j.cron_job_id;
        UPDATE schedules.jobs SET cron_job_id = NULL, is_active = false WHERE id = p_job_id;
        RETURN found;
    END $$;";

pub async fn product() -> Pair {
    Pair::new(PRODUCT).await
}

#[tokio::test]
async fn columns_of_one_row_merge_from_both_sides() {
    let pair = product().await;
    pair.parent
        .psql("UPDATE auth.config SET password_min_length = 12")
        .await;
    pair.branch
        .psql("UPDATE auth.config SET disable_signup = true, allowed_redirect_urls = ARRAY['https://a.example/\"x\"']")
        .await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["modify config_row auth.config"]);
    assert_eq!(
        pair.parent
            .psql("SELECT password_min_length, disable_signup, allowed_redirect_urls[1] FROM auth.config")
            .await,
        "12|t|https://a.example/\"x\""
    );
}

#[tokio::test]
async fn one_column_changed_twice_is_a_conflict_of_its_own_and_can_be_resolved() {
    let pair = product().await;
    pair.parent
        .psql("UPDATE email.templates SET subject = 'A' WHERE template_type = 'request-otp'")
        .await;
    pair.branch
        .psql("UPDATE email.templates SET subject = 'B', body_html = 'b' WHERE template_type = 'request-otp'")
        .await;
    let name = "email.templates.request-otp.subject";
    let plan = pair.plan().await;
    assert_eq!(conflicts(&plan), [format!("config_row {name}")]);
    assert!(
        plan.conflicts[0]
            .hint
            .contains("'A' on the parent and 'B' on the branch")
    );
    assert!(matches!(
        pair.try_apply(&plan).await,
        Err(Error::NotClean { conflicts: 1, .. })
    ));

    let plan = pair.resolve(&[(name, Choice::Parent)]).await;
    assert!(plan.is_clean() && plan.unused_resolutions.is_empty());
    pair.apply(&plan).await;
    let row = "SELECT subject, body_html FROM email.templates WHERE template_type = 'request-otp'";
    assert_eq!(pair.parent.psql(row).await, "A|b");

    let plan = pair
        .resolve(&[(name, Choice::Branch), ("public.nothing", Choice::Branch)])
        .await;
    assert_eq!(plan.unused_resolutions, ["public.nothing"]);
    pair.apply(&plan).await;
    assert_eq!(pair.parent.psql(row).await, "B|b");
}

#[tokio::test]
async fn a_dropped_row_stays_on_the_parent_and_is_reported() {
    let pair = product().await;
    pair.branch
        .psql("DELETE FROM storage.buckets WHERE name = 'old'")
        .await;
    pair.branch.psql("DELETE FROM functions.definitions").await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), [] as [String; 0]);
    let told = warnings(&plan);
    assert!(
        told[0].starts_with("config_row storage.buckets.old: dropped on the branch"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("edge_function functions.hello: dropped on the branch"),
        "{told:?}"
    );
    assert!(
        plan.rendered_sql()
            .contains("-- warning: config_row storage.buckets.old")
    );
    assert_eq!(
        pair.parent
            .psql("SELECT count(*) FROM storage.buckets")
            .await,
        "2"
    );
}

#[tokio::test]
async fn a_row_that_the_parent_dropped_and_the_branch_changed_is_a_conflict() {
    let pair = product().await;
    pair.parent
        .psql("DELETE FROM storage.buckets WHERE name = 'old'")
        .await;
    pair.branch
        .psql("UPDATE storage.buckets SET public = true WHERE name = 'old'")
        .await;
    let plan = pair.plan().await;
    assert_eq!(conflicts(&plan), ["config_row storage.buckets.old"]);
    assert_eq!(plan.conflicts[0].parent_now_hash, "");
    let plan = pair
        .resolve(&[("storage.buckets.old", Choice::Branch)])
        .await;
    pair.apply(&plan).await;
    let public = "SELECT public FROM storage.buckets WHERE name = 'old'";
    assert_eq!(pair.parent.psql(public).await, "t");
}

#[tokio::test]
async fn secrets_stay_behind_and_rows_that_need_one_are_reported() {
    let pair = product().await;
    pair.branch
        .psql(
            "INSERT INTO system.secrets (id, key, value_ciphertext) VALUES
                ('00000000-0000-0000-0000-000000000001', 'GITHUB_CLIENT_SECRET', 'sealed-1'),
                ('00000000-0000-0000-0000-000000000002', 'CUSTOM_OAUTH_corp_CLIENT_SECRET', 'sealed-2');
             INSERT INTO auth.oauth_configs (provider, client_id, secret_id, scopes)
                VALUES ('github', 'own', '00000000-0000-0000-0000-000000000001', '{read}');
             INSERT INTO auth.custom_oauth_configs (key, name, discovery_endpoint, client_id, secret_id)
                VALUES ('corp', 'Corp', 'https://id.corp.example', 'c', '00000000-0000-0000-0000-000000000002');
             UPDATE email.config SET enabled = true, host = 'smtp.example', password_encrypted = 'sealed-3'",
        )
        .await;
    let plan = pair.plan().await;
    assert_eq!(
        changes(&plan),
        [
            "add config_row auth.oauth_configs.github",
            "modify config_row email.config"
        ]
    );
    let told = warnings(&plan).join("\n");
    assert!(
        told.contains("auth.oauth_configs.github: sign-in fails until the client secret"),
        "{told}"
    );
    assert!(
        told.contains("auth.custom_oauth_configs.corp: not added"),
        "{told}"
    );
    assert!(told.contains("CUSTOM_OAUTH_corp_CLIENT_SECRET"), "{told}");
    assert!(told.contains("email.config: SMTP is not used"), "{told}");
    let everything = serde_json::to_string(&plan.diff()).unwrap();
    assert!(!everything.contains("sealed-"), "{everything}");
    pair.apply(&plan).await;
    let github = "SELECT client_id, secret_id IS NULL, scopes FROM auth.oauth_configs WHERE provider = 'github'";
    assert_eq!(pair.parent.psql(github).await, "own|t|{read}");

    // With its secret on the parent, the other row follows.
    pair.parent
        .psql("INSERT INTO system.secrets (key, value_ciphertext) VALUES ('CUSTOM_OAUTH_corp_CLIENT_SECRET', 'parents')")
        .await;
    pair.merge().await;
    let secret = "SELECT s.value_ciphertext FROM auth.custom_oauth_configs c JOIN system.secrets s ON s.id = c.secret_id";
    assert_eq!(pair.parent.psql(secret).await, "parents");
}

#[tokio::test]
async fn edge_functions_merge_by_their_slug() {
    let pair = product().await;
    pair.branch
        .psql(
            "UPDATE functions.definitions SET code = E'export \\'2\\'\\n' WHERE slug = 'hello';
             INSERT INTO functions.definitions (slug, name, code, status) VALUES ('new', 'New', 'export 3', 'draft')",
        )
        .await;
    pair.parent
        .psql("UPDATE functions.definitions SET description = 'says hello'")
        .await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "modify edge_function functions.hello",
            "add edge_function functions.new"
        ]
    );
    let hello = "SELECT code, description FROM functions.definitions WHERE slug = 'hello'";
    assert_eq!(pair.parent.psql(hello).await, "export '2'\n|says hello");

    pair.parent
        .psql("UPDATE functions.definitions SET code = 'p' WHERE slug = 'new'")
        .await;
    pair.branch
        .psql("UPDATE functions.definitions SET code = 'b' WHERE slug = 'new'")
        .await;
    assert_eq!(
        conflicts(&pair.plan().await),
        ["edge_function functions.new.code"]
    );
}

#[tokio::test]
async fn a_job_is_scheduled_once_with_the_branchs_headers() {
    let job = "00000000-0000-0000-0000-00000000000a";
    let base = format!(
        "{PRODUCT} {SCHEDULES}
         INSERT INTO schedules.jobs (id, name, cron_schedule, function_url, headers, encrypted_headers)
            VALUES ('{job}', 'nightly', '0 0 * * *', 'https://f.example', '{{\"a\":\"1\"}}', 'sealed-old');"
    );
    let parent = Database::empty().await;
    parent.psql(&base).await;
    let branch = parent.dump_copy().await;
    parent
        .psql(&format!("SELECT schedules.enable_job('{job}')"))
        .await;
    let pair = Pair::of(parent, branch).await;
    pair.branch
        .psql(&format!(
            "UPDATE schedules.jobs SET cron_schedule = '5 0 * * *', headers = '{{\"a\":\"2\"}}',
                encrypted_headers = 'sealed-new' WHERE id = '{job}';
             INSERT INTO schedules.jobs (id, name, cron_schedule, function_url, is_active)
                VALUES ('00000000-0000-0000-0000-00000000000b', 'off', '* * * * *', 'https://f.example', false)"
        ))
        .await;
    let plan = pair.merge().await;
    assert!(
        !plan.rendered_sql().contains("sealed-"),
        "{}",
        plan.rendered_sql()
    );
    assert_eq!(
        pair.parent
            .psql(
                "SELECT j.name, j.cron_schedule, j.encrypted_headers, j.is_active, count(e.id), bool_and(e.id = j.cron_job_id)
                 FROM schedules.jobs j LEFT JOIN schedules.entries e ON e.job = j.id
                 GROUP BY j.id ORDER BY j.name"
            )
            .await,
        "nightly|5 0 * * *|sealed-new|t|1|t\noff|* * * * *||f|0|"
    );
}

/// As the product's server records one: run as `project_admin` with `search_path = public`.
pub fn migration(version: &str, name: &str, statements: &[&str]) -> String {
    let run = statements.join(";\n");
    let quoted: Vec<String> = statements
        .iter()
        .map(|statement| format!("$s${statement}$s$"))
        .collect();
    format!(
        "BEGIN; SET LOCAL search_path = public; SET LOCAL ROLE project_admin; {run}; RESET ROLE;
         INSERT INTO system.custom_migrations (version, name, statements)
            VALUES ('{version}', '{name}', ARRAY[{}]); COMMIT;",
        quoted.join(", ")
    )
}

#[tokio::test]
async fn migrations_run_first_and_the_schema_is_planned_after_them() {
    let pair = product().await;
    pair.branch
        .psql(&migration(
            "2",
            "add-notes",
            &[
                "CREATE TABLE notes (id int PRIMARY KEY, body text)",
                "CREATE INDEX notes_body ON notes (body)",
            ],
        ))
        .await;
    pair.branch
        .psql(&migration(
            "10",
            "name-it",
            &["ALTER TABLE notes RENAME body TO content"],
        ))
        .await;
    // Beside the migrations, by hand.
    pair.branch
        .psql("ALTER TABLE public.notes ADD COLUMN done boolean")
        .await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "add column public.notes.done",
            "add migration system.custom_migrations.2",
            "add migration system.custom_migrations.10"
        ]
    );
    assert_eq!(
        pair.parent
            .psql(
                "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
                    WHERE attrelid = 'public.notes'::regclass AND attnum > 0;
                 SELECT tableowner FROM pg_tables WHERE tablename = 'notes';
                 SELECT version, name, array_length(statements, 1) FROM system.custom_migrations ORDER BY version::numeric"
            )
            .await,
        "id,content,done\nproject_admin\n2|add-notes|2\n10|name-it|1"
    );
    let sql = plan.rendered_sql();
    assert!(
        sql.find("[MIGRATION]").unwrap() < sql.find("[DDL]").unwrap(),
        "{sql}"
    );
}

#[tokio::test]
async fn a_migration_makes_room_for_what_rows_did_not_allow() {
    let base = format!(
        "{PRODUCT} CREATE TABLE public.tickets (id int PRIMARY KEY, owner text);
         ALTER TABLE public.tickets OWNER TO project_admin;
         INSERT INTO public.tickets VALUES (1, NULL), (2, 'bo');"
    );
    let pair = Pair::new(&base).await;
    pair.parent
        .psql("INSERT INTO public.tickets VALUES (3, NULL)")
        .await;
    pair.branch
        .psql("DELETE FROM public.tickets; ALTER TABLE public.tickets ALTER owner SET NOT NULL")
        .await;
    let plan = pair.plan().await;
    assert_eq!(plan.needs_migration.len(), 1);
    assert_eq!(plan.needs_migration[0].rows, Some(2));
    assert_eq!(plan.diff().summary.conflicts, 1);

    // One that does not do it: nothing is changed.
    pair.branch
        .psql(&migration(
            "1",
            "some",
            &["UPDATE tickets SET owner = 'x' WHERE id = 1"],
        ))
        .await;
    let plan = pair.plan().await;
    assert!(plan.is_clean());
    assert!(
        warnings(&plan)[0].contains("the branch's migrations run first"),
        "{:?}",
        warnings(&plan)
    );
    let refused = pair.try_apply(&plan).await;
    assert!(
        matches!(&refused, Err(Error::RowsInTheWay(items)) if items[0].rows == Some(1)),
        "{refused:?}"
    );
    let ledger = "SELECT count(*) FROM system.custom_migrations";
    assert_eq!(pair.parent.psql(ledger).await, "0");

    pair.branch
        .psql(&migration(
            "2",
            "rest",
            &["UPDATE tickets SET owner = 'y' WHERE owner IS NULL"],
        ))
        .await;
    pair.merge().await;
    assert_eq!(
        pair.parent
            .psql("SELECT owner FROM public.tickets ORDER BY id")
            .await,
        "x\nbo\ny"
    );
}

#[tokio::test]
async fn one_version_with_two_contents_is_a_conflict() {
    let pair = product().await;
    pair.parent
        .psql(&migration("7", "parents", &["CREATE TABLE p (id int)"]))
        .await;
    pair.branch
        .psql(&migration("007", "branchs", &["CREATE TABLE b (id int)"]))
        .await;
    let plan = pair.plan().await;
    assert_eq!(conflicts(&plan), ["migration system.custom_migrations.007"]);
    let name = "system.custom_migrations.007";
    assert!(
        !pair.resolve(&[(name, Choice::Branch)]).await.is_clean(),
        "the ledger is append only"
    );
    let plan = pair.resolve(&[(name, Choice::Parent)]).await;
    assert_eq!(changes(&plan), ["add table public.b"]);
    pair.apply(&plan).await;
}

#[tokio::test]
async fn what_belongs_to_the_product_is_used_and_never_merged() {
    let pair = product().await;
    pair.branch
        .psql(
            "CREATE TABLE public.posts (id int PRIMARY KEY, author uuid REFERENCES auth.users (id));
             ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON public.posts USING (author = auth.uid());
             CREATE SCHEMA reports;
             CREATE TABLE auth.invented (id int);
             ALTER TABLE storage.objects ADD COLUMN invented int",
        )
        .await;
    pair.parent
        .psql("ALTER TABLE auth.users ADD COLUMN newer_release int")
        .await;
    let plan = pair.merge().await;
    let mut listed = changes(&plan);
    listed.sort();
    assert_eq!(
        listed,
        [
            "add policy public.posts.own",
            "add schema reports",
            "add table public.posts"
        ]
    );
    // The trigger that tells PostgREST was silent; it was told nevertheless.
    let told = pair
        .parent
        .psql(
            "SELECT s FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase, unnest(setconfig) s
             WHERE d.datname = current_database()",
        )
        .await;
    assert_eq!(told, "pgrst.db_schemas=public,reports");
}

#[tokio::test]
async fn a_recorded_merge_is_done_once() {
    let pair = product().await;
    pair.branch.psql("CREATE TABLE public.t (id int)").await;
    let id = Uuid::new_v4();
    let options = ApplyOptions {
        record: Some(Record { id }),
        ..ApplyOptions::default()
    };
    let before = pair.plan().await;
    assert!(
        !is_recorded(&mut pair.parent.connect().await, id)
            .await
            .unwrap()
    );
    let applied = apply(&pair.parent.options(), &before, &options)
        .await
        .unwrap();
    assert!(!applied.already && applied.statements > 0);
    assert!(
        is_recorded(&mut pair.parent.connect().await, id)
            .await
            .unwrap()
    );
    assert!(
        !is_recorded(&mut pair.parent.connect().await, Uuid::new_v4())
            .await
            .unwrap()
    );
    let repeated = apply(&pair.parent.options(), &before, &options)
        .await
        .unwrap();
    assert!(repeated.already);
    assert!(pair.plan().await.is_empty(), "the record is no change");
}

#[tokio::test]
async fn a_snapshot_survives_its_bytes() {
    let pair = product().await;
    pair.branch
        .psql(&migration(
            "1",
            "x",
            &["CREATE TYPE mood AS ENUM ('a', 'b')"],
        ))
        .await;
    let snapshot = snapshot(&mut pair.branch.connect().await).await.unwrap();
    let bytes = snapshot.to_bytes();
    let back = Snapshot::from_bytes(&bytes).unwrap();
    assert_eq!(back, snapshot);
    assert_eq!(back.hash(), snapshot.hash());
    assert_ne!(back.hash(), pair.bases.branch.hash());
    for wrong in [&bytes[..10], &bytes[..bytes.len() / 2], b"{}"] {
        assert!(matches!(
            Snapshot::from_bytes(wrong),
            Err(Error::InvalidSnapshot(_))
        ));
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_scheduled_fails_the_merge() {
    let schedules = SCHEDULES.replace("RETURN true;", "RETURN lower_one(p_job_id) > 0;");
    let base = format!(
        "{PRODUCT} CREATE FUNCTION public.lower_one(uuid) RETURNS int LANGUAGE sql AS 'SELECT 1'; {schedules}"
    );
    let job = |n: u8| {
        format!(
            "INSERT INTO schedules.jobs (id, name, cron_schedule, function_url)
                VALUES ('00000000-0000-0000-0000-00000000000{n}', 'j{n}', '0 0 * * *', 'https://f.example')"
        )
    };
    let pair = Pair::new(&base).await;
    // The product's functions find what is in `public`.
    pair.branch.psql(&job(1)).await;
    pair.merge().await;

    pair.branch.psql(&job(2)).await;
    pair.parent
        .psql("CREATE OR REPLACE FUNCTION public.lower_one(uuid) RETURNS int LANGUAGE sql AS 'SELECT 0'")
        .await;
    let refused = pair.try_apply(&pair.plan().await).await;
    assert!(
        matches!(&refused, Err(Error::Unexpected(text)) if text.contains("schedules.enable_job")),
        "{refused:?}"
    );
    assert_eq!(
        pair.parent
            .psql("SELECT count(*) FROM schedules.jobs")
            .await,
        "1"
    );
}

#[tokio::test]
async fn what_somebody_writes_meanwhile_is_not_overwritten() {
    use sqlx::Connection as _;
    let pair = product().await;
    pair.branch
        .psql("UPDATE auth.config SET password_min_length = 12")
        .await;
    let plan = pair.plan().await;
    let mut other = pair.parent.connect().await;
    let mut theirs = other.begin().await.unwrap();
    sqlx::query("UPDATE auth.config SET password_min_length = 20")
        .execute(&mut *theirs)
        .await
        .unwrap();
    let (merged, ()) = tokio::join!(pair.try_apply(&plan), async {
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        theirs.commit().await.unwrap();
    });
    assert!(matches!(merged, Err(Error::Stale)), "{merged:?}");
    let length = "SELECT password_min_length FROM auth.config";
    assert_eq!(pair.parent.psql(length).await, "20");
}

#[tokio::test]
async fn what_a_migration_sets_ends_with_it() {
    let pair = product().await;
    pair.branch
        .psql(
            "SET ROLE project_admin; CREATE TABLE public.one (id int); RESET ROLE;
             CREATE TABLE public.two (id int);
             INSERT INTO system.custom_migrations (version, name, statements) VALUES ('1', 'settings', ARRAY[
                'CREATE TABLE one (id int)', 'SET search_path = ''nowhere''', 'SELECT pg_advisory_unlock_all()',
                'SET default_tablespace = ''pg_global'''])",
        )
        .await;
    pair.merge().await;
}
