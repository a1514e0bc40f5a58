//! The folder's server by itself: as `dev` starts it, with parts as big as in production.

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use server::FolderServer;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::*;
use crate::ec2::permissions::Verdict;

const LOOPBACK: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1024 * 1024;

async fn start(dir: &TempDir) -> (FolderServer, S3Objects) {
    start_with(dir, Durability::Fast).await
}

async fn start_with(dir: &TempDir, durability: Durability) -> (FolderServer, S3Objects) {
    let server = FolderServer::start(dir.path(), LOOPBACK.parse().unwrap(), durability);
    let server = server.await.unwrap();
    let objects = S3Objects::new(&server.access(), buckets(), PATIENCE);
    objects.create_buckets().await.unwrap();
    (server, objects)
}

async fn read(objects: &S3Objects, name: &str, stored: &Stored) -> Result<Vec<u8>, ObjectError> {
    let pieces = objects.get(REGION, &key(name), stored).await?;
    Ok(pieces.try_collect::<Vec<_>>().await?.concat())
}

#[tokio::test]
async fn objects_outlive_the_server_and_rubbish_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (small, big) = (content(10, 1), content(17 * MIB, 2));
    let (server, objects) = start_with(&dir, Durability::Full).await;
    let mut stored = Vec::new();
    for (name, bytes) in [("t/small", &small), ("t/big", &big)] {
        stored.push(
            objects
                .put(REGION, &key(name), &mut &bytes[..])
                .await
                .unwrap(),
        );
    }
    server.stop().await;
    // What a crash would leave.
    let bucket = dir.path().join("bucket");
    std::fs::create_dir(bucket.join("data/rubbish")).unwrap();
    std::fs::write(bucket.join("data/rubbish/1"), "x").unwrap();
    std::fs::write(bucket.join("objects/1.new"), "{").unwrap();

    let (_server, objects) = start(&dir).await;
    assert!(read(&objects, "t/small", &stored[0]).await.unwrap() == small);
    assert!(read(&objects, "t/big", &stored[1]).await.unwrap() == big);
    assert_eq!(std::fs::read_dir(bucket.join("data")).unwrap().count(), 2);
    assert_eq!(
        std::fs::read_dir(bucket.join("objects")).unwrap().count(),
        2
    );
}

#[tokio::test]
async fn a_folder_has_one_server_on_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let (server, _) = start(&dir).await;
    let lock = dir.path().join("lock");
    let second = crate::local::lock::wait(&lock, Duration::from_millis(50)).await;
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    server.stop().await;
    let open_to_all =
        FolderServer::start(dir.path(), "0.0.0.0:0".parse().unwrap(), Durability::Fast);
    let open_to_all = open_to_all.await;
    assert!(open_to_all.is_err());
    start(&dir).await.0.stop().await;
}

#[tokio::test]
async fn a_presigned_url_serves_the_object_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let (server, objects) = start(&dir).await;
    let bytes = content(1000, 1);
    objects
        .put(REGION, &key("t/a.dump"), &mut &bytes[..])
        .await
        .unwrap();
    let url = |lifetime| {
        let objects = &objects;
        async move {
            let url = objects
                .presign_get(REGION, &key("t/a.dump"), lifetime)
                .await;
            url.map(|url| url.expose_secret().to_owned())
        }
    };
    let long = url(Duration::from_mins(1)).await.unwrap();
    let got = reqwest::get(&long).await.unwrap();
    assert_eq!(got.status(), StatusCode::OK);
    assert!(got.bytes().await.unwrap() == bytes);

    let other = reqwest::get(long.replace("a.dump", "b.dump"))
        .await
        .unwrap();
    assert_eq!(other.status(), StatusCode::FORBIDDEN);
    let unsigned = format!("{}/bucket/t/a.dump", server.endpoint());
    assert_eq!(
        reqwest::get(unsigned).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );

    let short = url(Duration::from_secs(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(
        reqwest::get(short).await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    for never in [Duration::ZERO, Duration::from_hours(8 * 24)] {
        assert!(matches!(url(never).await, Err(ObjectError::Permanent(_))));
    }
}

#[tokio::test]
async fn a_bit_that_flips_on_disk_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, objects) = start(&dir).await;
    let bytes = content(17 * MIB, 1);
    let stored = objects
        .put(REGION, &key("t/1"), &mut &bytes[..])
        .await
        .unwrap();
    let object = std::fs::read_dir(dir.path().join("bucket/data"))
        .unwrap()
        .next()
        .unwrap();
    let file = std::fs::read_dir(object.unwrap().path())
        .unwrap()
        .next()
        .unwrap();
    let file = file.unwrap().path();
    let mut part = std::fs::read(&file).unwrap();
    part[12345] ^= 0x10;
    std::fs::write(&file, part).unwrap();
    let got = read(&objects, "t/1", &stored).await;
    assert!(
        matches!(got, Err(ObjectError::Corrupt(_))),
        "{:?}",
        got.map(|got| got.len())
    );
}

