//! All or nothing, beside others who use the parent.

use std::time::{Duration, Instant};

use cp_merge::{ApplyOptions, Error, apply, script::Statement};

use crate::merging::{Pair, changes};

const BASE: &str = "
    CREATE TABLE public.accounts (id int PRIMARY KEY, name text);
    CREATE VIEW public.names AS SELECT name FROM public.accounts;
    CREATE TYPE public.state AS ENUM ('new', 'done');
    INSERT INTO public.accounts SELECT i, 'n' || i FROM generate_series(1, 100) i;";

const EDITS: &str = "
    ALTER TABLE public.accounts ADD COLUMN email text NOT NULL DEFAULT '';
    CREATE TABLE public.orders (id bigserial PRIMARY KEY, account int REFERENCES public.accounts (id));
    CREATE INDEX orders_account ON public.orders (account);
    DROP VIEW public.names;
    ALTER TABLE public.accounts ALTER name TYPE varchar(80);
    CREATE VIEW public.names AS SELECT name, email FROM public.accounts;
    GRANT SELECT ON public.orders TO anon;
    COMMENT ON TABLE public.orders IS 'one row per order';";

/// Fails on the parent alone: where the script is rehearsed there are no rows.
fn bomb() -> Statement {
    Statement {
        sql: "SELECT 1 / (count(*) - 100) FROM public.accounts".to_owned(),
        serves: None,
        makes: None,
        evaluates: false,
    }
}

#[tokio::test]
async fn wherever_the_script_fails_the_parent_is_as_before() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    let before = pair.parent.dump().await;
    let statements = plan.script.statements.len();
    assert!(statements > 5);
    for at in 0..=statements {
        let mut failing = plan.clone();
        failing.script.statements.insert(at, bomb());
        let error = pair.try_apply(&failing).await.unwrap_err();
        assert_eq!(
            error.sqlstate().as_deref(),
            Some("22012"),
            "at {at}: {error}"
        );
    }
    assert_eq!(pair.parent.dump().await, before);
    pair.apply(&plan).await;
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn what_the_script_did_beyond_the_plan_is_rolled_back() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    let before = pair.parent.dump().await;
    let smuggle = |sql: &str| {
        let mut other = plan.clone();
        other.script.statements.push(Statement {
            sql: sql.to_owned(),
            serves: None,
            makes: None,
            evaluates: false,
        });
        other
    };
    // On both databases: the rehearsal sees that it is not what was merged.
    let both = smuggle("CREATE TABLE public.smuggled (id int)");
    assert!(matches!(
        pair.try_apply(&both).await,
        Err(Error::Unexpected(_))
    ));
    // On the parent alone: the proof sees it.
    let parent_only = smuggle(
        "DO $$ BEGIN IF (SELECT count(*) FROM public.accounts) > 0 THEN DROP TABLE public.orders; END IF; END $$",
    );
    assert!(matches!(
        pair.try_apply(&parent_only).await,
        Err(Error::Unexpected(_))
    ));
    assert_eq!(pair.parent.dump().await, before);
}

#[tokio::test]
async fn a_parent_that_changed_since_the_plan_is_refused() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    pair.parent
        .psql("COMMENT ON TABLE public.accounts IS 'later'")
        .await;
    assert!(matches!(pair.try_apply(&plan).await, Err(Error::Stale)));
    let plan = pair.plan().await;
    pair.apply(&plan).await;
}

