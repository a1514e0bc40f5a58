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
