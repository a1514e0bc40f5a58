//! The tour that `dev` prints and README shows, pasted line by line into a shell.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use cp_tests::eventually;
use cp_tests::programs::Dev;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

#[tokio::test]
async fn the_printed_tour_works_when_pasted_line_by_line() {
    // Two cores, two stories at once: the first machine may take longer than people's ten seconds.
    let dev = Dev::start_with(&[("INSFORGE_LIMITS_CREATE_WAIT", "45s")]).await;
    let tour = printed_tour(&dev);
    let mut shell = Shell::start(dev.home().path());
    let mut machine = None;
    let mut told = Vec::new();
    for line in tour.lines().filter(|line| !is_comment(line)) {
        let said = shell.paste(line).await;
        told.push((line.to_owned(), said));
        if line.starts_with("curl") && line.contains("/pause ") {
            let host = shell.paste("echo $HOST").await;
            assert_ne!(shell.paste("curl -sS $HOST/api/health").await, "");
            let refused = shell
                .paste("curl -s $HOST/api/health && echo answers || echo refused")
                .await;
            assert_eq!(refused, "refused", "the host of a paused project answers");
            machine = Some(dev.home().machine_at(&host));
        }
    }
    let answer = |part: &str, number: usize| -> Value {
        let said: Vec<&String> = told
            .iter()
            .filter(|(line, _)| line.contains(part))
            .map(|(_, said)| said)
            .collect();
        serde_json::from_str(said[number]).unwrap_or_else(|e| panic!("{part}: {e}: {said:?}"))
    };
    let row = json!([{ "id": 1, "title": "try it" }]);

    let created = answer("/sync-embedded-project", 0);
    assert_eq!(created["success"], true);
    assert_eq!(created["project"]["status"], "active");
    assert_eq!(answer("/metadata", 0)["project"]["status"], "active");
    let health = answer("/api/health", 0);
    assert_eq!(health["status"], "ok");
    let version = health["version"].as_str().unwrap_or_default();
    assert!(version.ends_with("-devbackend"), "{health}");
    assert_eq!(answer("create table", 0)["rows"], json!([]));
    assert_eq!(answer("insert into", 0)["rows"], row);
    let session = answer("/sessions/exchange", 0);
    assert!(session["accessToken"].is_string(), "{session}");
    assert_eq!(answer("/pause ", 0)["project"]["status"], "paused");
    assert_eq!(answer("/restore ", 0)["project"]["status"], "active");
    assert_eq!(answer("select * from todos", 0)["rows"], row);
    assert_eq!(
        answer("-X DELETE", 0)["message"],
        "Project deleted successfully"
    );

    let status = "curl -s -o /dev/null -w '%{http_code}\\n' $API/$ID/metadata -H \"X-Partnership-Secret: $SECRET\"";
    assert_eq!(shell.paste(status).await, "404");
    let machine = machine.expect("the project had a machine");
    eventually("the machine is gone", Duration::from_secs(10), async || {
        let gone = !machine.exists() && dev.home().processes_of(&machine).is_empty();
        gone.then_some(())
    })
    .await;
}

/// README's tour begins with the partner's secret from `demo.json`; after that both are the same.
#[tokio::test]
async fn the_tour_of_the_readme_is_the_printed_one() {
    let dev = Dev::start().await;
    let readme = readme_tour();
    let printed = printed_tour(&dev);

    let steps = |tour: &str| -> Vec<String> {
        tour.lines()
            .skip_while(|line| !line.starts_with("# Create"))
            .map(str::to_owned)
            .collect()
    };
    assert!(steps(&printed).len() > 10, "{printed}");
    assert_eq!(steps(&readme), steps(&printed));

    let mut settings = Vec::new();
    for tour in [&readme, &printed] {
        let mut shell = Shell::start(dev.home().path());
        for line in tour
            .lines()
            .take_while(|line| !line.starts_with("# Create"))
        {
            shell.paste(line).await;
        }
        let take = "echo '{\"id\":\"1\"}' | take id";
        settings.push([
            shell.paste("echo $API").await,
            shell.paste("echo $SECRET").await,
            shell.paste(take).await,
        ]);
    }
    assert_eq!(settings[0], settings[1]);
    assert_eq!(settings[0][1], dev.partner.secret);
    assert_eq!(settings[0][2], "1");
}

