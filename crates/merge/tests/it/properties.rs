//! What holds for any edits: of the decision, thousands of times on catalogs in memory; of whole merges, a few times in
//! databases.

use std::{collections::BTreeMap, sync::OnceLock};

use cp_merge::{
    ApplyOptions, Resolutions, apply,
    catalog::{self, Catalog, Fact, FactId},
    script::script,
    three_way::{Direction, Sides, three_way},
};
use proptest::{prelude::*, sample::subsequence};

use crate::{
    database::Database,
    dump::{assert_same, normalise},
    merging::Pair,
};

const BASE: &str = "
    CREATE SCHEMA app;
    CREATE TYPE app.state AS ENUM ('new', 'done');
    CREATE DOMAIN app.positive AS int CHECK (VALUE > 0);
    CREATE TABLE app.a (id int PRIMARY KEY, n int, t text NOT NULL DEFAULT '', s app.state);
    CREATE TABLE app.b (id bigserial PRIMARY KEY, a int REFERENCES app.a (id), note varchar(20));
    CREATE TABLE app.c (id int, at timestamptz, gone text);
    CREATE INDEX a_n ON app.a (n);
    CREATE VIEW app.v AS SELECT id, t FROM app.a;
    CREATE FUNCTION app.f(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x';
    CREATE POLICY p ON app.a USING (true);
    COMMENT ON TABLE app.a IS 'a';
    GRANT SELECT ON app.a TO anon;";

/// Edits that have nothing to do with each other: any of them can be made on either side, in any order.
const EDITS: &[&str] = &[
    "ALTER TABLE app.a ADD COLUMN x1 int DEFAULT 7",
    "ALTER TABLE app.a ALTER t SET DEFAULT 'none'",
    "ALTER TABLE app.a ALTER n SET NOT NULL",
    "ALTER TABLE app.b ALTER note TYPE text",
    "ALTER TABLE app.c DROP COLUMN gone",
    "ALTER TABLE app.c ALTER at SET DEFAULT now()",
    "ALTER TABLE app.c ADD CONSTRAINT c_id UNIQUE (id)",
    "ALTER TABLE app.b DROP CONSTRAINT b_a_fkey",
    "DROP INDEX app.a_n",
    "CREATE INDEX c_at ON app.c (at DESC)",
    "CREATE OR REPLACE VIEW app.v AS SELECT id, t FROM app.a WHERE id > 0",
    "CREATE VIEW app.w AS SELECT id FROM app.c",
    "CREATE OR REPLACE FUNCTION app.f(x int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT x + 1'",
    "CREATE FUNCTION app.g() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RETURN 'g'; END $$",
    "CREATE TABLE app.d (id int PRIMARY KEY, b bigint REFERENCES app.b (id))",
    "CREATE SEQUENCE app.s INCREMENT 5",
    "ALTER TYPE app.state ADD VALUE 'failed'",
    "ALTER DOMAIN app.positive SET DEFAULT 1",
    "CREATE TYPE app.pair AS (x int, y int)",
    "ALTER POLICY p ON app.a TO authenticated",
    "CREATE POLICY q ON app.b FOR SELECT USING (id > 0)",
    "ALTER TABLE app.b ENABLE ROW LEVEL SECURITY",
    "COMMENT ON TABLE app.a IS 'A'",
    "COMMENT ON COLUMN app.b.note IS 'note'",
    "GRANT INSERT ON app.b TO authenticated",
    "REVOKE SELECT ON app.a FROM anon",
    "ALTER TABLE app.c OWNER TO project_admin",
    "CREATE SCHEMA other",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO anon",
    "CREATE STATISTICS app.st ON id, at FROM app.c",
];

/// What each edit does to the catalog: facts that it brings, and that it drops.
struct Edits {
    base: Catalog,
    edits: Vec<BTreeMap<FactId, Option<Fact>>>,
}

impl Edits {
    /// Each is made once, in a database of its own.
    fn read() -> &'static Self {
        static EDITS_READ: OnceLock<Edits> = OnceLock::new();
        EDITS_READ.get_or_init(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let database = Database::empty().await;
                database.psql(BASE).await;
                let base = read(&database).await;
                let mut edits = Vec::new();
                for sql in EDITS {
                    let copy = database.template_copy().await;
                    copy.psql(sql).await;
                    let after = read(&copy).await;
                    let changed = base.diff(&after);
                    assert!(!changed.is_empty(), "{sql}");
                    let fact = |id: FactId| {
                        let fact = after.facts.get(&id).cloned();
                        (id, fact)
                    };
                    edits.push(changed.into_iter().map(fact).collect());
                }
                Self { base, edits }
            })
        })
    }

    fn with(&self, chosen: &[usize]) -> Catalog {
        let mut catalog = self.base.clone();
        for index in chosen {
            for (id, fact) in &self.edits[*index] {
                match fact {
                    Some(fact) => catalog.facts.insert(id.clone(), fact.clone()),
                    None => catalog.facts.remove(id),
                };
            }
        }
        catalog
    }
}

