//! The enumeration for objects: every fault in every request of every verb, once. Each ends as if
//! nothing had happened, and the sweep finds what is left. (What comes of faults that do not end is
//! tried beside the provider, on the server of `dev`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use cp_provider::objects::Stored;
use cp_provider::{ObjectError, Objects as _, S3Objects};
use cp_tests::aws::{Fault, Store};
use reqwest::Method;
use tokio::sync::Semaphore;

use super::objects::{PART, REGION, content, get, key, put, put_half, under};

/// What the store is asked under faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    PutSmall,
    PutBig,
    /// Its source fails in the middle.
    PutHalf,
    Get,
    Head,
    List,
    Delete,
    DeletePrefix,
    AbortLeftovers,
}

/// How many cells are tried at a time: moto does one thing at a time.
const AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_survive_every_fault() {
    let big = [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
    ];
    table(&[
        (Verb::PutSmall, &["PutObject"]),
        (Verb::PutBig, &big),
        (Verb::PutHalf, &["AbortMultipartUpload"]),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_deletes_survive_every_fault() {
    let prefix = [
        "ListMultipartUploads",
        "AbortMultipartUpload",
        "ListObjectsV2",
        "DeleteObjects",
    ];
    table(&[
        (Verb::Get, &["GetObject"]),
        (Verb::Head, &["HeadObject"]),
        (Verb::List, &["ListObjectsV2"]),
        (Verb::Delete, &["DeleteObject"]),
        (Verb::DeletePrefix, &prefix),
        (Verb::AbortLeftovers, &prefix[..2]),
    ])
    .await;
}

/// Every cell of those verbs, with the requests that each makes.
async fn table(verbs: &[(Verb, &[&'static str])]) {
    let account = Arc::new(Store::start(&[]).await);
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut cells = Vec::new();
    for (verb, actions) in verbs.iter().copied() {
        for action in actions.iter().copied() {
            for fault in Fault::OF_OBJECTS {
                let (account, room) = (account.clone(), room.clone());
                let cell = tokio::spawn(async move {
                    // Who waits for an answer that never comes is in nobody's way.
                    let _room = match fault {
                        Fault::Stall => None,
                        _ => Some(room.acquire().await.unwrap()),
                    };
                    cell(&account, verb, action, fault).await
                });
                cells.push((verb, action, fault, cell));
            }
        }
    }
    let mut table: BTreeMap<(Verb, &str), Vec<String>> = BTreeMap::new();
    for (verb, action, fault, cell) in cells {
        let outcome = cell.await;
        let outcome = outcome.unwrap_or_else(|e| panic!("{verb:?} {action} {fault:?}: {e}"));
        let row = table.entry((verb, action)).or_default();
        row.push(format!("{fault:?}={outcome}"));
    }
    println!("verb            request                  fault=outcome");
    for ((verb, action), row) in &table {
        assert_eq!(row.len(), Fault::OF_OBJECTS.len());
        println!("{:<15} {action:<24} {}", format!("{verb:?}"), row.join(" "));
    }
}

/// In a bucket of its own. Answers `ok`, or `swept` where the sweep had something to do.
async fn cell(account: &Store, verb: Verb, action: &'static str, fault: Fault) -> &'static str {
    let what = format!("{verb:?} {action} {fault:?}");
    let name = what.to_lowercase().replace(' ', "-");
    let store = account.beside(&name, &[REGION]).await;
    let (objects, bucket) = (store.objects(), store.bucket());
    let before = prepare(&store, &objects, verb).await;
    store.chaos().fail_next(action, fault);
    act(&objects, verb, before.as_ref(), &what).await;
    assert_eq!(store.chaos().faults(), 1, "{what}: nothing failed");

    let keys = store.moto.keys(bucket).await;
    let expected: &[&str] = match verb {
        Verb::PutSmall | Verb::PutBig => &["t/new"],
        Verb::Get | Verb::Head | Verb::List => &["t/old", "t/old2"],
        Verb::Delete => &["t/old2"],
        Verb::PutHalf | Verb::DeletePrefix | Verb::AbortLeftovers => &[],
    };
    assert_eq!(keys, expected, "{what}");

    // An upload that nobody was told of, since the answer to its beginning was lost.
    let may_be_left = action == "CreateMultipartUpload";
    let left = store.moto.uploads(bucket).await.len();
    assert!(left <= usize::from(may_be_left), "{what}: {left} are left");
    let swept = objects.abort_leftovers(REGION, Utc::now()).await;
    assert_eq!(swept, Ok(left as u64), "{what}");
    assert!(store.moto.uploads(bucket).await.is_empty(), "{what}");
    if left == 0 { "ok" } else { "swept" }
}

/// What is there before.
async fn prepare(store: &Store, objects: &S3Objects, verb: Verb) -> Option<Stored> {
    if matches!(verb, Verb::DeletePrefix | Verb::AbortLeftovers) {
        let left = format!("/{}/t/left?uploads", store.bucket());
        store.moto.s3(Method::POST, &left, "").await;
    }
    let writes = matches!(verb, Verb::PutSmall | Verb::PutBig | Verb::PutHalf);
    if writes || verb == Verb::AbortLeftovers {
        return None;
    }
    put(objects, "t/old2", b"x").await.unwrap();
    Some(put(objects, "t/old", &content(100_000)).await.unwrap())
}

/// Does it, and checks that what was answered is true.
async fn act(objects: &S3Objects, verb: Verb, before: Option<&Stored>, what: &str) {
    let old = key("t/old");
    match verb {
        Verb::PutSmall | Verb::PutBig => {
            let size = if verb == Verb::PutBig { PART + 1 } else { 100 };
            let bytes = content(size);
            let stored = put(objects, "t/new", &bytes).await;
            let stored = stored.unwrap_or_else(|e| panic!("{what}: {e}"));
            let got = get(objects, "t/new", &stored).await;
            let got = got.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(got == bytes, "{what}");
        }
        Verb::PutHalf => {
            let cut = put_half(objects, "t/new", &content(PART + 1)).await;
            assert!(
                matches!(cut, Err(ObjectError::Source(_))),
                "{what}: {cut:?}"
            );
        }
        Verb::Get => {
            let got = get(objects, "t/old", before.unwrap()).await;
            let got = got.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(got == content(100_000), "{what}");
        }
        Verb::Head => {
            let found = objects.head(REGION, &old).await;
            assert_eq!(found.unwrap().unwrap().size, 100_000, "{what}");
        }
        Verb::List => {
            let page = objects.list(REGION, &under("t"), None).await.unwrap();
            let names: Vec<_> = page.objects.iter().map(|o| o.key.as_str()).collect();
            assert_eq!(
                (names, page.next),
                (vec!["t/old", "t/old2"], None),
                "{what}"
            );
        }
        Verb::Delete => assert_eq!(objects.delete(REGION, &old).await, Ok(()), "{what}"),
        // A lost answer hides how many there were.
        Verb::DeletePrefix => {
            let deleted = objects.delete_prefix(REGION, &under("t")).await;
            assert!(
                deleted.as_ref().is_ok_and(|n| *n <= 2),
                "{what}: {deleted:?}"
            );
        }
        Verb::AbortLeftovers => {
            let aborted = objects.abort_leftovers(REGION, Utc::now()).await;
            assert!(
                aborted.as_ref().is_ok_and(|n| *n <= 1),
                "{what}: {aborted:?}"
            );
        }
    }
}
