//! Encrypted connections, ours (rustls) and the programs' (libpq), mean the same by each mode.

use std::{os::unix::fs::PermissionsExt, path::Path};

use cp_dump::{Contents, Database, Error, Meter, Tls, dump};
use futures::TryStreamExt;
use tokio::process::Command;

use crate::harness::{World, with_world};

#[tokio::test]
async fn a_server_must_be_who_it_says_where_that_is_asked_for() {
    if Command::new("openssl")
        .arg("version")
        .output()
        .await
        .is_err()
    {
        println!("skipped: no openssl to make a certificate with");
        return;
    }
    with_world(|world| async move {
        world.parent.create_database("insforge").await;
        let mut database = world.parent.database();
        database.tls = Tls::Require;
        assert!(
            attempt(&world, &database).await.is_err(),
            "it has no certificate"
        );

        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        make_certificates(folder.path(), world.parent.cluster.dir()).await;
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key) = (file("server.pem"), file("server.key"));
        let settings = [
            ("ssl", "on"),
            ("ssl_cert_file", certificate.as_str()),
            ("ssl_key_file", key.as_str()),
        ];
        world.parent.restart(&settings).await;

        let verified = |authorities: &str| Tls::VerifyFull {
            authorities: folder.path().join(authorities),
        };
        for tls in [Tls::Disable, Tls::Prefer, Tls::Require, verified("ca.pem")] {
            database.tls = tls.clone();
            attempt(&world, &database)
                .await
                .unwrap_or_else(|error| panic!("{tls:?}: {error}"));
        }
        database.tls = verified("other.pem");
        assert!(
            attempt(&world, &database).await.is_err(),
            "nobody we know vouches for it"
        );
    })
    .await;
}

async fn attempt(world: &World, database: &Database) -> Result<(), Error> {
    let archive = dump(
        database,
        &world.programs,
        Contents::Everything,
        None,
        Meter::new(),
    )
    .await?;
    archive.try_collect::<Vec<_>>().await.unwrap();
    Ok(())
}

/// Two authorities, and a certificate for 127.0.0.1 by the first; its key belongs to whom `owner` belongs to.
async fn make_certificates(folder: &Path, owner: &Path) {
    let script = format!(
        "set -e
         for name in ca other; do
             openssl req -x509 -newkey rsa:2048 -nodes -keyout $name.key -out $name.pem -subj /CN=$name -days 2
         done
         openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server
         printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile extensions
         chmod 600 server.key
         chown --reference='{}' server.key",
        owner.display()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(folder)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
