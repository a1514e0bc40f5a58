//! With whose rights a merge does what, and what it holds on to meanwhile.

use std::time::Duration;

use cp_merge::{ApplyOptions, Error, apply};
use sqlx::Connection as _;

use crate::merging::{Pair, changes};

/// Owned by the tenant's role, with rows.
const BASE: &str = "
    CREATE TYPE public.mood AS ENUM ('ok');
    CREATE TABLE public.t (id int PRIMARY KEY, name text);
    INSERT INTO public.t VALUES (1, 'a');
    ALTER TABLE public.t OWNER TO project_admin;";

#[tokio::test]
async fn expressions_of_the_branch_run_as_the_owner() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "CREATE FUNCTION public.who() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN current_user; END $$;
             CREATE FUNCTION public.as_owner(int) RETURNS boolean LANGUAGE plpgsql AS
                $$ BEGIN RETURN current_user = 'project_admin' OR NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'nobody'); END $$;
             CREATE DOMAIN public.d AS text CHECK (public.as_owner(length(VALUE)));
             ALTER TABLE public.t ADD COLUMN by text DEFAULT public.who();
             ALTER TABLE public.t ADD COLUMN computed text GENERATED ALWAYS AS (upper(name)) STORED;
             ALTER TABLE public.t ADD COLUMN d public.d;
             ALTER TABLE public.t ADD CONSTRAINT owned CHECK (public.as_owner(id));
             CREATE MATERIALIZED VIEW public.mv AS SELECT public.who() AS who, id FROM public.t;
             ALTER MATERIALIZED VIEW public.mv OWNER TO project_admin;
             CREATE VIEW public.over AS SELECT who FROM public.mv;
             CREATE MATERIALIZED VIEW public.amv AS SELECT who || '!' AS who FROM public.over;
             ALTER MATERIALIZED VIEW public.amv OWNER TO project_admin; ALTER VIEW public.over OWNER TO project_admin",
        )
        .await;
    let plan = pair.merge().await;
    assert!(!plan.rendered_sql().is_empty());
    assert_eq!(
        pair.parent.psql("SELECT by, computed FROM public.t").await,
        "project_admin|A"
    );
    assert_eq!(
        pair.parent
            .psql("SELECT mv.who, amv.who FROM public.mv, public.amv")
            .await,
        "project_admin|project_admin!"
    );
}

#[tokio::test]
async fn nothing_of_the_branch_becomes_a_superuser() {
    // On the branch the table is empty, so that nothing was refused there.
    let evil = [
        "ALTER TABLE public.t ADD COLUMN x text DEFAULT pg_read_file('PG_VERSION')",
        "ALTER TABLE public.t ADD CONSTRAINT c CHECK (pg_read_file('PG_VERSION') <> '')",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; CREATE TABLE public.got (i int); RETURN 1; END $$;
         ALTER TABLE public.t ADD COLUMN x int DEFAULT public.f()",
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN SET SESSION AUTHORIZATION DEFAULT; RETURN 1; END $$;
         ALTER TABLE public.t ADD CONSTRAINT c CHECK (public.f() = 1) ",
        "CREATE MATERIALIZED VIEW public.mv AS SELECT pg_read_file('PG_VERSION') AS v;
         ALTER MATERIALIZED VIEW public.mv OWNER TO project_admin",
        // What is constant is run even where there are no rows; a row's type keeps the check out of CREATE TABLE.
        "CREATE TABLE public.n (id int); CREATE FUNCTION public.of_row(public.n) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
         CREATE FUNCTION public.f() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
            $$ BEGIN PERFORM pg_read_file('PG_VERSION'); RETURN true; END $$;
         ALTER TABLE public.n ADD CONSTRAINT c CHECK (public.of_row(n) AND public.f());
         ALTER TABLE public.n OWNER TO project_admin",
        "ALTER TABLE public.t RENAME TO renamed; ALTER TABLE public.renamed ADD CHECK (pg_read_file('PG_VERSION') <> '')",
    ];
    for sql in evil {
        let pair = Pair::new(BASE).await;
        pair.branch.psql("DELETE FROM public.t").await;
        let on_branch = sql.replace(
            "RESET ROLE;",
            "IF EXISTS (SELECT FROM public.t) THEN RESET ROLE; END IF;",
        );
        pair.branch.psql(&on_branch).await;
        // A check may be refused when its rows are asked already.
        let plan = cp_merge::plan(
            &pair.parent.options(),
            &pair.branch.options(),
            &pair.bases,
            &cp_merge::Resolutions::new(),
        )
        .await;
        let refused = match plan {
            Ok(plan) => pair.try_apply(&plan).await.unwrap_err(),
            Err(error) => error,
        };
        let code = refused.sqlstate().unwrap_or_default();
        assert!(
            ["42501", "0A000", "2F003"].contains(&code.as_str()),
            "{sql}: {refused}"
        );
        assert!(refused.is_permanent());
        assert_eq!(
            pair.parent
                .psql("SELECT to_regclass('public.got') IS NULL")
                .await,
            "t"
        );
    }
}

