//! The parent's changes come to the branch, and T0 moves.

use cp_merge::{ApplyOptions, Choice, Error, RebaseError, Record, Snapshot, apply_rebase};
use proptest::prelude::*;
use uuid::Uuid;

use crate::{
    database::Database,
    dump::assert_same,
    merging::{Pair, changes, conflicts, warnings},
    product::{migration, product},
    properties::{block_on, config, dumped, edit, statements, tables},
};

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..config(
        std::env::var("CP_MERGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
    )})]

    /// The branch reads as if the parent's edits had been there first; what is left to merge is its own.
    #[test]
    fn edits_of_both_sides(theirs in statements("theirs"), ours in statements("ours")) {
        block_on(async {
            let base = tables("ours") + &tables("theirs");
            let mut pair = Pair::new(&base).await;
            let oracle = Database::empty().await;
            oracle.psql(&base).await;
            edit(&pair.parent, &theirs).await;
            edit(&pair.branch, &ours).await;
            edit(&oracle, &theirs).await;
            edit(&oracle, &ours).await;
            let direct = pair.plan().await;
            let rebase = pair.plan_rebase(&[]).await;
            assert!(rebase.plan.conflicts.is_empty(), "{}", rebase.plan.rendered_sql());
            if !rebase.is_clean() || !direct.is_clean() {
                return;
            }
            let parent = pair.parent.dump().await;
            pair.apply_rebase(&rebase).await;
            let sql = rebase.plan.rendered_sql();
            let wanted = dumped(&oracle.dump_after_round_trip().await);
            assert_same(&dumped(&pair.branch.dump_after_round_trip().await), &wanted, &sql);
            assert_eq!(pair.parent.dump().await, parent);

            let again = pair.plan_rebase(&[]).await;
            assert!(again.plan.is_empty(), "{}", again.plan.rendered_sql());
            let plan = pair.plan().await;
            assert_eq!(changes(&plan), changes(&direct));
            pair.merge().await;
            assert_same(&dumped(&pair.parent.dump_after_round_trip().await), &wanted, &plan.rendered_sql());
            let after = pair.plan_rebase(&[]).await;
            assert!(after.is_clean() && after.plan.script.statements.is_empty(), "{}", after.plan.rendered_sql());
        });
    }
}

const BASE: &str = "
    CREATE TYPE public.mood AS ENUM ('sad', 'ok');
    CREATE TYPE public.pt AS (x int, y int);
    CREATE TABLE public.users (id int PRIMARY KEY, mail text, kind varchar(9) CHECK (kind IN ('a', 'b')), m public.mood);
    CREATE TABLE public.notes (id int PRIMARY KEY, body text);
    CREATE VIEW public.mails AS SELECT id, mail FROM public.users WHERE kind IN ('a', 'b');
    CREATE INDEX notes_body ON public.notes (lower(body));
    GRANT SELECT ON public.users TO anon;
    INSERT INTO public.users VALUES (1, 'a@x', 'a', 'ok');";

#[tokio::test]
async fn a_conflict_stops_it_and_either_answer_ends_it() {
    let name = "public.users.mail";
    let both = async || {
        let pair = Pair::new(BASE).await;
        pair.parent.psql("ALTER TABLE public.users ALTER mail SET DEFAULT 'p'; ALTER TABLE public.users ADD COLUMN at date").await;
        pair.branch.psql("ALTER TABLE public.users ALTER mail SET DEFAULT 'b'; CREATE TABLE public.own (id int)").await;
        pair
    };
    let default = "SELECT column_default FROM information_schema.columns WHERE column_name = 'mail' AND table_name = 'users'";

    let mut pair = both().await;
    let plan = pair.plan_rebase(&[]).await;
    assert_eq!(conflicts(&plan.plan), [format!("column {name}")]);
    let conflict = &plan.diff().conflicts[0];
    assert_eq!(
        conflict.hint,
        "branch: default from none to 'b'::text; parent: default from none to 'p'::text"
    );
    assert_eq!(conflict.definitions.base.as_deref(), Some("mail text"));
    assert_eq!(
        conflict.definitions.parent.as_deref(),
        Some("mail text DEFAULT 'p'::text")
    );
    let merged = &pair.plan().await.conflicts[0];
    assert_eq!(conflict.parent_now_hash, merged.parent_now_hash);
    assert_eq!(conflict.branch_now_hash, merged.branch_now_hash);
    let keep = async |_: &Snapshot| Ok::<(), String>(());
    let options = ApplyOptions::default();
    let refused = apply_rebase(&pair.branch.options(), &plan, &options, keep).await;
    assert!(matches!(
        refused,
        Err(RebaseError::Rebase(Error::NotClean { conflicts: 1, .. }))
    ));
    assert_eq!(
        pair.branch
            .psql("SELECT count(*) FROM information_schema.columns WHERE column_name = 'at'")
            .await,
        "0"
    );

    let plan = pair.plan_rebase(&[(name, Choice::Branch)]).await;
    assert!(plan.plan.unused_resolutions.is_empty());
    pair.apply_rebase(&plan).await;
    assert_eq!(pair.branch.psql(default).await, "'b'::text");
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        ["add table public.own", &format!("modify column {name}")]
    );
    assert_eq!(pair.parent.psql(default).await, "'b'::text");

    let mut pair = both().await;
    let plan = pair.plan_rebase(&[(name, Choice::Parent)]).await;
    pair.apply_rebase(&plan).await;
    assert_eq!(pair.branch.psql(default).await, "'p'::text");
    assert_eq!(changes(&pair.merge().await), ["add table public.own"]);
}