#[tokio::test]
async fn rows_that_came_after_the_plan_stop_it() {
    let pair = Pair::quick("CREATE TABLE public.t (a int); INSERT INTO public.t VALUES (1);").await;
    pair.branch
        .psql("ALTER TABLE public.t ALTER a SET NOT NULL")
        .await;
    let plan = pair.plan().await;
    assert!(plan.is_clean());
    pair.parent
        .psql("INSERT INTO public.t VALUES (NULL), (NULL)")
        .await;
    let refused = pair.try_apply(&plan).await;
    assert!(
        matches!(&refused, Err(Error::RowsInTheWay(items)) if items[0].rows == Some(2)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_label_used_at_once_is_committed_first() {
    let pair = Pair::quick(BASE).await;
    pair.branch
        .psql("ALTER TYPE public.state ADD VALUE 'running' BEFORE 'done'")
        .await;
    pair.branch
        .psql("CREATE TABLE public.jobs (id int, state public.state DEFAULT 'running' CHECK (state <> 'done'))")
        .await;
    let plan = pair.merge().await;
    assert_eq!(plan.script.pre_steps.len(), 1);
    let labels = "SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum";
    assert_eq!(pair.parent.psql(labels).await, "new,running,done");
}

#[tokio::test]
async fn existing_event_triggers_do_not_fire() {
    let base = format!(
        "{BASE}
         CREATE TABLE public.ddl (tag text);
         CREATE FUNCTION public.log_ddl() RETURNS event_trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.ddl VALUES (tg_tag); END $$;
         CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION public.log_ddl();"
    );
    let pair = Pair::quick(&base).await;
    pair.branch.psql("CREATE TABLE public.more (id int)").await;
    pair.merge().await;
    assert_eq!(
        pair.parent.psql("SELECT count(*) FROM public.ddl").await,
        "0"
    );
}

fn hasty() -> ApplyOptions {
    ApplyOptions {
        lock_timeout: Duration::from_millis(200),
        ..ApplyOptions::default()
    }
}

#[tokio::test]
async fn a_lock_that_is_held_for_a_while_is_waited_out() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    let (held, release) = tokio::sync::oneshot::channel();
    let holder = async {
        let mut session = pair.parent.connect().await;
        sqlx::raw_sql("BEGIN; UPDATE public.accounts SET name = name || '!' WHERE id = 1")
            .execute(&mut session)
            .await
            .unwrap();
        held.send(()).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        sqlx::raw_sql("COMMIT").execute(&mut session).await.unwrap();
    };
    let merge = async {
        release.await.unwrap();
        apply(&pair.parent.options(), &plan, &hasty())
            .await
            .unwrap()
    };
    let ((), applied) = tokio::join!(holder, merge);
    assert!(applied.attempts > 1);
    assert!(pair.plan().await.is_empty());
    assert_eq!(
        pair.parent
            .psql("SELECT name FROM public.accounts WHERE id = 1")
            .await,
        "n1!"
    );
}

#[tokio::test]
async fn a_lock_that_is_never_released_ends_the_merge_with_nothing_done() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    let before = pair.parent.dump().await;
    let mut holder = pair.parent.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE public.accounts IN ROW EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .unwrap();
    let options = ApplyOptions {
        attempts: 3,
        ..hasty()
    };
    let error = apply(&pair.parent.options(), &plan, &options)
        .await
        .unwrap_err();
    assert_eq!(error.sqlstate().as_deref(), Some("55P03"), "{error}");
    drop(holder);
    assert_eq!(pair.parent.dump().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_lose_nothing_and_wait_no_longer_than_the_lock_timeout() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;

    // Readers and writers, one of them with long transactions that the script has to get past.
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..4 {
        let (options, stop) = (pair.parent.options(), stop.clone());
        writers.push(tokio::spawn(async move {
            use sqlx::ConnectOptions as _;
            let mut session = options.connect().await.unwrap();
            let (mut written, mut longest) = (0_i64, Duration::ZERO);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let id = 1_000_000 * (writer + 1) + written;
                let long = if writer == 0 {
                    "SELECT pg_sleep(0.15);"
                } else {
                    ""
                };
                let sql = format!(
                    "BEGIN; INSERT INTO public.accounts (id, name) VALUES ({id}, 'w');
                     SELECT count(*) FROM public.accounts; {long} COMMIT"
                );
                let began = Instant::now();
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                    .execute(&mut session)
                    .await
                    .unwrap();
                longest = longest.max(began.elapsed());
                written += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (written, longest)
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let options = ApplyOptions {
        lock_timeout: Duration::from_millis(500),
        ..ApplyOptions::default()
    };
    let applied = apply(&pair.parent.options(), &plan, &options)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);

    let (mut written, mut longest) = (0, Duration::ZERO);
    for writer in writers {
        let (rows, wait) = writer.await.unwrap();
        written += rows;
        longest = longest.max(wait);
    }
    println!(
        "{written} rows, longest wait {longest:?}, attempts {}",
        applied.attempts
    );
    assert_eq!(
        pair.parent
            .psql("SELECT count(*) FROM public.accounts")
            .await,
        (written + 100).to_string()
    );
    // The wait for the script's lock, and the script itself with its proof.
    assert!(
        longest < options.lock_timeout + Duration::from_secs(2),
        "{longest:?}"
    );
    assert!(pair.plan().await.is_empty());
}

#[tokio::test]
async fn two_merges_at_once_are_one_after_the_other() {
    let pair = Pair::quick(BASE).await;
    pair.branch.psql(EDITS).await;
    let plan = pair.plan().await;
    assert!(!changes(&plan).is_empty());
    let (one, other) = tokio::join!(pair.try_apply(&plan), pair.try_apply(&plan));
    let stale = |result: &Result<_, Error>| matches!(result, Err(Error::Stale));
    assert!(
        one.is_ok() && stale(&other) || stale(&one) && other.is_ok(),
        "{one:?}, {other:?}"
    );
    assert!(pair.plan().await.is_empty());
}
