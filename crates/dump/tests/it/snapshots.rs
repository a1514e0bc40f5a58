//! One moment of a parent that goes on serving.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cp_dump::{Contents, Exported, How, Meter, dump, restore};
use sqlx::AssertSqlSafe;

use crate::harness::{value, with_world};

const SEEN: &str = "SELECT (SELECT count(*) || '/' || max(id) FROM public.events) || ' ' || (SELECT sum(amount) FROM public.accounts)
    || ' ' || (SELECT count(*) FROM pg_tables WHERE schemaname = 'public')";

#[tokio::test]
async fn the_archive_shows_what_the_exported_snapshot_shows() {
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        world
            .parent
            .sql(
                "CREATE TABLE accounts (id int PRIMARY KEY, amount int);
                 INSERT INTO accounts SELECT i, 100 FROM generate_series(1, 1000) i;
                 CREATE TABLE events (id bigserial PRIMARY KEY, what text);
                 CREATE TABLE bulk AS SELECT md5(i::text) FROM generate_series(1, 100000) i",
            )
            .await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = Vec::new();
        for writer in 0..3 {
            let (world, stop) = (world.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                let mut connection = world.parent.connect().await;
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let (from, to) = (round % 1000 + 1, (round * 7 + writer) % 1000 + 1);
                    let ids = [from.min(to), from.max(to)];
                    // Rows wander and new tables appear; sums stay.
                    let sql = format!(
                        "BEGIN; UPDATE public.accounts SET amount = amount - 1 WHERE id = {};
                         UPDATE public.accounts SET amount = amount + 1 WHERE id = {};
                         INSERT INTO public.events (what) VALUES ('w{writer}');
                         {}
                         COMMIT",
                        ids[0],
                        ids[1],
                        if round % 50 == 0 {
                            format!("CREATE TABLE public.new_{writer}_{round} AS SELECT 1 AS i;")
                        } else {
                            String::new()
                        }
                    );
                    let done = sqlx::raw_sql(AssertSqlSafe(sql))
                        .execute(&mut connection)
                        .await;
                    if done.is_err() {
                        // Two of them met; the next round goes on.
                        sqlx::raw_sql("ROLLBACK")
                            .execute(&mut connection)
                            .await
                            .unwrap();
                    }
                    round += 1;
                }
                round
            }));
        }
        for how in [How::NewMachine, How::InPlace, How::InPlace] {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let mut snapshot = Exported::open(&world.parent.database()).await.unwrap();
            let before = value(snapshot.connection(), SEEN).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            let archive = dump(
                &world.parent.database(),
                &world.programs,
                Contents::Branch,
                Some(snapshot.name()),
                Meter::new(),
            )
            .await
            .unwrap();
            restore(
                &world.branch.database(),
                &world.programs,
                archive,
                how,
                Meter::new(),
            )
            .await
            .unwrap();
            assert_eq!(value(snapshot.connection(), SEEN).await, before);
            snapshot.close().await.unwrap();

            assert_eq!(world.branch.value(SEEN).await, before);
            assert!(before.contains(" 100000 "), "{before}");
            assert_ne!(world.parent.value(SEEN).await, before, "the parent went on");
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            assert!(writer.await.unwrap() > 10);
        }
    })
    .await;
}