#[tokio::test]
async fn what_one_side_dropped_and_the_other_changed() {
    let both = async || {
        let pair = Pair::new(BASE).await;
        pair.parent.psql("DROP TABLE public.notes").await;
        pair.branch
            .psql("ALTER TABLE public.notes ADD COLUMN at date")
            .await;
        pair
    };
    let mut pair = both().await;
    let plan = pair.plan_rebase(&[]).await;
    assert_eq!(conflicts(&plan.plan), ["table public.notes"]);
    assert_eq!(
        plan.plan.conflicts[0].hint,
        "branch: column notes.at added; parent: dropped"
    );
    let plan = pair.plan_rebase(&[("public.notes", Choice::Branch)]).await;
    pair.apply_rebase(&plan).await;
    let merged = changes(&pair.merge().await);
    assert_eq!(
        merged,
        ["add table public.notes", "add index public.notes_body"]
    );

    let mut pair = both().await;
    let plan = pair.plan_rebase(&[("public.notes", Choice::Parent)]).await;
    pair.apply_rebase(&plan).await;
    assert_eq!(
        pair.branch
            .psql("SELECT to_regclass('public.notes') IS NULL")
            .await,
        "t"
    );
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn rows_of_the_branch_may_stand_in_the_way() {
    let pair = Pair::new(BASE).await;
    pair.parent
        .psql("ALTER TABLE public.users ALTER mail SET NOT NULL")
        .await;
    pair.branch
        .psql("INSERT INTO public.users VALUES (2)")
        .await;
    let plan = pair.plan_rebase(&[]).await;
    assert_eq!(plan.plan.needs_migration[0].rows, Some(1));
    let keep = async |_: &Snapshot| Ok::<(), String>(());
    let options = ApplyOptions::default();
    let refused = apply_rebase(&pair.branch.options(), &plan, &options, keep).await;
    assert!(matches!(
        refused,
        Err(RebaseError::Rebase(Error::NotClean {
            needs_migration: 1,
            ..
        }))
    ));
}

#[tokio::test]
async fn a_base_that_cannot_be_kept_rolls_back_and_a_recorded_rebase_is_done_once() {
    let pair = product().await;
    pair.parent.psql("CREATE TABLE public.t (id int)").await;
    let plan = pair.plan_rebase(&[]).await;
    let options = ApplyOptions {
        record: Some(Record { id: Uuid::new_v4() }),
        ..ApplyOptions::default()
    };
    let branch = pair.branch.options();
    let there = "SELECT to_regclass('public.t') IS NOT NULL";

    let refused = apply_rebase(&branch, &plan, &options, async |_: &Snapshot| Err("full")).await;
    assert!(matches!(refused, Err(RebaseError::Keep("full"))));
    assert_eq!(pair.branch.psql(there).await, "f");

    let kept = std::sync::atomic::AtomicU32::new(0);
    let keep = async |_: &Snapshot| {
        kept.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok::<(), String>(())
    };
    for already in [false, true] {
        let done = apply_rebase(&branch, &plan, &options, keep).await.unwrap();
        assert_eq!(done.already, already);
    }
    assert_eq!(kept.into_inner(), 1);
    assert_eq!(pair.branch.psql(there).await, "t");
}

/// The platform runs it in a task of its own.
#[tokio::test]
async fn it_can_be_spawned() {
    let pair = Pair::quick("CREATE TABLE public.t (id int)").await;
    let plan = pair.plan_rebase(&[]).await;
    let (branch, text) = (pair.branch.options(), "kept".to_owned());
    let task = tokio::spawn(async move {
        let keep = async |base: &Snapshot| {
            tokio::task::yield_now().await;
            assert!(!base.catalog.facts.is_empty() && text == "kept");
            Ok::<(), String>(())
        };
        apply_rebase(&branch, &plan, &ApplyOptions::default(), keep)
            .await
            .is_ok()
    });
    assert!(task.await.unwrap());
}

#[tokio::test]
async fn renames_on_the_parent() {
    let mut pair = Pair::new(BASE).await;
    pair.parent
        .psql(
            "ALTER TABLE public.users RENAME TO people; ALTER TABLE public.people RENAME mail TO email;
             ALTER TYPE public.mood RENAME VALUE 'ok' TO 'fine'; ALTER TYPE public.pt RENAME ATTRIBUTE x TO a",
        )
        .await;
    pair.branch
        .psql("ALTER TABLE public.users ADD COLUMN age int; GRANT INSERT ON public.users TO authenticated; CREATE INDEX by_mail ON public.users (mail)")
        .await;
    let direct = changes(&pair.plan().await);
    pair.rebase().await;
    assert_eq!(
        pair.branch.psql("SELECT email, m FROM public.people").await,
        "a@x|fine"
    );
    assert!(pair.plan_rebase(&[]).await.plan.is_empty());
    let plan = pair.merge().await;
    assert_eq!(
        changes(&plan),
        [
            "add column public.people.age",
            "add index public.by_mail",
            "add grant public.people:authenticated"
        ]
    );
    assert_eq!(direct.len(), 3);
    assert_eq!(
        pair.parent
            .psql("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_mail'")
            .await,
        "1"
    );
}

#[tokio::test]
async fn renames_on_the_branch_stay_renames() {
    let mut pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "ALTER TABLE public.users RENAME TO people; ALTER TABLE public.people RENAME mail TO email;
             ALTER TYPE public.mood RENAME VALUE 'ok' TO 'fine'; ALTER TYPE public.pt RENAME ATTRIBUTE x TO a",
        )
        .await;
    pair.parent
        .psql(
            "ALTER TABLE public.users ADD COLUMN age int; CREATE INDEX by_mail ON public.users (mail);
             ALTER TYPE public.mood ADD VALUE 'new';
             CREATE OR REPLACE VIEW public.mails AS SELECT id, mail, kind FROM public.users WHERE kind IN ('a', 'b') AND id > 0",
        )
        .await;
    let direct = pair.plan().await;
    assert!(direct.is_clean(), "{}", direct.rendered_sql());
    pair.rebase().await;
    assert!(pair.plan_rebase(&[]).await.plan.is_empty());
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), changes(&direct));
    assert_eq!(plan.renames, direct.renames);
    assert_eq!(
        pair.parent
            .psql("SELECT email, m, age FROM public.people")
            .await,
        "a@x|fine|"
    );

    // And once more, from a base that has what was merged.
    pair.rebase().await;
    pair.parent
        .psql("ALTER TABLE public.people RENAME email TO address")
        .await;
    pair.branch
        .psql("ALTER TABLE public.people ADD COLUMN last date")
        .await;
    pair.rebase().await;
    assert_eq!(
        pair.branch.psql("SELECT address FROM public.people").await,
        "a@x"
    );
    assert_eq!(
        changes(&pair.merge().await),
        ["add column public.people.last"]
    );
}

