//! Renames, told by ids: rows stay, what mentions the old name follows, and only the rename is a change.

use cp_merge::Choice;

use crate::merging::{Pair, changes, conflicts};

fn renames(plan: &cp_merge::MergePlan) -> Vec<String> {
    plan.renames
        .iter()
        .map(|rename| format!("{} {} -> {}", rename.kind, rename.from, rename.to))
        .collect()
}

const SHOP: &str = "
    CREATE TYPE public.mood AS ENUM ('sad', 'ok');
    CREATE TYPE public.pt AS (x int, y int);
    CREATE TABLE public.customers (id serial PRIMARY KEY, mail text NOT NULL CHECK (mail LIKE '%@%'), m public.mood DEFAULT 'ok',
      kind varchar(9) CHECK (kind IN ('a', 'b')));
    CREATE INDEX customers_mail ON public.customers (lower(mail));
    CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES public.customers (id));
    CREATE VIEW public.addresses AS SELECT id, mail, m = 'ok'::public.mood AS fine FROM public.customers WHERE mail <> '';
    CREATE VIEW public.shouting AS SELECT upper(mail) AS mail FROM public.addresses;
    ALTER TABLE public.customers ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON public.customers USING (mail = current_user);
    CREATE FUNCTION public.mood_of(m public.mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x' $$;
    GRANT SELECT ON public.customers TO anon;
    GRANT SELECT (mail) ON public.customers TO authenticated;
    COMMENT ON COLUMN public.customers.mail IS 'login';
    INSERT INTO public.customers (mail) VALUES ('a@x'), ('b@x');";

#[tokio::test]
async fn a_table_with_all_that_mentions_it() {
    let pair = Pair::new(SHOP).await;
    pair.branch.psql("ALTER TABLE public.customers RENAME TO people; ALTER TABLE public.people ADD COLUMN age int").await;
    pair.parent.psql("CREATE VIEW public.pv AS SELECT mail FROM public.customers; CREATE INDEX px ON public.customers (kind)").await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "modify table public.customers",
            "add column public.customers.age"
        ]
    );
    assert_eq!(renames(&plan), ["table customers -> people"]);
    assert_eq!(
        pair.parent.psql("SELECT count(*) FROM public.people").await,
        "2"
    );
}

/// Texts of the parent that were never parsed again differ from those in a scratch database, renamed or not.
#[tokio::test]
async fn a_column_under_a_view_of_the_parents_own_form() {
    let pair = Pair::new(SHOP).await;
    pair.branch
        .psql("ALTER TABLE public.customers RENAME mail TO email")
        .await;
    pair.parent
        .psql("CREATE VIEW public.pv AS SELECT mail FROM public.customers WHERE kind IN ('a', 'b')")
        .await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["modify column public.customers.mail"]);
}

#[tokio::test]
async fn a_column_under_views_policies_and_indexes() {
    let pair = Pair::new(SHOP).await;
    pair.branch
        .psql("ALTER TABLE public.customers RENAME mail TO email")
        .await;
    pair.parent.psql("CREATE VIEW public.pv AS SELECT mail FROM public.customers; ALTER TABLE public.customers ADD CHECK (mail <> 'x')").await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["modify column public.customers.mail"]);
    assert_eq!(
        pair.parent
            .psql("SELECT email FROM public.customers ORDER BY 1 LIMIT 1")
            .await,
        "a@x"
    );
}

#[tokio::test]
async fn renamed_by_the_parent_and_used_by_the_branch() {
    let pair = Pair::new(SHOP).await;
    pair.parent.psql("ALTER TABLE public.customers RENAME mail TO email; ALTER TABLE public.orders RENAME TO purchases").await;
    pair.branch
        .psql(
            "CREATE VIEW public.bv AS SELECT mail FROM public.customers;
        CREATE INDEX bx ON public.customers (mail); ALTER TABLE public.orders ADD COLUMN note text;
        ALTER TABLE public.customers ALTER mail SET DEFAULT 'n@n'",
        )
        .await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "modify column public.customers.mail",
            "add column public.orders.note",
            "add index public.bx",
            "add view public.bv"
        ]
    );
    assert_eq!(
        pair.parent
            .psql("SELECT mail FROM public.bv ORDER BY 1 LIMIT 1")
            .await,
        "a@x"
    );
    assert_eq!(
        pair.parent
            .psql("SELECT count(note) FROM public.purchases")
            .await,
        "0"
    );
}

#[tokio::test]
async fn types_labels_and_attributes() {
    let pair = Pair::new(SHOP).await;
    pair.branch.psql("ALTER TYPE public.mood RENAME TO feeling; ALTER TYPE public.feeling RENAME VALUE 'ok' TO 'fine';
        ALTER TYPE public.pt RENAME ATTRIBUTE x TO px").await;
    pair.parent.psql("ALTER TYPE public.mood ADD VALUE 'great'; ALTER TABLE public.orders ADD COLUMN m public.mood").await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        ["modify enum public.mood", "modify type public.pt"]
    );
    assert_eq!(
        pair.parent
            .psql("SELECT enum_range(NULL::public.feeling)")
            .await,
        "{sad,fine,great}"
    );
    assert_eq!(
        pair.parent
            .psql("SELECT m FROM public.customers LIMIT 1")
            .await,
        "fine"
    );
}

