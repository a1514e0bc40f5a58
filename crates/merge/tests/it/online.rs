//! Merges that leave indexes and proofs for after the commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cp_merge::{
    Applied, ApplyOptions, Error, Record, apply, is_recorded, script::Statement, snapshot,
    unfinished,
};
use proptest::prelude::*;
use sqlx::ConnectOptions as _;
use uuid::Uuid;

use crate::{
    dump::assert_same,
    merging::{Pair, changes, online},
    product::PRODUCT,
    properties::{block_on, config, dumped, edit, statements, tables},
};

const BASE: &str = "
    CREATE TABLE public.people (id int PRIMARY KEY, name text);
    CREATE TABLE public.orders (id int PRIMARY KEY, person int, code text, total int);
    CREATE INDEX orders_total ON public.orders (total);
    ALTER TABLE public.orders CLUSTER ON orders_total;
    INSERT INTO public.people VALUES (1, 'Ada');
    INSERT INTO public.orders SELECT i, 1, 'c' || i, i FROM generate_series(1, 100) i;";

const EDITS: &str = "
    ALTER TABLE public.orders ADD CONSTRAINT orders_person FOREIGN KEY (person) REFERENCES public.people (id) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED;
    ALTER TABLE public.orders ADD CONSTRAINT positive CHECK (total > 0);
    COMMENT ON CONSTRAINT positive ON public.orders IS 'more than nothing';
    CREATE UNIQUE INDEX \"Orders'\"\"code\" ON public.orders (code) WHERE total > 0;
    COMMENT ON INDEX public.\"Orders'\"\"code\" IS 'once';
    CREATE INDEX orders_sum ON public.orders ((total + id), person);
    ALTER INDEX public.orders_sum ALTER COLUMN 1 SET STATISTICS 300;
    ALTER TABLE public.orders CLUSTER ON orders_sum;
    CREATE TABLE public.notes (id int PRIMARY KEY, person int REFERENCES public.people (id), text text CHECK (text <> ''));
    CREATE INDEX notes_person ON public.notes (person);
    ALTER TABLE public.orders ADD COLUMN note int REFERENCES public.notes (id);
    CREATE INDEX orders_note ON public.orders (note);";

/// As `type name`.
fn finished(applied: &Applied) -> Vec<String> {
    let finished = applied.finished.iter();
    finished
        .map(|one| format!("{} {}", one.kind, one.name))
        .collect()
}

fn left(applied: &Applied) -> Vec<String> {
    let unfinished = applied.unfinished.iter();
    unfinished
        .map(|one| format!("{} {}", one.kind, one.name))
        .collect()
}

const INVALID: &str = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";

