//! What is read from a database does not depend on how the database came to be.

use std::{fs, path::PathBuf, time::Duration};

use cp_merge::catalog::{self, Catalog, FactId, Kind, Payload};

use crate::database::Database;

async fn read(database: &Database) -> Catalog {
    catalog::read(&mut database.connect().await).await.unwrap()
}

/// No base has a text that changes when it is parsed again.
#[tokio::test]
async fn copies_of_all_cases_read_equal() {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
    cases.sort();
    for case in cases {
        let database = Database::empty().await;
        for file in ["base.sql", "branch.sql"] {
            database
                .psql(&fs::read_to_string(case.join(file)).unwrap())
                .await;
        }
        let original = read(&database).await;
        let restored = read(&database.dump_copy().await).await;
        assert_eq!(original.diff(&restored), Vec::new(), "{}", case.display());
        assert_eq!(original.hash(), restored.hash());
        assert_eq!(original.hash(), read(&database).await.hash());
        assert_eq!(original.unmodelled, Vec::<String>::new());
        let bytes = original.to_bytes();
        assert_eq!(Catalog::from_bytes(&bytes).unwrap(), original);
        for (id, fact) in &original.facts {
            let there = restored.facts.get(id).unwrap();
            assert_eq!(there.needs, fact.needs, "{id}");
        }
    }
}

const EVERY_KIND: &str = r#"
    CREATE SCHEMA app;
    CREATE EXTENSION hstore SCHEMA app;
    CREATE COLLATION app.c (provider = icu, locale = 'de', deterministic = false);
    CREATE TYPE app.e AS ENUM ('a', 'b');
    CREATE DOMAIN app.d AS text CONSTRAINT short CHECK (length(VALUE) < 9);
    CREATE TYPE app.pair AS (x int, y app.e);
    CREATE TYPE app.r AS RANGE (subtype = int);
    CREATE SEQUENCE app.s;
    CREATE FUNCTION app.f(int, app.e) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE PROCEDURE app.p() LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE app.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
    CREATE TABLE app.t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "odd name" app.pair, n serial, h app.hstore);
    CREATE INDEX "T ix" ON app.t (n);
    CREATE VIEW app.v AS SELECT id FROM app.t;
    CREATE MATERIALIZED VIEW app.m AS SELECT id FROM app.v;
    CREATE RULE quiet AS ON DELETE TO app.t DO INSTEAD NOTHING;
    CREATE STATISTICS app.st ON id, n FROM app.t;
    CREATE FUNCTION app.tg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER tr BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.tg();
    CREATE POLICY pol ON app.t TO anon USING (id > 0);
    ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO anon;
    GRANT SELECT (n) ON app.t TO anon;
    GRANT USAGE ON SEQUENCE app.t_id_seq TO anon;
    COMMENT ON COLUMN app.pair.x IS 'x';
    CREATE PUBLICATION pub FOR TABLE app.t (id) WHERE (id > 3);
    CREATE FUNCTION app.ev() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER et ON ddl_command_end EXECUTE FUNCTION app.ev();
    CREATE SCHEMA system; CREATE TABLE system.control_plane_merges (id uuid);
    CREATE TABLE app.parted (a int, b int) PARTITION BY LIST (a);
    CREATE TABLE app.part PARTITION OF app.parted FOR VALUES IN (1);
    CREATE INDEX parted_b ON app.parted (b);
    CREATE CAST (app.e AS int) WITH FUNCTION app.f2(app.e);
    CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = pg_catalog.int4eq);
"#;

