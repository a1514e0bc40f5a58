//! What `dev` prints to be tried: how a person signs in, and lines to be pasted: a project's whole
//! life, for any POSIX shell with curl.

use std::path::Path;

/// From a person's side, and from that of an application which they sign in to. The password stays
/// in its file, for the same reason as the partner's secret below.
pub(super) fn sign_in(base_url: &str, demo_file: &Path) -> String {
    let demo_file = demo_file.display();
    format!(
        "Sign in as the demo user, whose e-mail address and password are in {demo_file}:
  {base_url}/login
Or from an application's side: run the sample app, and open http://localhost:3000
  npm --prefix examples/sign-in-with-insforge install
  npm --prefix examples/sign-in-with-insforge start
"
    )
}

/// Each step is a title and lines to paste. `take` picks one value out of an answer. The demo
/// partner's secret is read from its file, so that it is in no terminal's scrollback and no log.
pub(super) fn text(demo_file: &Path) -> String {
    let demo_file = demo_file.display();
    let json = "-H 'Content-Type: application/json'";
    let secret = r#"-H "X-Partnership-Secret: $SECRET""#;
    let key = r#"-H "Authorization: Bearer $KEY""#;
    format!(
        r#"# Paste these lines into another terminal.
take() {{ grep -o "\"$1\":\"[^\"]*\"" | head -1 | cut -d'"' -f4; }}
DEMO=$(tr -d ' \n' < '{demo_file}')
API=$(echo "$DEMO" | take base_url)/partnership/v1/$(echo "$DEMO" | take id); SECRET=$(echo "$DEMO" | take secret)

# Create a project for one of your users, with a Postgres of its own.
PROJECT=$(curl -sS -X POST $API/sync-embedded-project {secret} {json} -d '{{"project_name":"tour"}}'); echo "$PROJECT"
ID=$(echo "$PROJECT" | take id); HOST=$(echo "$PROJECT" | take access_host); KEY=$(echo "$PROJECT" | take api_key)
curl -sS $API/$ID/metadata {secret}; echo

# Use it.
curl -sS $HOST/api/health; echo
curl -sS -X POST $HOST/api/database/advance/rawsql {key} {json} -d '{{"query":"create table todos (id serial primary key, title text)"}}'; echo
curl -sS -X POST $HOST/api/database/advance/rawsql {key} {json} -d '{{"query":"insert into todos (title) values ('\''try it'\'') returning *"}}'; echo

# Sign in to its backend as administrator, without a password.
CODE=$(curl -sS -X POST $API/$ID/authorization {secret} | take code)
curl -sS -X POST $HOST/api/auth/admin/sessions/exchange {json} -d "{{\"code\":\"$CODE\"}}"; echo

# Pause it, restore it: the row is still there.
curl -sS -X POST $API/$ID/pause {secret} {json} -d '{{"wait_for_completion":true}}'; echo
curl -sS -X POST $API/$ID/restore {secret} {json} -d '{{"wait_for_completion":true}}'; echo
curl -sS -X POST $HOST/api/database/advance/rawsql {key} {json} -d '{{"query":"select * from todos"}}'; echo

# Delete it.
curl -sS -X DELETE $API/$ID {secret}; echo
"#
    )
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::{Demo, DemoPartner, DemoUser};
    use super::*;

    fn demo() -> Demo {
        Demo {
            base_url: "http://127.0.0.1:9".into(),
            partner: DemoPartner {
                id: "ps_tour".into(),
                secret: "ifps_tour".into(),
            },
            user: DemoUser {
                email: String::new(),
                password: String::new(),
            },
            oauth: None,
        }
    }

    #[test]
    fn whoever_signs_in_is_told_where_and_as_whom() {
        let said = sign_in("http://127.0.0.1:9", Path::new("x/demo.json"));
        for expected in [
            "http://127.0.0.1:9/login",
            "x/demo.json",
            " install\n",
            " start\n",
        ] {
            assert!(said.contains(expected), "{expected} not in:\n{said}");
        }
        // Both commands do something in this repository.
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let package = root.join("examples/sign-in-with-insforge/package.json");
        let package = std::fs::read_to_string(package).unwrap();
        assert!(package.contains("\"start\""), "{package}");
    }

    /// Runs the tour with a curl that only repeats what it was given.
    #[test]
    fn a_shell_takes_the_lines_as_they_are_meant() {
        let stub = r#"curl() {
            case "$*" in
                *sync-embedded-project*) echo '{"success":true,"project":{"id":"p1","access_host":"http://host","api_key":"ik_1"}}' ;;
                */authorization*) echo '{"code":"c1","expires_in":600}' ;;
                *) echo "CALL $*" ;;
            esac
        }"#;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("demo.json");
        std::fs::write(&file, serde_json::to_string_pretty(&demo()).unwrap()).unwrap();
        let script = format!("set -eu\n{stub}\n{}", text(&file));
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let said = String::from_utf8(output.stdout).unwrap();
        for expected in [
            "http://127.0.0.1:9/partnership/v1/ps_tour/p1/metadata -H X-Partnership-Secret: ifps_tour",
            "http://host/api/health",
            "Authorization: Bearer ik_1",
            r#"{"query":"insert into todos (title) values ('try it') returning *"}"#,
            r#"{"code":"c1"}"#,
            r#"/p1/pause -H X-Partnership-Secret: ifps_tour -H Content-Type: application/json -d {"wait_for_completion":true}"#,
            "-X DELETE http://127.0.0.1:9/partnership/v1/ps_tour/p1",
        ] {
            assert!(said.contains(expected), "{expected} not in:\n{said}");
        }
    }
}
