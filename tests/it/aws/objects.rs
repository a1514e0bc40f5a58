//! Each verb of the store against moto: what is put comes back as it was, and nothing is left of
//! what was given up. moto looks at no checksum, ends no presigned URL and lets every upload begin
//! in 2010: how damaged bodies are refused, URLs expire and uploads are told by their age is tested
//! beside the provider, on the server of `dev`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use chrono::{TimeDelta, Utc};
use cp_model::Region;
use cp_provider::ec2::permissions::Verdict;
use cp_provider::objects::{ObjectKey, ObjectPrefix, Stored, ending_with};
use cp_provider::{ObjectError, Objects as _, S3Objects};
use cp_tests::aws::Store;
use cp_tests::programs::Home;
use cp_tests::{App, AppOptions, eventually};
use cp_worker::WorkerConfig;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use secrecy::ExposeSecret as _;
use serde_json::Value;

pub(super) const REGION: Region = Region::UsEast;
pub(super) const PART: usize = 8 * 1024 * 1024;
const SOON: Duration = Duration::from_secs(20);

pub(super) fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

pub(super) fn under(prefix: &str) -> ObjectPrefix {
    ObjectPrefix::new(prefix).unwrap()
}

/// Bytes whose parts differ: one in the wrong place is noticed.
pub(super) fn content(size: usize) -> Vec<u8> {
    // Prime, so that no part begins as another one does; repeated, so that megabytes are quick.
    let block: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(65_537).collect();
    let mut bytes = block.repeat(size / block.len() + 1);
    bytes.truncate(size);
    bytes
}

pub(super) async fn put(
    objects: &S3Objects,
    name: &str,
    bytes: &[u8],
) -> Result<Stored, ObjectError> {
    let mut source = bytes;
    objects.put(REGION, &key(name), &mut source).await
}

pub(super) async fn get(
    objects: &S3Objects,
    name: &str,
    stored: &Stored,
) -> Result<Vec<u8>, ObjectError> {
    let pieces = objects.get(REGION, &key(name), stored).await?;
    let pieces: Vec<Bytes> = pieces.try_collect().await?;
    Ok(pieces.concat())
}

/// A source that breaks off behind `bytes`.
pub(super) async fn put_half(
    objects: &S3Objects,
    name: &str,
    bytes: &[u8],
) -> Result<Stored, ObjectError> {
    let verdict = async { Err(io::Error::other("pg_dump: exit status 1")) };
    let mut source = ending_with(bytes, verdict);
    objects.put(REGION, &key(name), &mut source).await
}

#[tokio::test]
async fn objects_of_every_size_come_back_whole_and_are_encrypted_at_rest() {
    let store = Store::start(&[REGION]).await;
    let objects = store.objects();
    let sizes = [
        (0, 0),
        (1, 0),
        (PART, 0),
        (PART + 1, 2),
        (4 * PART + 100, 5),
    ];
    for (size, parts) in sizes {
        let (name, bytes) = (format!("t/{size}"), content(size));
        let before = store.chaos().calls_of("UploadPart");
        let stored = put(&objects, &name, &bytes).await.unwrap();
        assert_eq!(store.chaos().calls_of("UploadPart") - before, parts);
        assert_eq!(stored.size, size as u64);
        assert!(get(&objects, &name, &stored).await.unwrap() == bytes);
        let found = objects.head(REGION, &key(&name)).await.unwrap().unwrap();
        assert_eq!(found.size, stored.size);

        let path = format!("/{}/{name}", store.bucket());
        let seen = store.moto.s3(Method::HEAD, &path, "").await;
        let headers = seen.headers();
        assert_eq!(headers["x-amz-server-side-encryption"], "AES256", "{size}");
        // A second put under the same key changes nothing.
        let again = put(&objects, &name, b"other").await;
        assert_eq!(again, Err(ObjectError::Exists));
        assert!(get(&objects, &name, &stored).await.unwrap() == bytes);
    }
    assert!(store.moto.uploads(store.bucket()).await.is_empty());
    let nothing = Stored { size: 0, crc32: 0 };
    let missing = get(&objects, "t/never", &nothing).await;
    assert_eq!(missing, Err(ObjectError::NotFound));
    assert_eq!(objects.head(REGION, &key("t/never")).await, Ok(None));
}