#[tokio::test]
async fn the_peoples_tour_of_the_readme_works_when_pasted() {
    let dev = Dev::start_with(&[("INSFORGE_LIMITS_CREATE_WAIT", "45s")]).await;
    let tour = block_of_readme("people tour");
    let mut shell = Shell::start(dev.home().path());
    let mut told = Vec::new();
    for line in tour.lines().filter(|line| !is_comment(line)) {
        told.push((line.to_owned(), shell.paste(line).await));
    }
    let answer = |part: &str| -> Value {
        let said = told.iter().find(|(line, _)| line.contains(part));
        let (line, said) = said.unwrap_or_else(|| panic!("no line with {part}"));
        serde_json::from_str(said).unwrap_or_else(|e| panic!("{line}: {e}: {said}"))
    };
    assert_eq!(answer("members/invite")["invitation"]["role"], "developer");
    let mails = std::fs::read_dir(dev.home().path().join(".insforge/mail")).unwrap();
    assert_eq!(mails.count(), 1, "the invitation");
    let members: Value = told
        .iter()
        .find(|(line, _)| line.ends_with("$ORG/members"))
        .and_then(|(_, said)| serde_json::from_str(said).ok())
        .unwrap();
    assert_eq!(members["invitations"][0]["status"], "pending");
    let id = shell.paste("echo $ID").await;
    assert_eq!(answer("metadata/project-id")["projectId"], id);
    assert_eq!(answer("-X PUT")["project"]["name"], "shop");
    assert_eq!(answer("/restart")["project"]["status"], "active");
    let used = answer("/usage/v1");
    assert_eq!(used["projects"][0]["name"], "shop");
    assert!(
        used["usage_summary"]["ec2_compute"].as_i64().unwrap() > 0,
        "{used}"
    );
    let log = answer("audit-log");
    let entries = log["entries"].as_array().unwrap();
    let restart = entries.iter().find(|e| e["action"] == "project.restarted");
    assert_eq!(
        restart.unwrap()["actor_email"],
        "demo@insforge.local",
        "{log}"
    );
    assert_eq!(
        answer("waitForCompletion=true\" -X POST -d")["backup"]["name"],
        "before-launch"
    );
    let notes = answer("select title from notes");
    assert_eq!(notes["rows"], json!([{ "title": "precious" }]));
    assert_eq!(answer("/metrics")["metrics"][0]["metric"], "cpu_usage");
    let deleted = told.last().unwrap();
    let deleted: Value = serde_json::from_str(&deleted.1).unwrap();
    assert_eq!(deleted["organizationId"], shell.paste("echo $ORG").await);
}

#[tokio::test]
async fn the_branching_tour_of_the_readme_works_when_pasted() {
    let dev = Dev::start_with(&[("INSFORGE_LIMITS_CREATE_WAIT", "45s")]).await;
    let tour = block_of_readme("branch tour");
    let mut shell = Shell::start(dev.home().path());
    let mut told = Vec::new();
    for line in tour.lines().filter(|line| !is_comment(line)) {
        told.push((line.to_owned(), shell.paste(line).await));
    }
    let answer = |part: &str| -> Value {
        let (_, said) = told
            .iter()
            .rev()
            .find(|(line, _)| line.contains(part))
            .unwrap_or_else(|| panic!("no line with {part}"));
        serde_json::from_str(said).unwrap_or_else(|e| panic!("{part}: {e}: {said}"))
    };
    let diff = answer("dryRun=true");
    let summary = &diff["summary"];
    assert_eq!(
        (&summary["added"], &summary["conflicts"]),
        (&json!(1), &json!(1)),
        "{diff}"
    );
    assert_eq!(diff["conflicts"][0]["object"], "people.name");
    assert!(diff["conflicts"][0]["hint"].is_string());
    assert_eq!(answer("resolutions")["status"], "merged");
    assert_eq!(answer("select * from coupons")["rows"], json!([]));
    let row = &answer("insert into people")["rows"][0];
    assert_eq!(
        (&row["name"], &row["phone"]),
        (&json!("nobody"), &Value::Null),
        "{row}"
    );
    assert_eq!(
        answer("/reset -X POST")["branch"]["branch_state"],
        "resetting"
    );
    assert_eq!(
        answer("branches $ID/branches")["data"],
        Value::Array(Vec::new())
    );
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

fn printed_tour(dev: &Dev) -> String {
    let said = dev.program().out();
    let (_, tour) = said
        .split_once("\n# Paste")
        .unwrap_or_else(|| panic!("dev prints no tour: {said}"));
    let (_, lines) = tour.split_once('\n').expect("the tour has lines");
    lines.trim_end().to_owned()
}

fn readme_tour() -> String {
    block_of_readme("tour")
}

/// What stands between `<!-- name -->` and `<!-- /name -->`.
fn block_of_readme(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).expect("there is a README.md");
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let block = readme
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end))
        .map_or_else(|| panic!("README.md has no {name}"), |(block, _)| block);
    let lines: Vec<&str> = block
        .lines()
        .filter(|line| !line.starts_with("```"))
        .collect();
    lines.join("\n").trim().to_owned()
}

/// A bash that lines are pasted into.
struct Shell {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(dir)
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("there is a bash");
        Self {
            stdin: child.stdin.take().expect("its input is piped"),
            lines: BufReader::new(child.stdout.take().expect("its output is piped")).lines(),
            _child: child,
        }
    }

    /// What the line says, its errors too.
    async fn paste(&mut self, line: &str) -> String {
        const END: &str = "@@ end of answer @@";
        let input = format!("exec 2>&1\n{line}\necho '{END}'\n");
        self.stdin
            .write_all(input.as_bytes())
            .await
            .expect("bash reads");
        let mut said = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_mins(3), self.lines.next_line());
            let next = next
                .await
                .unwrap_or_else(|_| panic!("no end of: {line}"))
                .expect("bash writes text");
            match next.as_deref() {
                Some(END) => return said.join("\n"),
                Some(text) => said.push(text.to_owned()),
                None => panic!("bash ended at: {line}\n{}", said.join("\n")),
            }
        }
    }
}