#[tokio::test]
async fn every_kind_is_read() {
    let database = Database::empty().await;
    let sql = EVERY_KIND.replace(
        "CREATE CAST",
        "CREATE FUNCTION app.f2(app.e) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE CAST",
    );
    database.psql(&sql).await;
    let catalog = read(&database).await;
    let names: Vec<String> = catalog
        .facts
        .keys()
        .filter(|id| id.of.is_none() && (id.schema == "app" || id.schema.is_empty()))
        .map(|id| format!("{} {}", id.kind.as_str(), id.name()))
        .collect();
    let wanted = "schema app, schema public, schema system, extension hstore, collation c, enum e, domain d, type pair, range r, \
        sequence s, sequence t_n_seq, function ev(), function f(integer, app.e), function f2(app.e), function tg(), procedure p(), \
        aggregate total(integer), table part, table parted, table t, column parted.a, column parted.b, column t.h, column t.id, \
        column t.n, column t.odd name, constraint d.short, constraint t.t_pkey, index T ix, index parted_b, view v, \
        materialized_view m, rule t.quiet, statistics st, trigger t.tr, policy t.pol, rls part, rls parted, rls t, \
        default_privilege postgres:tables:anon, publication pub, event_trigger et";
    assert_eq!(names.join(", "), wanted);
    let about: Vec<String> = catalog
        .facts
        .keys()
        .filter(|id| {
            id.of.is_some() && id.schema == "app" && id.kind != cp_merge::catalog::Kind::Owner
        })
        .map(|id| format!("{} {}", id.kind.as_str(), id.name()))
        .collect();
    // The view's and the tables' rights of anon come from the default privileges.
    for name in [
        "grant t.n:anon",
        "grant t_id_seq:anon",
        "grant f(integer, app.e):PUBLIC",
        "comment pair.x",
    ] {
        assert!(about.contains(&name.to_owned()), "{name} in {about:?}");
    }
    assert_eq!(
        catalog.unmodelled,
        [
            "cast (app.e AS integer)",
            "operator app.===(integer,integer)"
        ]
    );
    let copy = database.dump_copy().await;
    assert_eq!(catalog.diff(&read(&copy).await), Vec::new());
}

/// Names that are quoted, that some releases quote, and that none does.
const NAMES: [&str; 14] = [
    "plain",
    "_under9",
    "select",
    "user",
    "json_value",
    "between",
    "Upper",
    "two words",
    "9lives",
    "a$b",
    "naïve",
    "qu\"ote",
    "it's",
    "back\\slash",
];

/// Columns of many types, and what stands in an index on them: `{}` is the column.
const TYPES: [&str; 24] = [
    "bigint",
    "int",
    "text",
    "varchar(20)",
    "char(3)",
    "numeric(10,2)",
    "timestamptz(3)",
    "date",
    "uuid",
    "jsonb",
    "name",
    "odd.\"E\"",
    "odd.d",
    "int[]",
    "int4range",
    "boolean",
    "inet",
    "cidr",
    "oid",
    "bytea",
    "text COLLATE \"C\"",
    "varchar(9) COLLATE \"POSIX\"",
    "bit(3)",
    "\"char\"",
];
const KEYS: [&str; 20] = [
    "({})",
    "({} DESC)",
    "({} NULLS FIRST)",
    "({}, id)",
    "(id, {})",
    "(({}::text))",
    "(lower({}::text))",
    "(lower({}::text), id)",
    "(id, lower({}::text) DESC)",
    "(lower({}::text), upper({}::text))",
    "(lower({}::text) COLLATE \"C\")",
    "(lower({}::text) text_pattern_ops)",
    "(coalesce({}, {}))",
    "(({} IS NULL))",
    "(odd.\"f of\"({}))",
    "({}) INCLUDE (id)",
    "({}) WITH (fillfactor = 50)",
    "({}) WHERE id > 0",
    "({} COLLATE \"C\")",
    "(substring({}::text FROM 2))",
];