#[tokio::test]
async fn a_branch_that_was_merged_before() {
    let mut pair = Pair::new(BASE).await;
    pair.branch
        .psql(
            "ALTER TABLE public.users ADD COLUMN age int CHECK (age IN (1, 2));
             CREATE VIEW public.kinds AS SELECT kind FROM public.users WHERE kind IN ('a', 'b');
             ALTER TABLE public.notes RENAME body TO content",
        )
        .await;
    pair.merge().await;
    pair.parent
        .psql("ALTER TABLE public.users ADD COLUMN later int")
        .await;
    pair.rebase().await;
    assert!(pair.plan().await.is_empty());
    assert!(pair.plan_rebase(&[]).await.plan.is_empty());
    pair.branch
        .psql("ALTER TABLE public.users DROP COLUMN later")
        .await;
    assert_eq!(
        changes(&pair.merge().await),
        ["drop column public.users.later"]
    );
}

#[tokio::test]
async fn configuration_comes_column_by_column() {
    let mut pair = product().await;
    pair.parent
        .psql(
            "UPDATE auth.config SET password_min_length = 12, require_number = true;
             INSERT INTO storage.buckets (name, public) VALUES ('parents', true);
             DELETE FROM storage.buckets WHERE name = 'old';
             UPDATE functions.definitions SET code = 'export 2' WHERE slug = 'hello'",
        )
        .await;
    pair.branch
        .psql(
            "UPDATE auth.config SET disable_signup = true, require_number = true;
             INSERT INTO storage.buckets (name, public) VALUES ('branchs', true);
             UPDATE functions.definitions SET description = 'mine' WHERE slug = 'hello'",
        )
        .await;
    let direct = changes(&pair.plan().await);
    let plan = pair.rebase().await;
    assert!(
        warnings(&plan.plan)[0].contains(
            "dropped on the parent; no merge deletes configuration, so the branch keeps it"
        ),
        "{:?}",
        warnings(&plan.plan)
    );
    let config = "SELECT password_min_length, disable_signup, require_number FROM auth.config";
    assert_eq!(pair.branch.psql(config).await, "12|t|t");
    assert_eq!(pair.parent.psql(config).await, "12|f|t");
    assert!(pair.plan_rebase(&[]).await.plan.is_empty());
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), direct);
    assert_eq!(
        pair.parent
            .psql("SELECT string_agg(name, ',' ORDER BY name) FROM storage.buckets")
            .await,
        "avatars,branchs,parents"
    );
    assert_eq!(
        pair.parent
            .psql("SELECT code, description FROM functions.definitions")
            .await,
        "export 2|mine"
    );
}

