//! What people see side by side.

use cp_merge::{Definitions, MergePlan};

use crate::{
    merging::{Pair, conflicts},
    product::product,
};

const BASE: &str = "
    CREATE TYPE public.mood AS ENUM ('sad', 'ok');
    CREATE TABLE public.users (id int PRIMARY KEY, mail text DEFAULT '');
    CREATE TABLE public.notes (id int PRIMARY KEY, body text);
    CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 0';
    ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON public.users FOR SELECT USING (id > 0);
    GRANT SELECT ON public.users TO anon;
    COMMENT ON TABLE public.users IS 'people';";

fn texts(base: &str, parent: &str, branch: &str) -> Definitions {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Definitions {
        base: text(base),
        parent: text(parent),
        branch: text(branch),
    }
}

fn conflict(plan: &MergePlan, name: &str) -> Definitions {
    let found = plan.conflicts.iter().find(|c| c.name() == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {:?}", conflicts(plan)))
        .definitions
        .clone()
}

fn change(plan: &MergePlan, name: &str) -> Definitions {
    let found = plan.changes.iter().find(|c| c.name() == name);
    found.unwrap().definitions.clone()
}

#[tokio::test]
async fn conflicts_show_three_texts() {
    let pair = Pair::new(BASE).await;
    pair.parent
        .psql(
            "ALTER TABLE public.users ALTER mail SET NOT NULL;
             CREATE OR REPLACE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
             DROP TABLE public.notes; ALTER TYPE public.mood ADD VALUE 'new' BEFORE 'sad';
             ALTER POLICY own ON public.users USING (id > 1); COMMENT ON TABLE public.users IS 'p'",
        )
        .await;
    pair.branch
        .psql(
            "ALTER TABLE public.users ALTER mail SET DEFAULT 'x';
             CREATE OR REPLACE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 2';
             ALTER TABLE public.notes ADD COLUMN at date; ALTER TYPE public.mood ADD VALUE 'new';
             ALTER POLICY own ON public.users USING (id > 2); COMMENT ON TABLE public.users IS 'b'",
        )
        .await;
    let plan = pair.plan().await;
    assert_eq!(
        conflict(&plan, "public.users.mail"),
        texts(
            "mail text DEFAULT ''::text",
            "mail text DEFAULT ''::text NOT NULL",
            "mail text DEFAULT 'x'::text"
        )
    );
    let f = |n: i32| {
        format!(
            "CREATE OR REPLACE FUNCTION public.f()\n RETURNS integer\n LANGUAGE sql\nAS $function$SELECT {n}$function$"
        )
    };
    assert_eq!(conflict(&plan, "public.f()"), texts(&f(0), &f(1), &f(2)));
    let notes = |more: &str| {
        format!(
            "CREATE TABLE public.notes (\n    id integer NOT NULL,\n    body text{more},\n    \
             CONSTRAINT notes_pkey PRIMARY KEY (id)\n)"
        )
    };
    assert_eq!(
        conflict(&plan, "public.notes"),
        texts(&notes(""), "", &notes(",\n    at date"))
    );
    assert_eq!(
        conflict(&plan, "public.mood"),
        texts(
            "CREATE TYPE public.mood AS ENUM ('sad', 'ok')",
            "CREATE TYPE public.mood AS ENUM ('new', 'sad', 'ok')",
            "CREATE TYPE public.mood AS ENUM ('sad', 'ok', 'new')"
        )
    );
    let policy = |n: i32| {
        format!("CREATE POLICY own ON public.users FOR SELECT TO PUBLIC USING ((id > {n}))")
    };
    assert_eq!(
        conflict(&plan, "public.users.own"),
        texts(&policy(0), &policy(1), &policy(2))
    );
    let comments = plan.conflicts.iter().find(|c| c.kind == "comment").unwrap();
    let comment = |text: &str| format!("COMMENT ON TABLE public.users IS '{text}'");
    assert_eq!(
        comments.definitions,
        texts(&comment("people"), &comment("p"), &comment("b"))
    );
}

#[tokio::test]
async fn changes_show_what_a_thing_was_and_becomes() {
    let pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "ALTER TABLE public.users RENAME mail TO email;
             REVOKE SELECT ON public.users FROM anon; GRANT INSERT, UPDATE ON public.notes TO anon;
             ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY, OWNER TO project_admin;
             CREATE INDEX by_body ON public.notes (body);
             CREATE TABLE public.more (id int PRIMARY KEY, n int REFERENCES public.notes (id))",
        )
        .await;
    let plan = pair.plan().await;
    let old = "mail text DEFAULT ''::text";
    let new = "email text DEFAULT ''::text";
    assert_eq!(change(&plan, "public.users.mail"), texts(old, old, new));
    let grant = "GRANT SELECT ON TABLE public.users TO anon";
    assert_eq!(change(&plan, "public.users:anon"), texts(grant, grant, ""));
    assert_eq!(
        change(&plan, "public.notes:anon").branch.as_deref(),
        Some("GRANT INSERT, UPDATE ON TABLE public.notes TO anon")
    );
    assert_eq!(
        change(&plan, "public.by_body").branch.as_deref(),
        Some("CREATE INDEX by_body ON public.notes USING btree (body)")
    );
    assert_eq!(
        change(&plan, "public.more").branch.as_deref(),
        Some(
            "CREATE TABLE public.more (\n    id integer NOT NULL,\n    n integer,\n    CONSTRAINT more_pkey PRIMARY KEY (id)\n);\n\
             ALTER TABLE public.more ADD CONSTRAINT more_n_fkey FOREIGN KEY (n) REFERENCES public.notes(id)"
        )
    );
    let kinds = |kind: &str| {
        let found = plan.changes.iter().find(|c| c.kind == kind).unwrap();
        found.definitions.branch.clone().unwrap()
    };
    assert_eq!(
        kinds("rls"),
        "ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY"
    );
    assert_eq!(
        kinds("owner"),
        "ALTER TABLE public.notes OWNER TO project_admin"
    );
}

#[tokio::test]
async fn rows_functions_and_migrations_are_shown_and_tokens_are_not() {
    let pair = product().await;
    let job = "00000000-0000-0000-0000-00000000000a";
    for (database, n) in [(&pair.parent, 1), (&pair.branch, 2)] {
        database
            .psql(&format!(
                "UPDATE auth.config SET password_min_length = 1{n};
                 UPDATE functions.definitions SET code = 'export {n}{n}'"
            ))
            .await;
    }
    pair.branch
        .psql(&format!(
            "INSERT INTO schedules.jobs (id, name, cron_schedule, function_url, headers, is_active)
                VALUES ('{job}', 'nightly', '0 0 * * *', 'https://f.example', '{{\"Authorization\":\"Bearer t0ken\"}}', false);
             INSERT INTO system.custom_migrations (version, name, statements) VALUES ('1', 'one', '{{SELECT 1}}')"
        ))
        .await;
    let plan = pair.plan().await;
    assert_eq!(
        conflict(&plan, "auth.config.password_min_length")
            .branch
            .as_deref(),
        Some("{\n  \"password_min_length\": 12\n}")
    );
    assert_eq!(
        conflict(&plan, "functions.hello.code"),
        texts("export 1", "export 11", "export 22")
    );
    let added = change(&plan, &format!("schedules.jobs.{job}"))
        .branch
        .unwrap();
    assert!(added.contains("\"name\": \"nightly\""), "{added}");
    assert!(added.contains("\"Authorization\": \"(hidden)\""), "{added}");
    assert_eq!(
        change(&plan, "system.custom_migrations.1"),
        texts("", "", "SELECT 1;")
    );
}