#[tokio::test]
async fn puts_are_encrypted_at_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (server, objects) = start(&dir).await;
    let client = super::super::client(&server.access(), &buckets()[&REGION], &impatient());
    for (name, size) in [("t/small", 10), ("t/big", 17 * MIB)] {
        let bytes = content(size, 1);
        objects
            .put(REGION, &key(name), &mut &bytes[..])
            .await
            .unwrap();
        let head = client
            .head_object()
            .bucket("bucket")
            .key(name)
            .send()
            .await
            .unwrap();
        assert_eq!(head.server_side_encryption().unwrap().as_str(), "AES256");
    }
    let elsewhere = objects.list(Region::EuCentral, &under("t"), None).await;
    assert!(matches!(elsewhere, Err(ObjectError::Permanent(_))));
}

#[tokio::test]
async fn permissions_are_found_out_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (server, objects) = start(&dir).await;
    let verdicts = |objects: S3Objects| async move {
        let permissions = objects.check_permissions().await.into_iter();
        let verdicts: Vec<_> = permissions.map(|permission| permission.verdict).collect();
        assert_eq!(verdicts.len(), 6);
        verdicts
    };
    assert!(
        verdicts(objects)
            .await
            .iter()
            .all(|verdict| *verdict == Verdict::Allowed)
    );
    assert_eq!(
        std::fs::read_dir(dir.path().join("bucket/data"))
            .unwrap()
            .count(),
        0
    );
    let stranger = AwsAccess::fixed(server.endpoint(), "folder", "guessed");
    let refused = verdicts(S3Objects::new(&stranger, buckets(), PATIENCE)).await;
    let denied = refused
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::Denied(_)));
    // What was never put cannot be read.
    assert_eq!(denied.count(), 5, "{refused:?}");
    // Not the look for what became of it, which is refused, too.
    assert!(
        matches!(&refused[0], Verdict::Denied(text) if text.starts_with("PutObject: 403")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn three_hundred_megabytes_stream_through_four_parts_of_memory() {
    /// Cheap bytes that differ from part to part.
    struct Many(u64);
    impl AsyncRead for Many {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let piece = self.0.to_le_bytes().repeat(8192);
            buf.put_slice(&piece[..piece.len().min(buf.remaining())]);
            self.0 += 1;
            std::task::Poll::Ready(Ok(()))
        }
    }
    let size = 300 * MIB as u64;
    let dir = tempfile::tempdir().unwrap();
    let (_server, objects) = start(&dir).await;
    let mut source = Many(0).take(size);
    let stored = objects.put(REGION, &key("t/1"), &mut source).await.unwrap();
    assert_eq!(stored.size, size);
    let buffers = &objects.buckets[&REGION].buffers;
    assert!(buffers.most() <= 4 * 8 * MIB, "{}", buffers.most());
    assert_eq!(buffers.now(), 0);
    let mut pieces = objects.get(REGION, &key("t/1"), &stored).await.unwrap();
    let (mut got, mut biggest) = (0, 0);
    while let Some(piece) = pieces.try_next().await.unwrap() {
        got += piece.len() as u64;
        biggest = biggest.max(piece.len());
    }
    assert_eq!(got, size);
    assert!(biggest <= MIB, "{biggest}");
}
