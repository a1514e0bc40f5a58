//! Machines that run somebody's own program: the way to the real server from a checkout.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use cp_tests::eventually;
use cp_tests::programs::{Backend, Dev, Home, NO_POOL, kill};

/// The least that a backend must do: `contract/project-backend.md`, health and project id.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import http.server, json, os

KEYS = "Bearer " + os.environ["ACCESS_API_KEY"]
assert os.environ["DATABASE_URL"].startswith("postgres")

class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/api/health":
            self.answer(200, {"status": "ok", "service": "ours", "version": "0.0.1-ours"})
        elif self.headers.get("Authorization") != KEYS:
            self.answer(401, {"error": "no"})
        elif self.path == "/api/metadata/project-id":
            self.answer(200, {"projectId": os.environ["PROJECT_ID"]})
        else:
            self.answer(404, {"error": "no"})

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

address = (os.environ["HOST"], int(os.environ["PORT"]))
http.server.ThreadingHTTPServer(address, Backend).serve_forever()
"#;

#[tokio::test]
async fn any_program_with_the_contract_of_a_backend_serves_a_project() {
    let home = Home::new();
    let program = home.path().join("own-backend");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap();
    let runtime = ("INSFORGE_LOCAL_BACKEND_COMMAND", program);
    let dev = Dev::start_in(home, &[NO_POOL, runtime]).await;

    let shop = dev.create("own").await;
    assert_eq!(version(&shop).await.as_deref(), Some("0.0.1-ours"));
    let machine = dev.home().machine_at(&shop.host);
    let find = || {
        let processes = dev.home().processes_of(&machine);
        let own = processes
            .into_iter()
            .filter(|p| p.command.contains(program));
        own.map(|p| p.pid).collect::<Vec<_>>()
    };
    let before = find();
    assert_eq!(before.len(), 1);

    kill(before[0]);
    eventually("it runs again", Duration::from_secs(20), async || {
        let answers = version(&shop).await.is_some();
        (answers && find() != before).then_some(())
    })
    .await;
    dev.partner.pause(&shop.id).await.expect(200);
    assert!(!shop.answers().await);
    dev.partner.restore(&shop.id).await.expect(200);
    assert!(version(&shop).await.is_some());
    dev.partner.delete_project(&shop.id).await.expect(200);
    eventually("nothing is left", Duration::from_secs(20), async || {
        (find().is_empty() && !machine.exists()).then_some(())
    })
    .await;
}

async fn version(backend: &Backend) -> Option<String> {
    let health = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = health.get(format!("{}/api/health", backend.host)).send();
    let body: serde_json::Value = answer.await.ok()?.json().await.ok()?;
    Some(body["version"].as_str()?.to_owned())
}