#[tokio::test]
async fn indexes_and_proofs_come_after_the_commit() {
    let pair = Pair::new(BASE).await;
    let plain = Pair::of(
        pair.parent.template_copy().await,
        pair.branch.template_copy().await,
    )
    .await;
    pair.branch.psql(EDITS).await;
    plain.branch.psql(EDITS).await;
    plain.merge().await;

    let plan = pair.plan().await;
    let applied = pair.apply_online(&plan).await;
    assert_eq!(
        finished(&applied),
        [
            "constraint public.orders.positive",
            "index public.Orders'\"code",
            "index public.orders_note",
            "index public.orders_sum",
            "constraint public.orders.orders_note_fkey",
            "constraint public.orders.orders_person",
        ]
    );
    assert_eq!(
        applied.finished[1].statement,
        "CREATE UNIQUE INDEX CONCURRENTLY \"Orders'\"\"code\" ON public.orders USING btree (code) WHERE (total > 0)"
    );
    assert!(applied.unfinished.is_empty());
    let merged = snapshot(&mut pair.parent.connect().await).await.unwrap();
    let wanted = snapshot(&mut plain.parent.connect().await).await.unwrap();
    assert_eq!(wanted.catalog.diff(&merged.catalog), []);
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn what_something_else_needs_is_done_at_once() {
    let base = "
        CREATE DOMAIN public.small AS int CHECK (VALUE < 10);
        CREATE TABLE public.a (id int PRIMARY KEY, code text NOT NULL, n int, old int);
        CREATE INDEX a_changed ON public.a (n);
        CREATE TABLE public.b (id int PRIMARY KEY, code text);
        CREATE TABLE public.heir () INHERITS (public.b);
        CREATE TABLE public.parts (id int, at date) PARTITION BY RANGE (at);
        CREATE TABLE public.part PARTITION OF public.parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        CREATE TABLE public.moves (id int PRIMARY KEY, n int);
        CREATE MATERIALIZED VIEW public.mv AS SELECT id FROM public.a;";
    let pair = Pair::new(base).await;
    pair.branch
        .psql(
            "CREATE UNIQUE INDEX a_code ON public.a (code);
             ALTER TABLE public.b ADD CONSTRAINT b_code FOREIGN KEY (code) REFERENCES public.a (code);
             CREATE UNIQUE INDEX a_identity ON public.a (id, code);
             ALTER TABLE public.a REPLICA IDENTITY USING INDEX a_identity;
             DROP INDEX public.a_changed; CREATE INDEX a_changed ON public.a (n DESC);
             CREATE INDEX a_small ON public.a (((n::public.small)::int)) WHERE n < '3'::public.small;
             ALTER TABLE public.b ADD CONSTRAINT b_ok CHECK (id > 0);
             CREATE INDEX parts_id ON public.parts (id);
             CREATE INDEX part_at ON public.part (at);
             ALTER TABLE public.part ADD CONSTRAINT part_ok CHECK (id > 0);
             ALTER TABLE public.parts ADD CONSTRAINT parts_a FOREIGN KEY (id) REFERENCES public.a (id);
             CREATE UNIQUE INDEX mv_id ON public.mv (id);
             ALTER TABLE public.a ADD CONSTRAINT a_once UNIQUE (n);
             ALTER TABLE public.moves RENAME TO moved;
             CREATE INDEX moved_n ON public.moved (n);
             ALTER TABLE public.moved ADD CONSTRAINT moved_a FOREIGN KEY (n) REFERENCES public.a (id)",
        )
        .await;
    let applied = pair.apply_online(&pair.plan().await).await;
    assert_eq!(
        finished(&applied),
        ["index public.moved_n", "constraint public.moved.moved_a",]
    );
    assert!(applied.unfinished.is_empty(), "{applied:?}");
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn what_belongs_to_a_table_that_gets_another_owner_is_done_at_once() {
    let pair =
        Pair::new("CREATE SCHEMA app; CREATE TABLE app.t (id int); INSERT INTO app.t VALUES (1)")
            .await;
    // Who may not even look into the schema.
    pair.branch
        .psql(
            "ALTER TABLE app.t OWNER TO project_admin; ALTER TABLE app.t ADD CONSTRAINT c CHECK (id > 0);
             CREATE INDEX i ON app.t (id)",
        )
        .await;
    let applied = pair.apply_online(&pair.plan().await).await;
    assert_eq!(applied.finished, []);
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn wherever_the_transaction_fails_the_parent_is_as_before() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    let before = pair.parent.dump().await;
    for at in 0..=plan.script.statements.len() {
        let mut failing = plan.clone();
        // Where the script is rehearsed there are no rows.
        failing.script.statements.insert(
            at,
            Statement {
                sql: "SELECT 1 / (count(*) - 100) FROM public.orders".to_owned(),
                serves: None,
                makes: None,
                evaluates: false,
            },
        );
        let error = apply(&pair.parent.options(), &failing, &online())
            .await
            .unwrap_err();
        assert_eq!(
            error.sqlstate().as_deref(),
            Some("22012"),
            "at {at}: {error}"
        );
    }
    assert_eq!(pair.parent.dump().await, before);
    pair.apply_online(&plan).await;
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn rows_that_came_in_between_leave_something_for_the_next_merge() {
    let pair = Pair::new(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    assert!(plan.is_clean());
    pair.parent
        .psql(
            "INSERT INTO public.orders VALUES (1001, 1, 'twice', 1), (1002, 1, 'twice', 1), (1003, 77, 'nobody', 1),
                (1004, 1, 'nothing', 0)",
        )
        .await;
    let applied = pair.apply_online(&plan).await;
    let open = [
        "constraint public.orders.positive",
        "index public.Orders'\"code",
        "constraint public.orders.orders_person",
    ];
    assert_eq!(left(&applied), open);
    assert_eq!(applied.finished.len(), 3);
    let why: Vec<&str> = applied.unfinished.iter().map(|one| &*one.why).collect();
    assert!(why[0].contains("is violated by some row"), "{why:?}");
    assert!(why[1].contains("could not create unique index"), "{why:?}");
    assert!(
        why[2].contains("violates foreign key constraint"),
        "{why:?}"
    );
    assert_eq!(pair.parent.psql(INVALID).await, "0");
    // The constraints hold for what comes.
    let refused = pair
        .parent
        .psql(
            "DO $$ BEGIN INSERT INTO public.orders VALUES (2000, 1, 'x', 0); RAISE 'not refused';
             EXCEPTION WHEN check_violation THEN RAISE NOTICE 'refused'; END $$",
        )
        .await;
    assert_eq!(refused, "");

    // As long as the rows are there, the next plan says so.
    let blocked = pair.plan().await;
    let mut needs: Vec<String> = blocked
        .needs_migration
        .iter()
        .map(|item| format!("{} {}", item.kind, item.name()))
        .collect();
    needs.sort();
    let mut wanted = open.map(str::to_owned);
    wanted.sort();
    assert_eq!(needs, wanted);
    assert!(blocked.conflicts.is_empty());
    // A rebase has nothing to say about proofs that the branch has.
    let rebase = pair.plan_rebase(&[]).await;
    assert!(rebase.plan.is_empty(), "{}", rebase.plan.rendered_sql());

    pair.parent
        .psql("DELETE FROM public.orders WHERE id > 1000")
        .await;
    let plan = pair.plan().await;
    assert_eq!(
        changes(&plan),
        [
            "modify constraint public.orders.orders_person",
            "modify constraint public.orders.positive",
            "add index public.Orders'\"code",
        ]
    );
    let applied = pair.apply_online(&plan).await;
    assert_eq!(finished(&applied), open);
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn what_is_left_can_be_done_by_a_merge_that_is_not_online() {
    let pair = Pair::new(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    pair.parent
        .psql("INSERT INTO public.orders VALUES (1001, 1, 'c1', 1), (1004, 1, 'nothing', 0)")
        .await;
    assert_eq!(pair.apply_online(&plan).await.unfinished.len(), 2);
    pair.parent
        .psql("DELETE FROM public.orders WHERE id > 1000")
        .await;
    pair.merge().await;
}

#[tokio::test]
async fn a_changed_constraint_is_proved_later_and_its_proof_can_be_left() {
    let pair = Pair::new(&format!(
        "{BASE} ALTER TABLE public.orders ADD CONSTRAINT bounds CHECK (total > -10);
         ALTER TABLE public.orders ADD CONSTRAINT old CHECK (id > 0) NOT VALID;"
    ))
    .await;
    pair.branch
        .psql(
            "ALTER TABLE public.orders DROP CONSTRAINT bounds;
             ALTER TABLE public.orders ADD CONSTRAINT bounds CHECK (total > 0);
             ALTER TABLE public.orders VALIDATE CONSTRAINT old",
        )
        .await;
    let plan = pair.plan().await;
    pair.parent
        .psql("INSERT INTO public.orders VALUES (1001, 1, 'x', -5)")
        .await;
    let applied = pair.apply_online(&plan).await;
    assert_eq!(finished(&applied), ["constraint public.orders.old"]);
    assert_eq!(left(&applied), ["constraint public.orders.bounds"]);
    pair.parent
        .psql("DELETE FROM public.orders WHERE id > 1000")
        .await;
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["modify constraint public.orders.bounds"]);
}

/// Takes four milliseconds a row.
const SLOW: &str = "
    CREATE FUNCTION public.slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN PERFORM pg_catalog.pg_sleep(0.004); RETURN i; END $$;
    CREATE TABLE public.big (id bigserial PRIMARY KEY, n int);
    INSERT INTO public.big (n) SELECT generate_series(1, 600);";

#[tokio::test(flavor = "multi_thread")]
async fn writers_go_on_while_an_index_is_built() {
    let pair = Pair::quick(SLOW).await;
    pair.branch
        .psql(
            "TRUNCATE public.big; CREATE INDEX big_slow ON public.big (public.slow(n));
             ALTER TABLE public.big ADD CONSTRAINT positive CHECK (n > 0)",
        )
        .await;
    let plan = pair.plan().await;
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (options, stop) = (pair.parent.options(), stop.clone());
        async move {
            let mut session = options.connect().await.unwrap();
            let (mut written, mut longest) = (0_u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                sqlx::raw_sql("INSERT INTO public.big (n) VALUES (1)")
                    .execute(&mut session)
                    .await
                    .unwrap();
                longest = longest.max(began.elapsed());
                written += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (written, longest)
        }
    });
    let began = Instant::now();
    let applied = pair.apply_online(&plan).await;
    let took = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let (written, longest) = writer.await.unwrap();
    println!("{written} rows, longest wait {longest:?}, merge {took:?}");
    assert_eq!(applied.finished.len(), 2, "{applied:?}");
    assert!(took > Duration::from_millis(2_400), "{took:?}");
    // Far less than the index takes.
    assert!(longest < Duration::from_millis(1_200), "{longest:?}");
    assert_eq!(
        pair.parent.psql("SELECT count(*) FROM public.big").await,
        (600 + written).to_string()
    );
    assert!(pair.plan().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_waits_for_another_is_not_in_the_way_of_its_indexes() {
    let pair = Pair::quick(SLOW).await;
    pair.branch
        .psql("TRUNCATE public.big; CREATE INDEX big_slow ON public.big (public.slow(n))")
        .await;
    let plan = pair.plan().await;
    let (one, other) = tokio::join!(pair.apply_online(&plan), async {
        while pair.parent.psql(BUILDS).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What it was planned for is committed, but the lock is still held.
        pair.try_apply(&plan).await
    });
    assert_eq!(finished(&one), ["index public.big_slow"]);
    // The index is all that there was: it is there when the lock is free, and was not when this was planned.
    assert!(matches!(other, Err(Error::Stale)), "{other:?}");
}

/// Somebody locks the table of a foreign key while an index of another table is built, and keeps it for a while.
async fn with_a_lock_held(attempts: u32) -> (Pair, Applied) {
    let pair = Pair::quick(&format!("{SLOW} {BASE}")).await;
    pair.branch
        .psql(
            "TRUNCATE public.big; CREATE INDEX big_slow ON public.big (public.slow(n));
             ALTER TABLE public.orders ADD CONSTRAINT orders_person FOREIGN KEY (person) REFERENCES public.people (id)",
        )
        .await;
    let (plan, parent) = (pair.plan().await, pair.parent.options());
    let options = ApplyOptions {
        lock_timeout: Duration::from_millis(200),
        attempts,
        ..online()
    };
    // As a worker does.
    let merge = tokio::spawn(async move { apply(&parent, &plan, &options).await.unwrap() });
    while pair.parent.psql(BUILDS).await == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut holder = pair.parent.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE public.orders IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .unwrap();
    while pair.parent.psql(BUILDS).await != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(holder);
    (pair, merge.await.unwrap())
}

#[tokio::test]
async fn a_proof_waits_out_locks_and_gives_up_in_the_end() {
    let (pair, applied) = with_a_lock_held(10).await;
    assert_eq!(applied.finished.len(), 2, "{applied:?}");
    assert!(pair.plan().await.is_empty());

    let (pair, applied) = with_a_lock_held(1).await;
    assert_eq!(finished(&applied), ["index public.big_slow"]);
    assert_eq!(left(&applied), ["constraint public.orders.orders_person"]);
    assert!(
        applied.unfinished[0].why.contains("lock timeout"),
        "{applied:?}"
    );
    pair.merge().await;
}

const BUILDS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND state = 'active'";

/// Ends the one who builds an index, while it waits for a transaction that is older.
async fn killed_while_it_builds(pair: &Pair) -> Applied {
    let plan = pair.plan().await;
    let mut older = pair.parent.connect().await;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM public.people")
        .execute(&mut older)
        .await
        .unwrap();
    let (applied, ()) = tokio::join!(pair.apply_online(&plan), async {
        while pair.parent.psql(INVALID).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        pair.parent
            .psql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                    AND query LIKE 'CREATE INDEX CONCURRENTLY%' AND state = 'active' AND pid <> pg_backend_pid()",
            )
            .await;
    });
    applied
}

#[tokio::test]
async fn what_a_crash_leaves_is_cleared_away_and_done_by_the_next_merge() {
    for again_online in [true, false] {
        let pair = Pair::new(BASE).await;
        pair.branch
            .psql("CREATE INDEX orders_code ON public.orders (code); CREATE INDEX orders_person ON public.orders (person)")
            .await;
        let applied = killed_while_it_builds(&pair).await;
        // The connection is gone for all of them.
        assert_eq!(
            left(&applied),
            ["index public.orders_code", "index public.orders_person"]
        );
        assert!(
            applied.unfinished[0]
                .why
                .contains("(and left: the invalid index public.orders_code"),
            "{applied:?}"
        );
        assert_eq!(pair.parent.psql(INVALID).await, "1");

        let plan = pair.plan().await;
        assert_eq!(
            changes(&plan),
            [
                "add index public.orders_code",
                "add index public.orders_person"
            ]
        );
        let options = ApplyOptions {
            online: again_online,
            ..ApplyOptions::default()
        };
        let applied = apply(&pair.parent.options(), &plan, &options)
            .await
            .unwrap();
        assert!(applied.unfinished.is_empty(), "{applied:?}");
        assert_eq!(pair.parent.psql(INVALID).await, "0");
        assert!(pair.plan().await.is_empty());
    }
}

#[tokio::test]
async fn a_recorded_merge_finishes_what_it_left_and_no_more() {
    let pair = Pair::new(&format!("{PRODUCT} {BASE}")).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    pair.parent
        .psql("INSERT INTO public.orders VALUES (1001, 1, 'c1', 1)")
        .await;
    let id = Uuid::new_v4();
    let options = ApplyOptions {
        record: Some(Record { id }),
        ..online()
    };
    let parent = pair.parent.options();
    let applied = apply(&parent, &plan, &options).await.unwrap();
    let open = ["index public.Orders'\"code"];
    assert_eq!(left(&applied), open);
    let mut session = pair.parent.connect().await;
    assert!(is_recorded(&mut session, id).await.unwrap());
    assert_eq!(unfinished(&mut session, id).await.unwrap(), open);

    // Found done, and the row is still there.
    let applied = apply(&parent, &plan, &options).await.unwrap();
    assert!(applied.already);
    assert_eq!(left(&applied), open);
    assert_eq!(pair.parent.psql(INVALID).await, "0");

    // What the branch did since is not part of that merge.
    pair.parent
        .psql("DELETE FROM public.orders WHERE id > 1000")
        .await;
    pair.branch
        .psql("CREATE INDEX orders_later ON public.orders (id, total)")
        .await;
    let plan = pair.plan().await;
    assert_eq!(plan.changes.len(), 2);
    let applied = apply(&parent, &plan, &options).await.unwrap();
    assert!(applied.already && applied.unfinished.is_empty());
    assert_eq!(finished(&applied), open);
    assert!(unfinished(&mut session, id).await.unwrap().is_empty());
    let plan = pair.merge().await;
    assert_eq!(changes(&plan), ["add index public.orders_later"]);

    // Of a merge that was not online nothing is left.
    let id = Uuid::new_v4();
    pair.branch
        .psql("CREATE INDEX last ON public.people (name)")
        .await;
    let options = ApplyOptions {
        record: Some(Record { id }),
        ..ApplyOptions::default()
    };
    apply(&parent, &pair.plan().await, &options).await.unwrap();
    assert!(unfinished(&mut session, id).await.unwrap().is_empty());
}

#[tokio::test]
async fn migrations_come_first_and_their_rows_are_asked_about() {
    let pair = Pair::new(&format!(
        "{PRODUCT} {BASE} ALTER TABLE public.orders OWNER TO project_admin; ALTER TABLE public.people OWNER TO project_admin"
    ))
    .await;
    let mend = "UPDATE orders SET total = 1 WHERE total < 1";
    pair.branch
        .psql(&format!(
            "INSERT INTO system.custom_migrations (version, name, statements) VALUES ('1', 'mend', ARRAY[$m${mend}$m$]);
             ALTER TABLE public.orders ADD CONSTRAINT positive CHECK (total > 0);
             CREATE UNIQUE INDEX orders_code ON public.orders (code)"
        ))
        .await;
    pair.parent
        .psql("INSERT INTO public.orders VALUES (1001, 1, 'c1', 0)")
        .await;
    let plan = pair.plan().await;
    assert!(plan.is_clean());
    let refused = apply(&pair.parent.options(), &plan, &online()).await;
    assert!(
        matches!(&refused, Err(Error::RowsInTheWay(items)) if items.len() == 1 && items[0].kind == "index"),
        "{refused:?}"
    );
    pair.parent
        .psql("UPDATE public.orders SET code = 'other' WHERE id = 1001")
        .await;
    let applied = pair.apply_online(&pair.plan().await).await;
    assert_eq!(applied.finished.len(), 2, "{applied:?}");
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn expressions_run_as_the_owner() {
    let pair = Pair::new(
        "CREATE TABLE public.t (id int PRIMARY KEY, name text);
         CREATE FUNCTION public.careful(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
             IF (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN
                 RAISE 'run as a superuser';
             END IF;
             RETURN i; END $$;
         INSERT INTO public.t VALUES (1, 'a'), (2, 'b');
         ALTER TABLE public.t OWNER TO project_admin;",
    )
    .await;
    pair.branch
        .psql(
            "DELETE FROM public.t;
             CREATE INDEX t_careful ON public.t (public.careful(id)) WHERE public.careful(id) > 0;
             ALTER TABLE public.t ADD CONSTRAINT c CHECK (public.careful(id) > 0)",
        )
        .await;
    let applied = pair.apply_online(&pair.plan().await).await;
    assert_eq!(
        finished(&applied),
        ["constraint public.t.c", "index public.t_careful"]
    );
    assert!(pair.plan().await.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20, ..config(
        std::env::var("CP_MERGE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
    )})]

    /// Whatever is merged online ends as it would otherwise.
    #[test]
    fn online_or_not_the_end_is_the_same(edits in statements("app")) {
        block_on(async {
            let pair = Pair::new(&tables("app")).await;
            edit(&pair.branch, &edits).await;
            let plan = pair.plan().await;
            if !plan.is_clean() {
                return;
            }
            let applied = pair.apply_online(&plan).await;
            assert!(applied.unfinished.is_empty(), "{applied:?}\n{}", plan.rendered_sql());
            assert!(pair.plan().await.is_empty(), "{}", plan.rendered_sql());
            let (merged, wanted) = (pair.parent.dump_after_round_trip().await, pair.branch.dump_after_round_trip().await);
            assert_same(&dumped(&merged), &dumped(&wanted), &plan.rendered_sql());
        });
    }
}