#[tokio::test]
async fn a_bucket_with_a_key_of_kms_gets_objects_that_are_encrypted_with_it() {
    let mut store = Store::start(&[REGION]).await;
    let arn = "arn:aws:kms:us-east-1:123456789012:key/1";
    store.buckets.get_mut(&REGION).unwrap().kms_key = Some(arn.to_owned());
    let objects = store.objects();
    for size in [10, PART + 1] {
        let name = format!("t/{size}");
        put(&objects, &name, &content(size)).await.unwrap();
        let path = format!("/{}/{name}", store.bucket());
        let seen = store.moto.s3(Method::HEAD, &path, "").await;
        let headers = seen.headers();
        assert_eq!(headers["x-amz-server-side-encryption"], "aws:kms");
        assert_eq!(headers["x-amz-server-side-encryption-aws-kms-key-id"], arn);
    }
}

#[tokio::test]
async fn what_was_replaced_behind_our_back_is_not_handed_out_as_ours() {
    let store = Store::start(&[REGION]).await;
    let objects = store.objects();
    let stored = put(&objects, "t/dump", b"as it was").await.unwrap();
    for other in ["as it is!", "shorter", "longer than it was"] {
        let path = format!("/{}/t/dump", store.bucket());
        store.moto.s3(Method::PUT, &path, other).await;
        let got = get(&objects, "t/dump", &stored).await;
        assert!(matches!(got, Err(ObjectError::Corrupt(_))), "{got:?}");
    }
}

