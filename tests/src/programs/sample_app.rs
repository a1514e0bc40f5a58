//! examples/sign-in-with-insforge as its reader starts it: `node server.js`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::{Dev, quiet_port};
use crate::eventually;

/// Dropped, it ends.
pub struct SampleApp {
    pub url: String,
    node: Child,
}

impl SampleApp {
    /// With a client of its own, which an operator registers.
    ///
    /// # Panics
    /// When node or its packages are not installed, or it does not listen.
    pub async fn start(dev: &Dev) -> Self {
        let port = quiet_port();
        let url = format!("http://localhost:{port}");
        let redirect_uri = format!("{url}/auth/callback");
        let client = dev.relying_party(&redirect_uri, &["--confidential"]).await;
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples/sign-in-with-insforge/server.js");
        let secret = client.client_secret.expect("a confidential client");
        let node = Command::new("node")
            .arg(script)
            .current_dir(dev.home().path())
            .env("SESSION_SECRET", "a secret of this test, not of anybody")
            .env("INSFORGE_URL", dev.base_url())
            .env("INSFORGE_CLIENT_ID", client.client_id)
            .env("INSFORGE_CLIENT_SECRET", secret)
            .env("REDIRECT_URI", redirect_uri)
            .env("PORT", port.to_string())
            .env("NODE_ENV", "development")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed (scripts/setup --test)");
        let mut app = Self { url, node };
        eventually(
            "the sample app listens",
            Duration::from_secs(20),
            async || {
                let ended = app.node.try_wait().expect("a child can be asked");
                assert_eq!(
                    ended, None,
                    "the sample app ended; scripts/setup --test installs it"
                );
                tokio::net::TcpStream::connect(("localhost", port))
                    .await
                    .ok()
            },
        )
        .await;
        app
    }
}