#[tokio::test]
async fn a_row_that_comes_while_rows_are_asked_is_seen() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql("ALTER TABLE public.t ALTER name SET NOT NULL")
        .await;
    let plan = pair.plan().await;
    let mut other = pair.parent.connect().await;
    let mut theirs = other.begin().await.unwrap();
    sqlx::query("INSERT INTO public.t VALUES (2, NULL)")
        .execute(&mut *theirs)
        .await
        .unwrap();
    let options = ApplyOptions {
        lock_timeout: Duration::from_secs(20),
        ..ApplyOptions::default()
    };
    let parent = pair.parent.options();
    let (merged, ()) = tokio::join!(apply(&parent, &plan, &options), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        theirs.commit().await.unwrap();
    });
    assert!(
        matches!(&merged, Err(Error::RowsInTheWay(items)) if items[0].rows == Some(1)),
        "{merged:?}"
    );
}

#[tokio::test]
async fn labels_that_stay_are_told() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "ALTER TYPE public.mood ADD VALUE 'new';
             ALTER TABLE public.t ADD COLUMN m public.mood DEFAULT 'new', ALTER name SET NOT NULL",
        )
        .await;
    let plan = pair.plan().await;
    assert_eq!(plan.script.pre_steps.len(), 1);
    pair.parent
        .psql("INSERT INTO public.t VALUES (2, NULL)")
        .await;
    let refused = pair.try_apply(&plan).await.unwrap_err();
    assert!(matches!(refused, Error::RowsInTheWay(_)));
    let text = refused.to_string();
    assert!(
        text.contains("committed before, and left: `ALTER TYPE public.mood ADD VALUE"),
        "{text}"
    );
}

#[tokio::test]
async fn the_statements_share_their_time() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "DELETE FROM public.t;
             ALTER TABLE public.t ADD COLUMN a text DEFAULT pg_sleep(0.7)::text;
             ALTER TABLE public.t ADD COLUMN b text DEFAULT pg_sleep(0.7)::text",
        )
        .await;
    let plan = pair.plan().await;
    let options = ApplyOptions {
        statement_timeout: Duration::from_secs(1),
        ..ApplyOptions::default()
    };
    let refused = apply(&pair.parent.options(), &plan, &options).await;
    let error = refused.unwrap_err();
    assert_eq!(error.sqlstate().as_deref(), Some("57014"), "{error}");
    pair.merge().await;
}

#[tokio::test]
async fn a_role_called_public_is_not_everyone() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'PUBLIC') THEN CREATE ROLE \"PUBLIC\"; END IF; END $$;
             GRANT SELECT ON public.t TO \"PUBLIC\"",
        )
        .await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["add grant public.t:\"PUBLIC\""]);
    assert_eq!(
        pair.parent
            .psql("SELECT has_table_privilege('anon', 'public.t', 'SELECT')")
            .await,
        "f"
    );
}

/// What needs an extension that only one database of the server can have.
#[tokio::test]
async fn what_cannot_be_rehearsed_is_merged() {
    // As `pg_cron` is: no second database can have an extension of this name.
    let base = format!(
        "{BASE} CREATE EXTENSION citext;
         CREATE VIEW public.entries AS SELECT id, name::public.citext AS name FROM public.t;
         UPDATE pg_extension SET extname = 'pg_cron' WHERE extname = 'citext'"
    );
    let pair = Pair::quick(&base).await;
    pair.branch
        .psql(
            "CREATE OR REPLACE VIEW public.entries AS SELECT id, name::public.citext AS name FROM public.t WHERE id > 0;
             CREATE VIEW public.above AS SELECT name FROM public.entries;
             GRANT SELECT ON public.above TO anon; COMMENT ON COLUMN public.above.name IS 'n';
             ALTER TABLE public.t ADD COLUMN plain int",
        )
        .await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "add column public.t.plain",
            "add view public.above",
            "modify view public.entries"
        ]
    );
}

#[tokio::test]
async fn a_database_with_a_name_like_ours_is_not_in_the_way() {
    let pair = Pair::new(BASE).await;
    let name = "insforge_scratch_99999999999999999999_x";
    pair.parent
        .psql(&format!(
            "DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"
        ))
        .await;
    pair.branch.psql("CREATE TABLE public.n (id int)").await;
    pair.merge().await;
    pair.parent.psql(&format!("DROP DATABASE {name}")).await;
}