#[tokio::test]
async fn a_put_that_is_cut_half_way_leaves_nothing() {
    let store = Store::start(&[REGION]).await;
    let objects = store.objects();
    let half = content(2 * PART + 7);
    for size in [0, 10, half.len()] {
        let cut = put_half(&objects, "t/dump", &half[..size]).await;
        assert!(matches!(cut, Err(ObjectError::Source(_))), "{cut:?}");
        assert!(store.moto.keys(store.bucket()).await.is_empty());
        assert!(store.moto.uploads(store.bucket()).await.is_empty());
    }
    assert_eq!(store.chaos().calls_of("AbortMultipartUpload"), 1);

    // Whoever wanted it is gone.
    let (mut write, mut read) = tokio::io::duplex(PART);
    let name = key("t/dropped");
    let dropped = objects.put(REGION, &name, &mut read);
    let feed = async {
        tokio::io::AsyncWriteExt::write_all(&mut write, &half)
            .await
            .unwrap();
        eventually("an upload has begun", SOON, async || {
            let uploads = store.moto.uploads(store.bucket()).await;
            (!uploads.is_empty()).then_some(())
        })
        .await;
    };
    tokio::select! {
        put = dropped => panic!("{put:?}"),
        () = feed => {}
    }
    eventually("it was taken back", SOON, async || {
        let uploads = store.moto.uploads(store.bucket()).await;
        uploads.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn more_than_a_thousand_objects_are_listed_and_deleted_by_their_prefix() {
    const MANY: usize = 1050;
    let store = Store::start(&[REGION]).await;
    let objects = &store.objects();
    put(objects, "t10/other", b"x").await.unwrap();
    stream::iter(0..MANY)
        .for_each_concurrent(8, async |n| {
            let path = format!("/{}/t1/{n:05}", store.bucket());
            store.moto.s3(Method::PUT, &path, "x").await;
        })
        .await;
    let (mut names, mut after) = (Vec::new(), None);
    let mut pages = 0;
    loop {
        let page = objects.list(REGION, &under("t1"), after.as_deref()).await;
        let page = page.unwrap();
        pages += 1;
        names.extend(page.objects.into_iter().map(|o| o.key.to_string()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let expected: Vec<_> = (0..MANY).map(|n| format!("t1/{n:05}")).collect();
    assert_eq!((pages, names), (2, expected));

    let deleted = objects.delete_prefix(REGION, &under("t1")).await;
    assert_eq!(deleted, Ok(MANY as u64));
    assert_eq!(store.chaos().calls_of("DeleteObjects"), 2);
    assert_eq!(store.moto.keys(store.bucket()).await, ["t10/other"]);
    for _ in 0..2 {
        objects.delete(REGION, &key("t10/other")).await.unwrap();
    }
    assert!(store.moto.keys(store.bucket()).await.is_empty());
}

#[tokio::test]
async fn a_presigned_url_serves_one_object_and_says_for_how_long() {
    let store = Store::start(&[REGION]).await;
    let objects = store.objects();
    put(&objects, "t/dump", b"content").await.unwrap();
    let dump = key("t/dump");
    let url = objects.presign_get(REGION, &dump, Duration::from_mins(5));
    let url = url.await.unwrap().expose_secret().to_owned();
    assert!(url.contains("X-Amz-Expires=300"), "{url}");
    assert!(url.contains("X-Amz-Signature="), "{url}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let got = http.get(&url).send().await.unwrap();
    assert_eq!(got.bytes().await.unwrap(), "content");
}

#[tokio::test]
async fn permissions_are_found_out_one_by_one() {
    let mut store = Store::start(&[REGION]).await;
    let asked = async |store: &Store| -> Vec<_> {
        let permissions = store.objects().check_permissions().await.into_iter();
        let verdicts = permissions.map(|one| (one.action, one.verdict));
        verdicts.collect()
    };
    let allowed = asked(&store).await;
    assert_eq!(allowed.len(), 6);
    assert!(
        allowed.iter().all(|(_, v)| *v == Verdict::Allowed),
        "{allowed:?}"
    );
    assert!(store.moto.keys(store.bucket()).await.is_empty());
    assert!(store.moto.uploads(store.bucket()).await.is_empty());

    store.buckets.get_mut(&REGION).unwrap().name = "not-there".to_owned();
    for (action, verdict) in asked(&store).await {
        match verdict {
            Verdict::Denied(text) => assert!(text.contains("NoSuchBucket"), "{text}"),
            // What was never put cannot be read.
            other => assert_eq!(action, "s3:GetObject", "{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_down_leaves_the_other_alone() {
    let store = Store::start(&[Region::UsEast, Region::UsWest]).await;
    store.regions[&Region::UsWest].shut_down();
    let objects = store.objects();
    let down = async {
        for _ in 0..3 {
            let name = key("t/1");
            let put = objects.put(Region::UsWest, &name, &mut &b"x"[..]).await;
            assert!(matches!(put, Err(ObjectError::Transient(_))), "{put:?}");
        }
    };
    let up = async {
        for n in 0..20 {
            let (name, bytes) = (format!("t/{n}"), content(1000));
            let stored = put(&objects, &name, &bytes).await.unwrap();
            assert!(get(&objects, &name, &stored).await.unwrap() == bytes);
        }
    };
    tokio::join!(down, up);
    let moto = &store.moto;
    let count = async |region| moto.keys(&store.buckets[&region].name).await.len();
    assert_eq!(
        (count(Region::UsEast).await, count(Region::UsWest).await),
        (20, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_aborts_what_nobody_ended_also_while_a_region_is_down() {
    let store = Store::start(&[Region::UsEast, Region::UsWest]).await;
    let bucket = store.bucket().to_owned();
    let left = format!("/{bucket}/t/left?uploads");
    store.moto.s3(Method::POST, &left, "").await;
    store.regions[&Region::UsWest].shut_down();
    let app = App::start_with(AppOptions {
        worker: false,
        ..AppOptions::default()
    })
    .await;
    let worker = app.start_worker(WorkerConfig {
        objects: Some(Arc::new(store.objects())),
        leftovers_every: Duration::from_millis(500),
        ..app.worker_config("sweeper")
    });
    let swept = async || {
        eventually("the upload is gone", SOON, async || {
            let uploads = store.moto.uploads(&bucket).await;
            uploads.is_empty().then_some(())
        })
        .await;
    };
    swept().await;
    // And again, round for round: the failures of the other region end nothing.
    store.moto.s3(Method::POST, &left, "").await;
    swept().await;
    worker.stop().await;
}

#[tokio::test]
async fn uploads_younger_than_the_age_are_spared() {
    let store = Store::start(&[REGION]).await;
    let objects = store.objects();
    for name in ["t/left", "u/left"] {
        let path = format!("/{}/{name}?uploads", store.bucket());
        store.moto.s3(Method::POST, &path, "").await;
    }
    // moto's date, and the day after it.
    let begun = "2010-11-10T20:48:33Z".parse().unwrap();
    assert_eq!(objects.abort_leftovers(REGION, begun).await, Ok(0));
    assert_eq!(objects.delete_prefix(REGION, &under("t")).await, Ok(0));
    assert_eq!(store.moto.uploads(store.bucket()).await, ["u/left"]);
    let later = begun + TimeDelta::days(1);
    assert!(later < Utc::now());
    assert_eq!(objects.abort_leftovers(REGION, later).await, Ok(1));
    assert!(store.moto.uploads(store.bucket()).await.is_empty());
}

#[tokio::test]
async fn the_doctor_asks_for_each_right_in_each_bucket() {
    let store = Store::start(&[REGION, Region::EuCentral]).await;
    let home = Home::new();
    let buckets = |names: [&str; 2]| {
        let list = names.map(|name| {
            let region = if name.ends_with("central") {
                "eu-central"
            } else {
                "us-east"
            };
            format!(
                r#"{{region="{region}",bucket="{name}",endpoint="{}"}}"#,
                store.moto.url
            )
        });
        format!("[{}]", list.join(","))
    };
    let ask = async |buckets: &str| -> Vec<(String, String, String)> {
        let variables = [
            ("INSFORGE_OBJECTS_BUCKETS", buckets),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "hidden-word"),
        ];
        let said = home.run(&["doctor", "--aws", "--json"], &variables).await;
        assert!(!said.out.contains("hidden-word") && !said.err.contains("hidden-word"));
        let report: Value = serde_json::from_str(&said.out).expect("a report");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let checks = report["checks"].as_array().unwrap().iter();
        checks
            .map(|c| (text(&c["name"]), text(&c["verdict"]), text(&c["detail"])))
            .filter(|(name, ..)| name.starts_with("s3:"))
            .collect()
    };
    let good = ask(&buckets(["objects-us-east", "objects-eu-central"])).await;
    assert_eq!(good.len(), 12, "{good:?}");
    assert!(
        good.iter().all(|(_, verdict, _)| verdict == "ok"),
        "{good:?}"
    );
    let names: Vec<_> = good.iter().map(|(name, ..)| name.as_str()).collect();
    assert!(names.contains(&"s3:PutObject on objects-eu-central in eu-central"));

    let bad = ask(&buckets(["objects-us-east", "missing-eu-central"])).await;
    let failed = bad.iter().filter(|(_, verdict, _)| verdict == "failed");
    let failed: Vec<_> = failed.collect();
    assert_eq!(failed.len(), 5, "{bad:?}");
    for (name, _, detail) in failed {
        assert!(name.ends_with("on missing-eu-central in eu-central"));
        assert!(detail.contains("the bucket must exist"), "{detail}");
    }
}