async fn read(database: &Database) -> Catalog {
    catalog::read(&mut database.connect().await).await.unwrap()
}

/// Which edits each side makes.
fn two_sides() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let all = || subsequence((0..EDITS.len()).collect::<Vec<_>>(), 0..=EDITS.len());
    (all(), all())
}

pub fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}

fn same(left: &Catalog, right: &Catalog) -> Result<(), TestCaseError> {
    let different = left.diff(right);
    prop_assert!(different.is_empty(), "{different:?}");
    Ok(())
}

proptest! {
    #![proptest_config(config(700))]

    #[test]
    fn decisions((parent, branch) in two_sides()) {
        let edits = Edits::read();
        let base = &edits.base;
        let decide = |parent: &Catalog, branch: &Catalog| {
            let sides = Sides { parent_t0: base, parent, branch_t0: base, branch, direction: Direction::Merge };
            three_way(&sides, &Resolutions::new())
        };
        let (p, b) = (edits.with(&parent), edits.with(&branch));

        // Only the branch changed: the parent becomes it.
        let merge = decide(base, &b);
        prop_assert!(merge.conflicts.is_empty(), "{:?}", merge.conflicts);
        same(&merge.target, &b)?;
        prop_assert_eq!(merge.changes.is_empty(), branch.is_empty());
        // The script has something to do if there is something to change, and nothing once it is done.
        prop_assert_eq!(script(base, &merge.target, &merge.renames).statements.is_empty(), branch.is_empty());
        prop_assert!(script(&b, &merge.target, &[]).statements.is_empty());

        // Only the parent changed, or both the same: nothing happens.
        for same_branch in [base, &p] {
            let merge = decide(&p, same_branch);
            prop_assert!(merge.changes.is_empty() && merge.conflicts.is_empty(), "{:?}", merge.changes);
            same(&merge.target, &p)?;
        }

        // These edits stand in nobody's way: the merge has all of them, whoever made them.
        let merge = decide(&p, &b);
        prop_assert!(merge.conflicts.is_empty(), "{:?}", merge.conflicts);
        let mut union = parent.clone();
        union.extend(branch.iter().filter(|edit| !parent.contains(edit)));
        same(&merge.target, &edits.with(&union))?;
        same(&decide(&b, &p).target, &merge.target)?;
        // And it is done once.
        let again = decide(&merge.target, &b);
        prop_assert!(again.changes.is_empty() && again.conflicts.is_empty(), "{:?}", again.changes);
    }
}

/// One statement of a grammar of DDL, on the tables of [`tables`]. Not every one is possible in every state; those that
/// are not are left out by psql.
fn statement(schema: &'static str) -> impl Strategy<Value = String> {
    let table = prop::sample::select(vec!["t1", "t2", "t3"]);
    let column = prop::sample::select(vec!["c1", "c2", "c3", "c4"]);
    let other = prop::sample::select(vec!["c5", "c6", "c7"]);
    let kind = prop::sample::select(vec!["int", "bigint", "text", "numeric(8,2)", "date"]);
    // Not the one that tables are given to: a column's grant to the owner says nothing, and is no fact.
    let role = prop::sample::select(vec!["anon", "authenticated"]);
    (table, column, other, kind, role, 0..22_u8).prop_map(
        move |(t, c, o, kind, role, what)| match what {
            0 | 1 => format!("ALTER TABLE {schema}.{t} ADD COLUMN {o} {kind}"),
            2 => format!("ALTER TABLE {schema}.{t} DROP COLUMN {c} CASCADE"),
            3 => format!("ALTER TABLE {schema}.{t} RENAME {c} TO {o}"),
            4 => format!("ALTER TABLE {schema}.{t} ALTER {c} SET DEFAULT NULL, ALTER {c} SET NOT NULL"),
            5 => format!("ALTER TABLE {schema}.{t} ALTER {c} TYPE text"),
            6 => format!("ALTER TABLE {schema}.{t} ALTER c1 SET DEFAULT 5"),
            7 => format!("CREATE INDEX {t}_{c}_ix ON {schema}.{t} ({c} DESC)"),
            8 => format!("ALTER TABLE {schema}.{t} ADD CONSTRAINT {t}_{c}_ok CHECK ({c} IS NOT NULL)"),
            9 => format!("ALTER TABLE {schema}.{t} ADD CONSTRAINT {t}_{c}_uq UNIQUE ({c})"),
            10 => format!("CREATE VIEW {schema}.v_{t}_{c} AS SELECT {c}, count(*) AS n FROM {schema}.{t} GROUP BY {c}"),
            11 => format!("CREATE VIEW {schema}.vv_{t} AS SELECT * FROM {schema}.v_{t}_{c}"),
            12 => format!("CREATE TABLE {schema}.new_{o} (id serial PRIMARY KEY, {c} {kind}, r int REFERENCES {schema}.{t} (id))"),
            13 => format!("DROP TABLE {schema}.{t} CASCADE"),
            14 => format!("ALTER TYPE {schema}.mood ADD VALUE '{o}' BEFORE 'good'"),
            15 => format!("ALTER TABLE {schema}.{t} ADD COLUMN {o} {schema}.mood DEFAULT 'good'"),
            16 => format!("CREATE POLICY p_{c} ON {schema}.{t} TO {role} USING ({c} IS NOT NULL)"),
            17 => format!("GRANT SELECT, UPDATE ({c}) ON {schema}.{t} TO {role}"),
            18 => format!("COMMENT ON COLUMN {schema}.{t}.{c} IS 'about {o}'"),
            19 => format!("ALTER TABLE {schema}.{t} OWNER TO project_admin"),
            20 => format!("CREATE OR REPLACE FUNCTION {schema}.f_{o}(r {schema}.{t}) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT $1.id::bigint'"),
            _ => format!("CREATE TRIGGER tr_{c} BEFORE UPDATE OF {c} ON {schema}.{t} FOR EACH ROW EXECUTE FUNCTION {schema}.touch()"),
        },
    )
}

