//! Edits that are fine alone and not together, and how conflicts are answered.

use cp_merge::Choice;

use crate::merging::{Pair, changes, conflicts};

async fn semantic(base: &str, parent: &str, branch: &str) -> Vec<String> {
    let pair = Pair::quick(base).await;
    pair.parent.psql(parent).await;
    pair.branch.psql(branch).await;
    let plan = pair.plan().await;
    assert!(
        plan.conflicts.iter().all(|conflict| conflict.semantic),
        "{:?}",
        plan.conflicts
    );
    conflicts(&plan)
}

#[tokio::test]
async fn what_the_parent_dropped_is_needed() {
    let base = "CREATE TABLE public.t (a int, b int); CREATE TYPE public.e AS ENUM ('x');
        CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'";
    assert_eq!(
        semantic(
            base,
            "DROP TYPE public.e; DROP FUNCTION public.f()",
            "CREATE TABLE public.n (e public.e); ALTER TABLE public.t ALTER a SET DEFAULT public.f();
             CREATE VIEW public.v AS SELECT 1 AS one FROM public.n; CREATE INDEX i ON public.t (b)"
        )
        .await,
        ["table public.n", "column public.t.a"]
    );
}

#[tokio::test]
async fn what_the_branch_dropped_has_new_dependents() {
    let base = "CREATE TABLE public.t (a int PRIMARY KEY, b int); CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE TYPE public.e AS ENUM ('x')";
    assert_eq!(
        semantic(
            base,
            "CREATE VIEW public.v AS SELECT b FROM public.t; CREATE TABLE public.r (a int REFERENCES public.t, e public.e, d int DEFAULT public.f())",
            "ALTER TABLE public.t DROP b; ALTER TABLE public.t DROP CONSTRAINT t_pkey; DROP FUNCTION public.f(); DROP TYPE public.e"
        )
        .await,
        ["enum public.e", "function public.f()", "column public.t.b", "constraint public.t.t_pkey"]
    );
}

#[tokio::test]
async fn names_are_shared() {
    let base = "CREATE TABLE public.t (a int, b int)";
    assert_eq!(
        semantic(
            base,
            "CREATE VIEW public.x AS SELECT 1 AS one; CREATE INDEX t_a_key ON public.t (a); CREATE TYPE public.y AS ENUM ('a');
             CREATE PROCEDURE public.p() LANGUAGE sql AS 'SELECT 1'",
            "CREATE TABLE public.x (a int); ALTER TABLE public.t ADD UNIQUE (a); CREATE TABLE public.y (a int);
             CREATE FUNCTION public.p() RETURNS int LANGUAGE sql AS 'SELECT 1'"
        )
        .await,
        ["function public.p()", "table public.x", "table public.y", "constraint public.t.t_a_key"]
    );
}

#[tokio::test]
async fn two_primary_keys_and_partitions_that_meet() {
    let base = "CREATE TABLE public.t (a int NOT NULL, b int NOT NULL); CREATE TABLE public.m (a int) PARTITION BY RANGE (a);
        CREATE TABLE public.n (a int) PARTITION BY LIST (a)";
    assert_eq!(
        semantic(
            base,
            "ALTER TABLE public.t ADD CONSTRAINT one PRIMARY KEY (a); CREATE TABLE public.m1 PARTITION OF public.m FOR VALUES FROM (1) TO (10);
             CREATE TABLE public.n1 PARTITION OF public.n DEFAULT",
            "ALTER TABLE public.t ADD CONSTRAINT two PRIMARY KEY (b); CREATE TABLE public.m2 PARTITION OF public.m FOR VALUES FROM (5) TO (20);
             CREATE TABLE public.n2 PARTITION OF public.n DEFAULT"
        )
        .await,
        ["table public.m2", "table public.n2", "constraint public.t.two"]
    );
}

#[tokio::test]
async fn inherited_columns_clash() {
    let base = "CREATE TABLE public.p (a int); CREATE TABLE public.c () INHERITS (public.p);
        CREATE TABLE public.m (a int, b text) PARTITION BY LIST (a); CREATE TABLE public.m1 (a int, b text)";
    assert_eq!(
        semantic(
            base,
            "ALTER TABLE public.c ADD x text; ALTER TABLE public.m ADD y int",
            "ALTER TABLE public.p ADD x int; ALTER TABLE public.m ATTACH PARTITION public.m1 FOR VALUES IN (1)"
        )
        .await,
        ["table public.m1", "column public.p.x"]
    );
}