#[tokio::test]
async fn both_answers_to_a_conflict_of_configuration() {
    for (choice, wanted, left) in [(Choice::Parent, "1", 0), (Choice::Branch, "2", 1)] {
        let mut pair = product().await;
        for (database, n) in [(&pair.parent, 1), (&pair.branch, 2)] {
            database
                .psql(&format!("UPDATE functions.definitions SET code = '{n}'"))
                .await;
        }
        let plan = pair.plan_rebase(&[]).await;
        assert_eq!(
            conflicts(&plan.plan),
            ["edge_function functions.hello.code"]
        );
        assert!(
            plan.plan.conflicts[0]
                .hint
                .contains("is '2' on the branch and '1' on the parent")
        );
        let plan = pair.plan_rebase(&[("functions.hello.code", choice)]).await;
        pair.apply_rebase(&plan).await;
        let plan = pair.merge().await;
        assert_eq!(plan.changes.len(), left);
        assert_eq!(
            pair.parent
                .psql("SELECT code FROM functions.definitions")
                .await,
            wanted
        );
    }
}

#[tokio::test]
async fn the_parents_migrations_run_on_the_branch() {
    let mut pair = product().await;
    pair.branch
        .psql(&migration(
            "1",
            "own",
            &["CREATE TABLE own (id int PRIMARY KEY)"],
        ))
        .await;
    pair.parent
        .psql(&migration(
            "2",
            "theirs",
            &[
                "CREATE TABLE theirs (id int PRIMARY KEY)",
                "INSERT INTO theirs VALUES (7)",
            ],
        ))
        .await;
    pair.parent
        .psql(&migration(
            "3",
            "rename",
            &["ALTER TABLE theirs RENAME id TO number"],
        ))
        .await;
    let direct = changes(&pair.plan().await);
    let plan = pair.rebase().await;
    assert_eq!(
        changes(&plan.plan),
        [
            "add migration system.custom_migrations.2",
            "add migration system.custom_migrations.3"
        ]
    );
    assert_eq!(
        pair.branch.psql("SELECT number FROM public.theirs").await,
        "7"
    );
    assert!(pair.plan_rebase(&[]).await.plan.is_empty());
    assert_eq!(changes(&pair.merge().await), direct);
    assert_eq!(
        pair.parent
            .psql("SELECT string_agg(version, ',' ORDER BY version) FROM system.custom_migrations")
            .await,
        "1,2,3"
    );
}