/// What is put together here is what Postgres says, whatever the names, types and options are.
#[tokio::test]
async fn texts_of_keys_and_columns_are_those_of_postgres() {
    let database = Database::empty().await;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut sql = String::from(
        r#"SET check_function_bodies = off; CREATE SCHEMA odd; CREATE TYPE odd."E" AS ENUM ('a', 'b'); CREATE DOMAIN odd.d AS text DEFAULT 'd';
           CREATE FUNCTION odd."f of"(anyelement) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'f' $$;
           CREATE TABLE odd.wide (gone int, id bigint, day date);
           ALTER TABLE odd.wide DROP gone;
           CREATE INDEX ON odd.wide (EXTRACT(year FROM day));
           CREATE INDEX ON odd.wide USING hash (id);
           CREATE INDEX ON odd.wide USING brin (day);
           CREATE UNIQUE INDEX ON odd.wide (id) NULLS NOT DISTINCT;
           CREATE UNIQUE INDEX unique_one ON odd.wide (day, id);
           CREATE TABLE odd.heir (own text) INHERITS (odd.wide);
           CREATE INDEX ON odd.heir (day, own);
           CREATE TABLE odd.parted (id int, t text) PARTITION BY LIST (id);
           CREATE TABLE odd.part PARTITION OF odd.parted FOR VALUES IN (1);
           CREATE INDEX ON odd.parted (t); CREATE INDEX ON odd.part (id);
           CREATE MATERIALIZED VIEW odd.m AS SELECT id, 'x'::text AS t FROM odd.wide;
           CREATE INDEX ON odd.m (t, id);
           CREATE SEQUENCE odd."S";
           CREATE TABLE odd.defaults (id int DEFAULT nextval('odd."S"'), a odd."E" DEFAULT 'a', b int[] DEFAULT '{1}',
             c text DEFAULT CURRENT_USER || odd."f of"(1), d odd.d, e timestamptz DEFAULT now() - interval '1 day',
             f int GENERATED ALWAYS AS (length("g of") + 1) STORED, "g of" text DEFAULT 'it''s',
             h odd.parted DEFAULT ROW(1, NULL), i bool DEFAULT (1 IN (1, 2)), j numeric DEFAULT EXTRACT(year FROM now()));
           CREATE TABLE odd.keys (a int, b int, c int, d int, PRIMARY KEY (b, a), UNIQUE (c), UNIQUE NULLS NOT DISTINCT (d),
             UNIQUE (a) DEFERRABLE, UNIQUE (b) DEFERRABLE INITIALLY DEFERRED, UNIQUE (d, a) INCLUDE (b), CHECK (a > 0),
             UNIQUE (a, c) WITH (fillfactor = 50), FOREIGN KEY (b) REFERENCES odd.keys (c), EXCLUDE USING btree (a WITH =));
           CREATE TABLE odd.child (LIKE odd.keys INCLUDING ALL) INHERITS (odd.keys);
        "#,
    );
    for (number, name) in NAMES.iter().enumerate() {
        let name = quoted(name);
        // The key of the first table has an index of that name, so the index of it is in another schema.
        sql.push_str(&format!(
            "CREATE SCHEMA {name}; CREATE TABLE {name}.t ({name} int, b text, CONSTRAINT {name} PRIMARY KEY ({name}), UNIQUE (b, {name}));
             CREATE INDEX ON {name}.t ({name}, b); CREATE SCHEMA s{number}; CREATE TABLE s{number}.k ({name} int);
             CREATE INDEX {name} ON s{number}.k ({name}); CREATE SCHEMA z{number};
             CREATE TABLE z{number}.{name} ({name} int); CREATE INDEX ON z{number}.{name} (abs({name}));"
        ));
    }
    for (number, type_) in TYPES.iter().enumerate() {
        sql.push_str(&format!("ALTER TABLE odd.wide ADD c{number} {type_};"));
        for key in KEYS {
            let key = key.replace("{}", &format!("c{number}"));
            // Some types have no such index.
            sql.push_str(&format!(
                "DO $do$ BEGIN CREATE INDEX ON odd.wide {key}; EXCEPTION WHEN OTHERS THEN NULL; END $do$;"
            ));
        }
    }
    database.psql(&sql).await;

    let catalog = read(&database).await;
    let mut session = database.connect().await;
    let mut texts = async |sql: &'static str| -> Vec<(String, String, String, String)> {
        sqlx::raw_sql("SET search_path = ''")
            .execute(&mut session)
            .await
            .unwrap();
        sqlx::query_as(sql).fetch_all(&mut session).await.unwrap()
    };
    let indexes = texts(
        "SELECT n.nspname::text, c.relname::text, '', replace(pg_get_indexdef(c.oid), ' ON ONLY ', ' ON ') FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_index i ON i.indexrelid = c.oid
         WHERE c.oid >= 16384 AND n.nspname <> 'pg_toast' AND NOT c.relispartition
           AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x'))",
    )
    .await;
    assert!(indexes.len() > 250, "{}", indexes.len());
    for (schema, name, _, text) in indexes {
        let fact = &catalog.facts[&FactId::object(Kind::Index, &schema, &name)];
        let Payload::Index { definition, .. } = &fact.payload else {
            panic!("{fact:?}");
        };
        assert_eq!(*definition, text);
    }
    let constraints = texts(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, pg_get_constraintdef(k.oid) FROM pg_constraint k
         JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid >= 16384 AND (k.conislocal OR k.coninhcount = 0)",
    )
    .await;
    assert!(constraints.len() > 40, "{}", constraints.len());
    for (schema, table, name, text) in constraints {
        let fact = &catalog.facts[&FactId::part(Kind::Constraint, &schema, &table, &name)];
        let Payload::Constraint { definition, .. } = &fact.payload else {
            panic!("{fact:?}");
        };
        assert_eq!(*definition, text);
    }
    let expressions = texts(
        "SELECT n.nspname::text, c.relname::text, a.attname::text, pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
         JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
         JOIN pg_class c ON c.oid = d.adrelid JOIN pg_namespace n ON n.oid = c.relnamespace",
    )
    .await;
    assert!(expressions.len() > 9, "{}", expressions.len());
    for (schema, table, name, text) in expressions {
        let fact = &catalog.facts[&FactId::part(Kind::Column, &schema, &table, &name)];
        let Payload::Column(column) = &fact.payload else {
            panic!("{fact:?}");
        };
        let there = column.default.as_ref().or(column.generated.as_ref());
        assert_eq!(there, Some(&text));
    }
}