#[tokio::test]
async fn schemas_functions_constraints_and_the_rest() {
    let pair = Pair::new(
        "CREATE SCHEMA app;
         CREATE TABLE app.t (id int CONSTRAINT t_pk PRIMARY KEY, a int CONSTRAINT pos CHECK (a > 0));
         CREATE INDEX ix ON app.t (a);
         CREATE SEQUENCE app.s;
         CREATE FUNCTION app.f(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
         ALTER TABLE app.t ADD CHECK (app.f(a) = 1);
         CREATE VIEW app.v AS SELECT id, app.f(a) AS f FROM app.t;
         CREATE TABLE public.child (t int REFERENCES app.t);
         CREATE FUNCTION app.tg() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER tr BEFORE INSERT ON app.t FOR EACH ROW EXECUTE FUNCTION app.tg();
         CREATE POLICY p ON app.t USING (a > 1);",
    )
    .await;
    pair.branch.psql("ALTER SCHEMA app RENAME TO core; ALTER FUNCTION core.f(int) RENAME TO g;
        ALTER TABLE core.t RENAME CONSTRAINT pos TO positive; ALTER INDEX core.ix RENAME TO t_a; ALTER VIEW core.v RENAME TO w;
        ALTER TRIGGER tr ON core.t RENAME TO tr2; ALTER POLICY p ON core.t RENAME TO q; ALTER SEQUENCE core.s SET SCHEMA public;
        ALTER TABLE core.t RENAME CONSTRAINT t_pk TO t_key").await;
    pair.parent.psql("ALTER TABLE app.t ADD COLUMN b int DEFAULT 3; CREATE TABLE app.n (id int REFERENCES app.t)").await;
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "modify schema app",
            "modify sequence app.s",
            "modify function app.f(integer)",
            "modify constraint app.t.pos",
            "modify constraint app.t.t_pk",
            "modify index app.ix",
            "modify view app.v",
            "modify trigger app.t.tr",
            "modify policy app.t.p"
        ]
    );
}

#[tokio::test]
async fn names_that_swap() {
    let pair = Pair::quick("CREATE TABLE public.a (x int, y int); CREATE TABLE public.b (z int); INSERT INTO public.a VALUES (1, 2)").await;
    pair.branch.psql("ALTER TABLE public.a RENAME TO t; ALTER TABLE public.b RENAME TO a; ALTER TABLE public.t RENAME TO b;
        ALTER TABLE public.b RENAME x TO t; ALTER TABLE public.b RENAME y TO x; ALTER TABLE public.b RENAME t TO y").await;
    pair.merge().await;
    assert_eq!(pair.parent.psql("SELECT y, x FROM public.b").await, "1|2");
}

#[tokio::test]
async fn both_sides_rename_and_somebody_decides() {
    let pair = Pair::quick("CREATE TABLE public.u (mail text, n int); CREATE VIEW public.v AS SELECT mail FROM public.u").await;
    pair.parent
        .psql("ALTER TABLE public.u RENAME mail TO email; ALTER TABLE public.u RENAME n TO m")
        .await;
    pair.branch
        .psql("ALTER TABLE public.u RENAME mail TO address; ALTER TABLE public.u RENAME n TO m")
        .await;
    let plan = pair.plan().await;
    assert_eq!(conflicts(&plan), ["column public.u.mail"]);
    let plan = pair.resolve(&[("public.u.mail", Choice::Parent)]).await;
    assert!(
        plan.is_clean() && plan.script.statements.is_empty(),
        "{}",
        plan.rendered_sql()
    );
    let plan = pair.resolve(&[("public.u.mail", Choice::Branch)]).await;
    assert_eq!(changes(&plan), ["modify column public.u.mail"]);
    pair.apply(&plan).await;
    assert_eq!(
        pair.parent
            .psql("SELECT count(address) FROM public.u")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_name_that_is_taken() {
    let pair = Pair::quick("CREATE TABLE public.a (x int); CREATE TABLE public.c (x int)").await;
    pair.parent
        .psql("CREATE VIEW public.b AS SELECT 1 AS one; ALTER TABLE public.c RENAME TO d")
        .await;
    pair.branch
        .psql("ALTER TABLE public.a RENAME TO b; CREATE TABLE public.d (y int)")
        .await;
    let plan = pair.plan().await;
    assert_eq!(conflicts(&plan), ["table public.a", "table public.d"]);
    assert!(plan.conflicts.iter().all(|conflict| conflict.semantic));
}
