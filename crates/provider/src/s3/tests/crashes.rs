//! Puts that end in the middle, and puts that meet others.

use std::io;

use tokio::{io::AsyncWriteExt, time::sleep};

use super::{
    chaos::{Fault, Verb},
    *,
};
use crate::objects::ending_with;

impl Rig {
    /// A multipart upload that nobody ends.
    pub(super) async fn leave_upload(&self, name: &str) {
        let client = &self.objects.buckets[&REGION].client;
        let upload = client.create_multipart_upload().bucket("bucket").key(name);
        let id = upload.send().await.unwrap().upload_id.unwrap();
        let part = client.upload_part().bucket("bucket").key(name);
        let part = part.upload_id(id).part_number(1);
        part.body(content(PART, 9).into()).send().await.unwrap();
    }

    async fn until_no_data(&self) {
        for _ in 0..200 {
            if self.data().is_empty() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("left: {:?}", self.data());
    }
}

#[tokio::test]
async fn a_source_that_fails_leaves_nothing() {
    let rig = Rig::start().await;
    for size in [0, 10, PART, 5 * PART] {
        let verdict = async { Err(io::Error::other("pg_dump: exit status 1")) };
        let half = content(size, 1);
        let mut dump = ending_with(&half[..], verdict);
        let put = rig.objects.put(REGION, &key("t/dump"), &mut dump).await;
        let expected = ObjectError::Source("pg_dump: exit status 1".to_owned());
        assert_eq!(put, Err(expected), "{size}");
        assert_eq!(rig.objects.head(REGION, &key("t/dump")).await, Ok(None));
        assert_eq!(rig.data(), Vec::<PathBuf>::new());
        assert_eq!(rig.objects.buckets[&REGION].buffers.now(), 0);
    }
}

#[tokio::test]
async fn a_put_that_is_dropped_takes_its_parts_back() {
    let rig = Rig::start().await;
    let (mut write, mut read) = tokio::io::duplex(PART);
    let name = key("t/dump");
    let put = rig.objects.put(REGION, &name, &mut read);
    let feed = async {
        write.write_all(&content(5 * PART, 1)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(rig.data().len(), 1);
    };
    tokio::select! {
        put = put => panic!("{put:?}"),
        () = feed => {}
    }
    rig.until_no_data().await;
    assert_eq!(rig.abort_all().await, 0);
    assert_eq!(rig.objects.buckets[&REGION].buffers.now(), 0);
}

#[tokio::test]
async fn what_a_dead_process_left_is_aborted_by_age() {
    let rig = Rig::start().await;
    rig.leave_upload("t/1").await;
    rig.leave_upload("t/2").await;
    rig.leave_upload("u/1").await;
    let earlier = Utc::now() - TimeDelta::hours(1);
    assert_eq!(rig.objects.abort_leftovers(REGION, earlier).await, Ok(0));
    assert_eq!(rig.objects.delete_prefix(REGION, &under("t")).await, Ok(0));
    assert_eq!(rig.data().len(), 1);
    assert_eq!(rig.abort_all().await, 1);
    assert_eq!(rig.data(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_key_is_written_once() {
    let rig = Rig::start().await;
    for size in [100, 5 * PART] {
        let name = format!("t/{size}");
        let first = content(size, 1);
        let stored = rig.put(&name, &first).await.unwrap();
        for again in [100, 5 * PART] {
            let put = rig.put(&name, &content(again, 2)).await;
            assert_eq!(put, Err(ObjectError::Exists));
        }
        assert!(rig.get(&name, &stored).await.unwrap() == first);
    }
    assert_eq!(rig.abort_all().await, 0);
    assert_eq!(rig.data().len(), 2);
}

#[tokio::test]
async fn of_many_puts_under_one_key_one_wins() {
    let rig = Rig::start().await;
    let contents: Vec<_> = (0..8).map(|n| content(PART * n + 10, 1)).collect();
    let puts = contents.iter().map(|content| rig.put("t/one", content));
    let puts = futures::future::join_all(puts).await;
    let won: Vec<_> = puts.iter().filter_map(|put| put.as_ref().ok()).collect();
    assert_eq!(won.len(), 1, "{puts:?}");
    assert!(
        puts.iter()
            .filter_map(|put| put.as_ref().err())
            .all(|e| *e == ObjectError::Exists)
    );
    let got = rig.get("t/one", won[0]).await.unwrap();
    assert!(contents.contains(&got));
    assert_eq!(rig.data().len(), 1);
}

#[tokio::test]
async fn an_upload_that_is_aborted_meanwhile_fails_and_leaves_nothing() {
    let rig = Rig::start().await;
    let (mut write, mut read) = tokio::io::duplex(PART);
    let name = key("t/dump");
    let put = rig.objects.put(REGION, &name, &mut read);
    let meddle = async {
        write.write_all(&content(3 * PART, 1)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
        assert_eq!(rig.abort_all().await, 1);
        write.write_all(&content(3 * PART, 1)).await.ok();
        drop(write);
    };
    let (put, ()) = tokio::join!(put, meddle);
    assert!(matches!(put, Err(ObjectError::Transient(_))), "{put:?}");
    assert_eq!(rig.objects.head(REGION, &name).await, Ok(None));
    rig.until_no_data().await;
}

#[tokio::test]
async fn reading_with_another_record_is_refused() {
    let rig = Rig::start().await;
    let bytes = content(3 * PART, 1);
    let stored = rig.put("t/1", &bytes).await.unwrap();
    let wrong = [
        Stored {
            size: stored.size - 1,
            ..stored
        },
        Stored {
            size: stored.size + 1,
            ..stored
        },
        Stored {
            crc32: stored.crc32 ^ 1,
            ..stored
        },
    ];
    for wrong in wrong {
        let got = rig.get("t/1", &wrong).await;
        assert!(matches!(got, Err(ObjectError::Corrupt(_))), "{got:?}");
    }
}

#[tokio::test]
async fn memory_is_bounded_however_slow_the_store_is() {
    let rig = Rig::start_with(Tuning {
        headers: Duration::from_secs(2),
        attempts: 4,
        ..impatient()
    })
    .await;
    rig.chaos.strike(Verb::Part, Fault::ErrorAfter, 3);
    let bytes = content(100 * PART + 1, 1);
    rig.put("t/big", &bytes).await.unwrap();
    let buffers = &rig.objects.buckets[&REGION].buffers;
    assert!(buffers.most() <= 4 * PART, "{}", buffers.most());
    assert!(buffers.most() >= 2 * PART, "nothing was sent while it read");
    assert_eq!(buffers.now(), 0);
}

#[tokio::test]
async fn listings_of_many_pages_are_walked_to_the_end() {
    let rig = Rig::start().await;
    let names: Vec<_> = (0..35).map(|n| format!("t/{n:05}")).collect();
    for name in &names {
        rig.put(name, b"x").await.unwrap();
        rig.leave_upload(&format!("u/{name}")).await;
    }
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = rig
            .objects
            .list(REGION, &under("t"), after.as_deref())
            .await
            .unwrap();
        assert!(page.objects.len() <= 10);
        listed.extend(
            page.objects
                .into_iter()
                .map(|object| object.key.to_string()),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, names);
    assert_eq!(rig.objects.delete_prefix(REGION, &under("t")).await, Ok(35));
    assert_eq!(rig.abort_all().await, 35);
    assert_eq!(rig.abort_all().await, 0);
}

#[tokio::test]
async fn puts_cut_off_at_any_moment_are_whole_or_nothing() {
    let rig = Rig::start().await;
    let puts: Vec<_> = (0..120_u32)
        .map(|n| {
            let size = if n % 2 == 0 { 500 } else { 3 * PART };
            (format!("t/{n}"), content(size, n))
        })
        .collect();
    for ((name, bytes), after) in puts.iter().zip(0..) {
        let after = Duration::from_micros(250 * after);
        let _cut = tokio::time::timeout(after, rig.put(name, bytes)).await;
    }
    // What the server still does, and the client's aborts.
    sleep(Duration::from_millis(300)).await;
    let mut whole = 0;
    for (name, bytes) in &puts {
        let claim = Stored {
            size: bytes.len() as u64,
            crc32: crc32fast::hash(bytes),
        };
        match rig.get(name, &claim).await {
            Ok(found) => {
                assert!(found == *bytes);
                whole += 1;
            }
            Err(error) => assert_eq!(error, ObjectError::NotFound, "{name}"),
        }
    }
    assert!((1..puts.len()).contains(&whole), "{whole}");
    rig.abort_all().await;
    assert_eq!(rig.data().len(), whole);
}