#[tokio::test]
async fn rows_are_read_by_position() {
    let base = "CREATE TABLE public.t (a int, b int)";
    let branch = "ALTER TABLE public.t ADD c int; CREATE FUNCTION public.f() RETURNS SETOF public.t LANGUAGE sql AS 'SELECT * FROM public.t';
        CREATE VIEW public.v AS SELECT c FROM public.f()";
    assert_eq!(
        semantic(base, "ALTER TABLE public.t ADD z int", branch).await,
        ["view public.v"]
    );
    assert_eq!(
        semantic(base, "CREATE INDEX i ON public.t (a)", branch).await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_partition_is_attached() {
    let pair = Pair::new(
        "CREATE TABLE public.m (a int NOT NULL, b text DEFAULT 'x') PARTITION BY LIST (a); ALTER TABLE public.m ADD PRIMARY KEY (a);
         CREATE INDEX m_b ON public.m (b); CREATE TABLE public.m1 (a int NOT NULL, b text DEFAULT 'x');
         CREATE TABLE public.m2 PARTITION OF public.m FOR VALUES IN (2); INSERT INTO public.m1 VALUES (1, 'one')",
    )
    .await;
    pair.branch
        .psql("ALTER TABLE public.m ATTACH PARTITION public.m1 FOR VALUES IN (1); ALTER TABLE public.m DETACH PARTITION public.m2")
        .await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        ["modify table public.m1", "modify table public.m2"]
    );
    assert_eq!(pair.parent.psql("SELECT * FROM public.m").await, "1|one");
}

#[tokio::test]
async fn a_table_becomes_a_view() {
    let pair = Pair::new(
        "CREATE TABLE public.src (id int, a text); CREATE TABLE public.t (id int); CREATE VIEW public.over AS SELECT id FROM public.t",
    )
    .await;
    pair.branch
        .psql("DROP TABLE public.t CASCADE; CREATE VIEW public.t AS SELECT id FROM public.src; CREATE VIEW public.over AS SELECT id FROM public.t")
        .await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["drop table public.t", "add view public.t"]);
}

#[tokio::test]
async fn an_answer_takes_either_side() {
    let base = "CREATE TABLE public.a (id int, v int); CREATE TABLE public.b (id int); CREATE TABLE public.c (id int, v int DEFAULT 0);
        CREATE VIEW public.v AS SELECT id FROM public.a";
    let parent = "ALTER TABLE public.a ADD x int; DROP TABLE public.b; ALTER TABLE public.c ALTER v SET DEFAULT 1;
        CREATE TABLE public.new (id int, p int)";
    let branch = "DROP VIEW public.v; DROP TABLE public.a; ALTER TABLE public.b ADD y int; COMMENT ON TABLE public.b IS 'b';
        ALTER TABLE public.c ALTER v TYPE bigint; CREATE TABLE public.new (id bigint, q int)";
    let names = ["public.a", "public.b", "public.c.v", "public.new"];
    for choice in [Choice::Parent, Choice::Branch] {
        let pair = Pair::quick(base).await;
        pair.parent.psql(parent).await;
        pair.branch.psql(branch).await;
        let plan = pair.plan().await;
        assert_eq!(
            conflicts(&plan),
            [
                "table public.a",
                "table public.b",
                "table public.new",
                "column public.c.v"
            ]
        );
        let plan = pair.resolve(&names.map(|name| (name, choice))).await;
        assert!(
            plan.is_clean(),
            "{:?} {:?}",
            plan.conflicts,
            plan.needs_migration
        );
        assert_eq!(plan.unused_resolutions, Vec::<String>::new());
        match choice {
            Choice::Parent => assert_eq!(changes(&plan), ["drop view public.v"]),
            Choice::Branch => {
                pair.apply(&plan).await;
                let left = pair.plan().await;
                assert!(left.is_empty(), "{}", left.rendered_sql());
            }
        }
    }
}

#[tokio::test]
async fn an_answer_is_checked_again() {
    let pair = Pair::quick("CREATE TABLE public.t (a int, b int)").await;
    pair.parent.psql("ALTER TABLE public.t DROP a").await;
    pair.branch.psql("CREATE VIEW public.v AS SELECT a FROM public.t; CREATE VIEW public.w AS SELECT a FROM public.v").await;
    assert_eq!(conflicts(&pair.plan().await), ["view public.v"]);
    // There is no form of the branch that the parent could take.
    let plan = pair.resolve(&[("public.v", Choice::Branch)]).await;
    assert_eq!(conflicts(&plan), ["view public.v"]);
    let plan = pair
        .resolve(&[("public.v", Choice::Parent), ("public.x", Choice::Parent)])
        .await;
    assert_eq!(conflicts(&plan), ["view public.w"]);
    assert_eq!(plan.unused_resolutions, ["public.x"]);
}