pub fn tables(schema: &str) -> String {
    use std::fmt::Write as _;
    let mut sql = format!(
        "CREATE SCHEMA {schema}; CREATE TYPE {schema}.mood AS ENUM ('bad', 'good');
         CREATE FUNCTION {schema}.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
    );
    for table in ["t1", "t2", "t3"] {
        let _ = write!(
            sql,
            "CREATE TABLE {schema}.{table} (id serial PRIMARY KEY, c1 int, c2 text DEFAULT 'x', c3 date, c4 varchar(9));"
        );
    }
    sql
}

pub fn statements(schema: &'static str) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(statement(schema), 1..12)
}

pub async fn edit(database: &Database, statements: &[String]) {
    // Each for itself: what is not possible is skipped.
    database
        .psql(&format!(
            "\\set ON_ERROR_STOP off\n{};",
            statements.join(";\n")
        ))
        .await;
}

pub fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Runtime::new().unwrap().block_on(work);
}

pub fn dumped(dump: &str) -> String {
    normalise(dump, true)
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..config(
        std::env::var("CP_MERGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
    )})]

    /// merge(t0, t0, x) gives x, merge(t0, x, x) changes nothing.
    #[test]
    fn the_branch_alone_changed(edits in statements("app")) {
        block_on(async {
            let pair = Pair::new(&tables("app")).await;
            edit(&pair.branch, &edits).await;
            let plan = pair.plan().await;
            if !plan.is_clean() {
                // Some type changes need a migration even of empty tables' types; nothing else may stand in the way.
                assert!(plan.conflicts.is_empty(), "{}", plan.rendered_sql());
                return;
            }
            pair.merge().await;
            let (merged, wanted) = (pair.parent.dump_after_round_trip().await, pair.branch.dump_after_round_trip().await);
            assert_same(&dumped(&merged), &dumped(&wanted), &plan.rendered_sql());
        });
    }

    /// Edits of different things: both are kept, in either direction.
    #[test]
    fn disjoint_edits_commute(ours in statements("ours"), theirs in statements("theirs")) {
        block_on(async {
            let base = tables("ours") + &tables("theirs");
            let one = Pair::quick(&base).await;
            let other = Pair::quick(&base).await;
            for (pair, parent, branch) in [(&one, &ours, &theirs), (&other, &theirs, &ours)] {
                edit(&pair.parent, parent).await;
                edit(&pair.branch, branch).await;
            }
            let (first, second) = (one.plan().await, other.plan().await);
            assert!(first.conflicts.is_empty() && second.conflicts.is_empty(), "{}", first.rendered_sql());
            if !first.is_clean() || !second.is_clean() {
                return;
            }
            let options = ApplyOptions::default();
            apply(&one.parent.options(), &first, &options).await.unwrap_or_else(|e| panic!("{e}\n{}", first.rendered_sql()));
            apply(&other.parent.options(), &second, &options).await.unwrap_or_else(|e| panic!("{e}\n{}", second.rendered_sql()));
            assert_same(&dumped(&one.parent.dump().await), &dumped(&other.parent.dump().await), &first.rendered_sql());
        });
    }
}
