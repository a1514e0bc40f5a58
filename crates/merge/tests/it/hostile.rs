//! What a branch's people write may be meant to run on the parent as superuser. It never does.

use cp_merge::{Resolutions, plan};

use crate::{merging::Pair, product::product};

const IS_SUPERUSER: &str = "SELECT rolsuper FROM pg_roles WHERE rolname = 'project_admin'";

#[tokio::test]
async fn names_stay_names() {
    let pair = Pair::new("CREATE TABLE public.t (a int, b int);").await;
    for statement in [
        "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        r#"CREATE FUNCTION public."f() owner to anon;alter role project_admin superuser;--"() RETURNS int LANGUAGE sql AS 'SELECT 2'"#,
        r#"CREATE FUNCTION public."g""(" (integer, text) RETURNS int LANGUAGE sql AS 'SELECT 3'"#,
        r#"CREATE TYPE public."odd(""type" AS ENUM ('a')"#,
        r#"CREATE FUNCTION public.h(public."odd(""type") RETURNS int LANGUAGE sql AS 'SELECT 4'"#,
        r#"CREATE UNIQUE INDEX "x USING (pg_catalog.pg_sleep(100)) " ON public.t (a)"#,
        r#"CREATE TABLE public."r(pg_sleep(100))" (id int PRIMARY KEY)"#,
        r#"ALTER TABLE public.t ADD FOREIGN KEY (b) REFERENCES public."r(pg_sleep(100))" (id)"#,
    ] {
        pair.branch.psql(statement).await;
        pair.branch
            .psql("ALTER FUNCTION public.f() OWNER TO project_admin")
            .await;
    }
    pair.branch
        .psql(r#"COMMENT ON FUNCTION public."g""(" (integer, text) IS 'it''s g'"#)
        .await;
    pair.merge().await;
    assert_eq!(pair.parent.psql(IS_SUPERUSER).await, "f");
    assert_eq!(
        pair.parent
            .psql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace")
            .await,
        "4"
    );
}

#[tokio::test]
async fn a_migration_has_the_rights_of_project_admin_and_no_others() {
    for (number, escape) in [
        "RESET ROLE",
        "SET SESSION AUTHORIZATION DEFAULT",
        "SET ROLE NONE",
        "DO $$ BEGIN EXECUTE 'RESET ROLE'; END $$",
        "COMMIT",
        "ROLLBACK",
        "SELECT 1; RESET ROLE",
        "CREATE OR REPLACE FUNCTION pg_temp.insforge_run(statement text) RETURNS void LANGUAGE plpgsql
             AS $x$ BEGIN EXECUTE statement; END $x$",
        "SELECT set_config('role', 'none', false)",
    ]
    .into_iter()
    .enumerate()
    {
        let pair = product().await;
        let role = format!("escaped_{number}_{}", std::process::id());
        // Past the product's server, which would refuse some of them.
        let insert = format!(
            "INSERT INTO system.custom_migrations (version, name, statements)
             VALUES ('2', 'escape', ARRAY[$s${escape}$s$, 'CREATE ROLE {role}'])"
        );
        pair.branch.psql(&insert).await;
        let (parent, branch) = (pair.parent.options(), pair.branch.options());
        let planned = plan(&parent, &branch, &pair.bases, &Resolutions::new()).await;
        assert!(planned.is_err(), "{escape} was tried in a scratch database");
        let found = format!("SELECT count(*) FROM pg_roles WHERE rolname = '{role}'");
        assert_eq!(pair.parent.psql(&found).await, "0", "{escape}");
    }
}

/// Takes what a superuser could give; for anybody else it does nothing.
const GRAB: &str = "CREATE FUNCTION public.f() RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN
    IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN
        ALTER ROLE project_admin SUPERUSER;
    END IF;
    RETURN true; END $f$";

/// Plans and, where that is possible, applies. Says which of them was refused, and why.
async fn try_merge(pair: &Pair) -> Result<(), String> {
    let (parent, branch) = (pair.parent.options(), pair.branch.options());
    let merged = match plan(&parent, &branch, &pair.bases, &Resolutions::new()).await {
        Ok(plan) => pair.try_apply(&plan).await,
        Err(error) => Err(error),
    };
    merged.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn migrations_leave_nothing_that_runs_later_as_superuser() {
    let deferred = [
        "CREATE TABLE d (i int)",
        "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $t$ BEGIN
             PERFORM public.f(); SET CONSTRAINTS ALL DEFERRED;
             IF (SELECT count(*) FROM public.d) < 3 THEN INSERT INTO public.d VALUES (2); END IF; RETURN NULL; END $t$",
        "CREATE CONSTRAINT TRIGGER later AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION later()",
        "INSERT INTO d VALUES (1)",
    ];
    // With what is refused for it.
    let attacks: [(&[&str], &str); 6] = [
        (&["CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (public.f())"], ""),
        (
            &[
                "CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.f())",
                "CREATE DOMAIN public.uuid AS pg_catalog.uuid CHECK (public.f())",
                "SELECT set_config('search_path', 'public, pg_catalog', false)",
            ],
            "",
        ),
        (&["DECLARE c CURSOR WITH HOLD FOR SELECT public.f()"], ""),
        (&deferred, "cannot fire deferred trigger"),
        (&["SET CONSTRAINTS ALL DEFERRED", "CREATE TEMP TABLE scratch (i int)", "SET ROLE project_admin"], "cannot set parameter \"role\""),
        (
            &[
                "DEALLOCATE ALL",
                "DO $d$ BEGIN FOR n IN 1..300 LOOP
                     EXECUTE format('PREPARE sqlx_s_%s AS SELECT public.f()', n); END LOOP; END $d$",
            ],
            "",
        ),
    ];
    for (statements, refused) in attacks {
        let pair = product().await;
        let quoted: Vec<String> = [GRAB]
            .iter()
            .chain(statements)
            .map(|statement| format!("$s${statement}$s$"))
            .collect();
        pair.branch
            .psql(&format!(
                "INSERT INTO system.custom_migrations (version, name, statements)
                 VALUES ('2', 'attack', ARRAY[{}])",
                quoted.join(", ")
            ))
            .await;
        let merged = try_merge(&pair).await;
        match merged {
            Ok(()) => assert_eq!(refused, "", "{statements:?}"),
            Err(error) => assert!(
                !refused.is_empty() && error.contains(refused),
                "{statements:?}: {error}"
            ),
        }
        assert_eq!(pair.parent.psql(IS_SUPERUSER).await, "f", "{statements:?}");
    }
}

#[tokio::test]
async fn an_expression_leaves_nothing_that_runs_later_as_superuser() {
    let attacks = [
        "EXECUTE 'CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (public.f())'",
        "PERFORM pg_catalog.set_config('search_path', 'public, pg_catalog', false)",
        "EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT public.f()'",
        "EXECUTE 'INSERT INTO public.d VALUES (1)'",
        "SET CONSTRAINTS ALL DEFERRED; INSERT INTO public.d VALUES (1)",
        "EXECUTE 'PREPARE sqlx_s_50 AS SELECT public.f()'",
        "EXECUTE 'CREATE OR REPLACE FUNCTION pg_temp.insforge_run(statement pg_catalog.text) RETURNS pg_catalog.void
             LANGUAGE sql AS ''SELECT public.f()'''",
    ];
    for attack in attacks {
        let pair = Pair::new(
            "CREATE TABLE public.t (id int); INSERT INTO public.t VALUES (1);
             ALTER TABLE public.t OWNER TO project_admin",
        )
        .await;
        pair.branch.psql("DELETE FROM public.t").await;
        pair.branch.psql(&format!(
            "{GRAB}; CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.f());
             CREATE TABLE public.d (i int); ALTER TABLE public.d OWNER TO project_admin;
             CREATE FUNCTION public.later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.f(); RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER later AFTER INSERT ON public.d DEFERRABLE INITIALLY DEFERRED
                 FOR EACH ROW EXECUTE FUNCTION public.later();
             ALTER TABLE public.d ENABLE ALWAYS TRIGGER later;
             CREATE FUNCTION public.act() RETURNS boolean LANGUAGE plpgsql AS $a$ BEGIN
                 IF pg_catalog.to_regclass('public.d') IS NOT NULL THEN {attack}; END IF; RETURN true; END $a$;
             ALTER FUNCTION public.act() OWNER TO project_admin; ALTER FUNCTION public.f() OWNER TO project_admin;
             ALTER TABLE public.t ADD COLUMN a boolean DEFAULT public.act();
             ALTER TABLE public.t ADD COLUMN b boolean DEFAULT public.act()"
        ))
        .await;
        let _ = try_merge(&pair).await;
        assert_eq!(pair.parent.psql(IS_SUPERUSER).await, "f", "{attack}");
    }
}

/// Of `project_admin`: a table with a row, a cast of his own, and all that the attacks start from.
const HIS: &str = "
    GRANT ALL ON SCHEMA public TO project_admin;
    CREATE TYPE public.e AS ENUM ('a'); ALTER TYPE public.e OWNER TO project_admin;
    CREATE TABLE public.t (id int, note text, e public.e); ALTER TABLE public.t OWNER TO project_admin;
    INSERT INTO public.t VALUES (1, 'n', 'a');";

#[tokio::test]
async fn what_a_text_reads_like_lends_no_rights() {
    let cast = "CREATE FUNCTION public.as_text(public.e) RETURNS text LANGUAGE plpgsql AS
            'BEGIN PERFORM public.f(); RETURN 1; END';
        CREATE CAST (public.e AS text) WITH FUNCTION public.as_text(public.e) AS ASSIGNMENT";
    let attacks = [
        ("", "ALTER TABLE public.t ADD CONSTRAINT k CHECK (public.f() AND note <> ' DROP CONSTRAINT ')"),
        (
            "",
            "CREATE SEQUENCE public.s;
             CREATE FUNCTION public.g() RETURNS regclass LANGUAGE plpgsql AS 'BEGIN PERFORM public.f(); RETURN ''public.s''::regclass; END';
             ALTER TABLE public.t ADD COLUMN n int DEFAULT nextval(public.g())",
        ),
        (cast, "ALTER TABLE public.t ALTER COLUMN e TYPE text"),
        (cast, "ALTER TABLE public.t ALTER COLUMN e TYPE varchar(5)"),
    ];
    for (before, sql) in attacks {
        let pair = Pair::new(&format!(
            "{HIS}{GRAB}; ALTER FUNCTION public.f() OWNER TO project_admin; {before}"
        ))
        .await;
        pair.branch
            .psql(&format!("DELETE FROM public.t; {sql}"))
            .await;
        let _ = try_merge(&pair).await;
        assert_eq!(pair.parent.psql(IS_SUPERUSER).await, "f", "{sql}");
    }
}

#[tokio::test]
async fn constants_of_domains_are_parsed_as_the_owner() {
    let makes = [
        "CREATE VIEW public.v AS SELECT '{1}'::public.d[] AS d",
        "CREATE POLICY p ON public.t USING ('{1}'::public.d[] IS NOT NULL)",
        "ALTER TABLE public.t ALTER COLUMN note SET DEFAULT '{1}'::public.d[]",
        "CREATE FUNCTION public.g(a public.d[] DEFAULT '{1}') RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.g() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT ('{1}'::public.d[])[1]; END",
        "CREATE TABLE public.n (d public.d[] DEFAULT '{1}')",
        "CREATE INDEX ON public.t (id) WHERE '{1}'::public.d[] IS NOT NULL",
    ];
    // The branch is restored by a superuser, who must not be taken for one here.
    let on_branch = |sql: &str| format!("SET ROLE project_admin; {sql}; RESET ROLE");
    for sql in makes {
        let pair = Pair::new(&format!(
            "{HIS}{GRAB}; ALTER FUNCTION public.f() OWNER TO project_admin"
        ))
        .await;
        pair.branch
            .psql(&on_branch(&format!(
                "CREATE DOMAIN public.d AS int CHECK (public.f()); {sql}"
            )))
            .await;
        let merged = try_merge(&pair).await;
        assert_eq!(pair.parent.psql(IS_SUPERUSER).await, "f", "{sql}");
        assert_eq!(merged, Ok(()), "{sql}");
    }
}