#[tokio::test]
async fn the_session_is_left_as_it_was() {
    let database = Database::empty().await;
    let mut session = database.connect().await;
    for statement in [
        "SET search_path = app, public",
        "SET TimeZone = 'Asia/Tokyo'",
        "BEGIN",
        "CREATE TABLE public.t ()",
    ] {
        sqlx::query(statement).execute(&mut session).await.unwrap();
    }
    let inside = catalog::read(&mut session).await.unwrap();
    assert!(inside.facts.keys().any(|id| id.object == "t"));
    let settings = async |session: &mut sqlx::PgConnection| -> (String, String) {
        sqlx::query_as("SELECT current_setting('search_path'), current_setting('timezone')")
            .fetch_one(session)
            .await
            .unwrap()
    };
    let before = ("app, public".to_owned(), "Asia/Tokyo".to_owned());
    assert_eq!(settings(&mut session).await, before);
    sqlx::query("ROLLBACK").execute(&mut session).await.unwrap();
    let outside = catalog::read(&mut session).await.unwrap();
    assert!(outside.facts.keys().all(|id| id.object != "t"));
    assert_eq!(settings(&mut session).await, before);
}

/// Runs one statement after the other until it is aborted, each on its own, sooner or later after the one before.
async fn keep_running(
    database: &Database,
    statements: impl Iterator<Item = String> + Send + 'static,
) -> tokio::task::JoinHandle<()> {
    let mut session = database.connect().await;
    tokio::spawn(async move {
        for (n, statement) in (0..).zip(statements) {
            let statement = sqlx::AssertSqlSafe(statement);
            sqlx::raw_sql(statement)
                .execute(&mut session)
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(n % 20 * 7)).await;
        }
    })
}

/// The column is read with the transaction's snapshot, and the texts that mention it as they are when Postgres prints them.
#[tokio::test]
async fn what_is_read_was_there_at_one_moment() {
    let database = Database::empty().await;
    database
        .psql(
            "CREATE TABLE t (a0 int CONSTRAINT c CHECK (a0 > 0)); CREATE INDEX i ON t (abs(a0));
             CREATE POLICY p ON t USING (a0 > 1); CREATE VIEW v AS SELECT a0 AS x FROM t",
        )
        .await;
    let renames = (0..).map(|n| format!("ALTER TABLE public.t RENAME a{n} TO a{}", n + 1));
    let renaming = keep_running(&database, renames).await;
    let mut session = database.connect().await;
    let mut read = 0;
    for _ in 0..60 {
        let catalog = match catalog::read(&mut session).await {
            Ok(catalog) => catalog,
            Err(cp_merge::Error::Unsettled { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let is_column = |id: &&FactId| id.kind == Kind::Column && id.of.is_none();
        let column = catalog.facts.keys().find(is_column).unwrap();
        for id in [
            FactId::part(Kind::Constraint, "public", "t", "c"),
            FactId::object(Kind::Index, "public", "i"),
            FactId::part(Kind::Policy, "public", "t", "p"),
            FactId::object(Kind::View, "public", "v"),
        ] {
            let text = format!("{:?}", catalog.facts[&id].payload);
            let mut words = text.split(|c: char| !c.is_alphanumeric());
            assert!(words.any(|word| word == column.part), "{column}: {text}");
        }
        read += 1;
    }
    renaming.abort();
    assert!(read > 0, "it never came to an end");
}

/// Other people's temporary tables change the system catalogs all the time, and are no part of the schema.
#[tokio::test]
async fn temporary_tables_of_others_do_not_disturb() {
    let database = Database::empty().await;
    database.psql("CREATE TABLE t (a int)").await;
    let statements = ["CREATE TEMPORARY TABLE work (a int)", "DROP TABLE work"];
    let work = statements.into_iter().cycle().map(str::to_owned);
    let working = keep_running(&database, work).await;
    for _ in 0..5 {
        let catalog = read(&database).await;
        assert!(catalog.facts.keys().any(|id| id.object == "t"));
    }
    let mut session = database.connect().await;
    for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ"] {
        sqlx::query(begin).execute(&mut session).await.unwrap();
        let catalog = catalog::read(&mut session).await.unwrap();
        assert!(catalog.facts.keys().any(|id| id.object == "t"));
        sqlx::query("ROLLBACK").execute(&mut session).await.unwrap();
    }
    working.abort();
}
