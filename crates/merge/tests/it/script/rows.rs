//! What becomes of rows: they survive, or a probe counts those that would not.

use std::{fmt::Write as _, time::Instant};

use cp_merge::{
    catalog::{FactId, Kind},
    script::{Rename, Script, script},
};
use sqlx::{AssertSqlSafe, Connection};

use super::{State, read, text};

/// Runs the script for good and reads again: the database must be as the other one is.
async fn apply(from: &State, to: &State, renames: &[Rename]) -> Script {
    let script = script(&from.catalog, &to.catalog, renames);
    assert!(script.blocked.is_empty(), "{:?}", script.blocked);
    let mut session = from.database.connect().await;
    for step in &script.pre_steps {
        sqlx::raw_sql(AssertSqlSafe(step.sql.clone()))
            .execute(&mut session)
            .await
            .unwrap();
    }
    session.close().await.unwrap();
    let mut body = String::new();
    for statement in &script.statements {
        let _ = writeln!(body, "{};", statement.sql);
    }
    from.database
        .psql(&format!(
            "BEGIN; SET LOCAL search_path = ''; SET LOCAL check_function_bodies = off; \
             SET LOCAL session_replication_role = replica;\n{body}COMMIT"
        ))
        .await;
    let got = read(&from.database).await;
    let wrong: Vec<_> = got
        .diff(&to.catalog)
        .into_iter()
        .map(|id| {
            format!(
                "{id}\n got {:?}\nwant {:?}",
                got.facts.get(&id).map(|f| &f.payload),
                to.catalog.facts.get(&id).map(|f| &f.payload)
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), text(&script));
    script
}

/// What each probe of the script counts, by name.
async fn probe(from: &State, to: &State) -> Vec<(String, i64)> {
    let script = script(&from.catalog, &to.catalog, &[]);
    let mut session = from.database.connect().await;
    let mut counts = Vec::new();
    for probe in &script.probes {
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(probe.sql.clone()))
            .fetch_one(&mut session)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{}", probe.sql));
        if rows > 0 {
            counts.push((probe.id.to_string(), rows));
        }
    }
    session.close().await.unwrap();
    counts
}

fn column(table: &str, from: &str, to: &str) -> Rename {
    Rename {
        kind: Kind::Column,
        from: FactId::part(Kind::Column, "public", table, from),
        to: FactId::part(Kind::Column, "public", table, to),
    }
}

fn object(kind: Kind, from: (&str, &str), to: (&str, &str)) -> Rename {
    Rename {
        kind,
        from: FactId::object(kind, from.0, from.1),
        to: FactId::object(kind, to.0, to.1),
    }
}

#[tokio::test]
async fn values_survive_a_change_of_type_and_of_keys() {
    let from = State::new(
        "from",
        &["CREATE TABLE public.t (id serial PRIMARY KEY, n smallint DEFAULT 3, name varchar(20) DEFAULT 'x', at date);
           INSERT INTO public.t (n, name, at) VALUES (1, 'Ann', '2024-02-29'), (NULL, 'Bo', NULL);
           CREATE VIEW public.v AS SELECT n, name FROM public.t; CREATE INDEX i ON public.t (lower(name))"],
    )
    .await;
    let to = State::new(
        "to",
        &["CREATE TABLE public.t (id bigint GENERATED ALWAYS AS IDENTITY (START 2) PRIMARY KEY, n numeric(8,1) DEFAULT 3.5, name text DEFAULT 'y', at timestamp);
           CREATE VIEW public.v AS SELECT n, name FROM public.t; CREATE INDEX i ON public.t (lower(name)); CREATE SEQUENCE public.late; SELECT nextval('public.late')"],
    )
    .await;
    assert_eq!(probe(&from, &to).await, []);
    apply(&from, &to, &[]).await;
    let rows = from
        .database
        .psql("SELECT * FROM public.t ORDER BY id")
        .await;
    assert_eq!(rows, "1|1.0|Ann|2024-02-29 00:00:00\n2||Bo|");
    let next = from
        .database
        .psql("INSERT INTO public.t DEFAULT VALUES RETURNING id, n")
        .await;
    assert_eq!(next, "3|3.5");
    let back = from
        .database
        .psql("SELECT n FROM public.v WHERE name = 'Ann'")
        .await;
    assert_eq!(back, "1.0");
}

#[tokio::test]
async fn probes_count_the_rows_in_the_way() {
    let from = State::new(
        "from",
        &["CREATE DOMAIN public.pct AS int; CREATE TABLE public.r (id int PRIMARY KEY); INSERT INTO public.r VALUES (1);
           CREATE TABLE public.t (id int, a int, b text, c numeric, d varchar(20), e text, f float8, p public.pct, slot int4range, old text);
           INSERT INTO public.t VALUES (1, 1, 'x', 1.5, 'short', '7', 0.5, 5, '[1,5)', 'o'), (2, 70000, 'x', 2, 'quite a bit longer', '8', 1e300, 500, '[3,9)', NULL), (3, NULL, NULL, 3, NULL, NULL, 2, NULL, NULL, NULL)"],
    )
    .await;
    let to = State::new(
        "to",
        &["CREATE DOMAIN public.pct AS int CHECK (VALUE BETWEEN 0 AND 100); CREATE TABLE public.r (id int PRIMARY KEY);
           CREATE TABLE public.t (id int, a smallint, b text UNIQUE NOT NULL, c int, d varchar(10), e int, f real, p public.pct, slot int4range, fresh int NOT NULL, made int DEFAULT 4,
             CHECK (id < 3), CHECK (made > id), EXCLUDE USING gist (slot WITH &&), FOREIGN KEY (id) REFERENCES public.r);
           CREATE UNIQUE INDEX u ON public.t (lower(b)) WHERE id < 3"],
    )
    .await;
    let expected = [
        ("public.t.a", 1),
        ("public.t.b", 1),
        ("public.t.c", 1),
        ("public.t.d", 1),
        ("public.t.e", 3),
        ("public.t.f", 1),
        ("public.t.fresh", 3),
        ("public.t.old", 1),
        ("public.pct.pct_check", 1),
        ("public.t.t_b_key", 2),
        ("public.t.t_id_check", 1),
        ("public.t.t_id_fkey", 2),
        ("public.t.t_slot_excl", 2),
        ("public.u", 2),
    ];
    let mut got = probe(&from, &to).await;
    got.sort();
    let mut want: Vec<_> = expected
        .iter()
        .map(|(n, c)| ((*n).to_owned(), *c))
        .collect();
    want.sort();
    assert_eq!(got, want);
}

#[tokio::test]
async fn names_swap_and_rows_stay() {
    let base = "CREATE TYPE public.mood AS ENUM ('good', 'bad'); CREATE TABLE public.t (a int, b text, m public.mood DEFAULT 'good', CONSTRAINT pos CHECK (a > 0));
         CREATE TABLE public.u (x int); INSERT INTO public.t VALUES (1, 'one'); INSERT INTO public.u VALUES (7); CREATE INDEX ix ON public.t (a);
         CREATE FUNCTION public.f(public.mood) RETURNS public.mood LANGUAGE sql IMMUTABLE AS 'SELECT $1'; CREATE VIEW public.v AS SELECT a, public.f(m) FROM public.t;
         CREATE SCHEMA s; CREATE TABLE s.k (id int PRIMARY KEY); CREATE POLICY p ON public.t USING (a > 1);";
    let from = State::new("from", &[base]).await;
    let to = State::new(
        "to",
        &[base, "ALTER TABLE public.t RENAME a TO c; ALTER TABLE public.t RENAME b TO a; ALTER TABLE public.t RENAME c TO b; ALTER TYPE public.mood RENAME TO feeling;
           ALTER TYPE public.feeling RENAME VALUE 'bad' TO 'awful'; ALTER TABLE public.t RENAME TO w; ALTER TABLE public.u RENAME TO t; ALTER TABLE public.w RENAME TO u;
           ALTER FUNCTION public.f(public.feeling) RENAME TO g; ALTER SCHEMA s RENAME TO z; ALTER INDEX public.ix RENAME TO iy; ALTER TABLE public.u RENAME CONSTRAINT pos TO positive;
           ALTER POLICY p ON public.u RENAME TO q; ALTER TABLE z.k SET SCHEMA public; ALTER TABLE public.u ADD fresh int"],
    )
    .await;
    let u = |kind, part: &str| FactId::part(kind, "public", "u", part);
    let t = |kind, part: &str| FactId::part(kind, "public", "t", part);
    let renames = [
        Rename {
            kind: Kind::Column,
            from: t(Kind::Column, "a"),
            to: u(Kind::Column, "b"),
        },
        Rename {
            kind: Kind::Column,
            from: t(Kind::Column, "b"),
            to: u(Kind::Column, "a"),
        },
        Rename {
            kind: Kind::Constraint,
            from: t(Kind::Constraint, "pos"),
            to: u(Kind::Constraint, "positive"),
        },
        Rename {
            kind: Kind::Policy,
            from: t(Kind::Policy, "p"),
            to: u(Kind::Policy, "q"),
        },
        object(Kind::Table, ("public", "t"), ("public", "u")),
        object(Kind::Table, ("public", "u"), ("public", "t")),
        object(Kind::Enum, ("public", "mood"), ("public", "feeling")),
        Rename {
            kind: Kind::Enum,
            from: FactId::part(Kind::Enum, "public", "mood", "bad"),
            to: FactId::part(Kind::Enum, "public", "feeling", "awful"),
        },
        object(
            Kind::Function,
            ("public", "f(public.mood)"),
            ("public", "g(public.feeling)"),
        ),
        object(Kind::Schema, ("", "s"), ("", "z")),
        object(Kind::Index, ("public", "ix"), ("public", "iy")),
        object(Kind::Table, ("s", "k"), ("public", "k")),
    ];
    let script = apply(&from, &to, &renames).await;
    let rows = from
        .database
        .psql("SELECT a, b, m FROM public.u; SELECT x FROM public.t; SELECT b FROM public.u WHERE m <> 'awful'")
        .await;
    assert_eq!(rows, "one|1|good\n7\n1");
    let rebuilt: Vec<_> = script
        .statements
        .iter()
        .filter(|s| s.sql.starts_with("DROP") || s.sql.contains(" DROP "))
        .collect();
    assert!(rebuilt.is_empty(), "{rebuilt:?}");
}

#[tokio::test]
async fn a_renamed_column_is_one_statement() {
    let base = "CREATE TABLE public.users (id int PRIMARY KEY, mail text NOT NULL, CONSTRAINT mail_at CHECK (position('@' in mail) > 0)); CREATE UNIQUE INDEX m ON public.users (lower(mail)); INSERT INTO public.users VALUES (1, 'a@x.org');";
    let from = State::new("from", &[base]).await;
    let to = State::new(
        "to",
        &[base, "ALTER TABLE public.users RENAME mail TO email"],
    )
    .await;
    let script = apply(&from, &to, &[column("users", "mail", "email")]).await;
    let sql: Vec<_> = script.statements.iter().map(|s| s.sql.as_str()).collect();
    assert_eq!(
        sql,
        ["ALTER TABLE public.users RENAME COLUMN mail TO email"]
    );
}

#[tokio::test]
async fn a_thousand_tables_from_nothing() {
    let mut ddl = String::new();
    for n in 0..1000 {
        let _ = write!(
            ddl,
            "CREATE TABLE public.t{n} (id bigserial PRIMARY KEY, a text NOT NULL DEFAULT 'x', b int CHECK (b > 0), c jsonb, d timestamptz DEFAULT now(), e uuid, parent bigint REFERENCES public.t{}); \
             CREATE INDEX t{n}_a ON public.t{n} (a); COMMENT ON COLUMN public.t{n}.a IS 'a'; GRANT SELECT, INSERT ON public.t{n} TO anon, authenticated; ALTER TABLE public.t{n} ENABLE ROW LEVEL SECURITY; \
             CREATE POLICY p ON public.t{n} USING (a = current_user); CREATE VIEW public.v{n} AS SELECT id, a FROM public.t{n}; ",
            if n == 0 { 0 } else { n - 1 }
        );
    }
    let to = State::new("thousand", &[&ddl]).await;
    let nothing = State::new("nothing", &[]).await;
    let start = Instant::now();
    let made = script(&nothing.catalog, &to.catalog, &[]);
    let written = start.elapsed();
    assert!(script(&to.catalog, &to.catalog, &[]).statements.is_empty());
    let start = Instant::now();
    apply(&nothing, &to, &[]).await;
    println!(
        "{} facts, {} statements written in {written:?}, run and read again in {:?}",
        to.catalog.facts.len(),
        made.statements.len(),
        start.elapsed()
    );
}
