//! The variables of each container (contract/project-backend.md sections 1.1 to 1.8). The server
//! gets everything that the control plane says, `AWS_INSTANCE_PROFILE_NAME` and others that the
//! release's own compose files pass through to nobody; the others get what they share with it.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::stack::Stack;

pub(crate) type Variables = BTreeMap<&'static str, BTreeMap<String, String>>;

/// RFC 3986's unreserved characters stay.
const IN_URL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The port of the server in its container.
const PORT: &str = "7130";

pub(crate) fn variables(stack: &Stack) -> Variables {
    BTreeMap::from([
        ("postgres", of_postgres(stack)),
        ("postgrest", of_postgrest(stack)),
        ("insforge", of_insforge(stack)),
        ("deno", of_deno(stack)),
    ])
}

fn of_postgres(stack: &Stack) -> BTreeMap<String, String> {
    named([
        ("POSTGRES_USER", stack.superuser().to_owned()),
        ("POSTGRES_PASSWORD", stack.database_password.clone()),
        ("POSTGRES_DB", stack.database().to_owned()),
        // A release's own jwt.sql reads both at the first start.
        ("JWT_SECRET", shared(stack, "JWT_SECRET")),
        ("JWT_EXP", "3600".to_owned()),
    ])
}

fn of_postgrest(stack: &Stack) -> BTreeMap<String, String> {
    named([
        ("PGRST_DB_URI", database_url(stack)),
        ("PGRST_DB_SCHEMA", "public".to_owned()),
        ("PGRST_DB_ANON_ROLE", "anon".to_owned()),
        ("PGRST_DB_CHANNEL_ENABLED", "true".to_owned()),
        ("PGRST_DB_CHANNEL", "pgrst".to_owned()),
        ("PGRST_DB_POOL", pool(stack)),
        ("PGRST_JWT_SECRET", shared(stack, "JWT_SECRET")),
    ])
}

fn of_insforge(stack: &Stack) -> BTreeMap<String, String> {
    let mut env = stack.env.clone();
    for (name, value) in [
        ("STORAGE_DIR", "/insforge-storage"),
        ("LOGS_DIR", "/insforge-logs"),
        ("DENO_RUNTIME_URL", "http://deno:7133"),
        ("POSTGREST_MAX_SOCKETS", &pool(stack)),
    ] {
        env.entry(name.to_owned())
            .or_insert_with(|| value.to_owned());
    }
    // Ours alone: in the container everything has its fixed place.
    env.remove("HOST");
    env.extend(named([
        ("PORT", PORT.to_owned()),
        ("POSTGREST_BASE_URL", "http://postgrest:3000".to_owned()),
        ("POSTGRES_USER", stack.superuser().to_owned()),
        ("DATABASE_URL", database_url(stack)),
    ]));
    env.extend(connection(stack));
    env
}

fn of_deno(stack: &Stack) -> BTreeMap<String, String> {
    let mut env = named([
        ("PORT", "7133".to_owned()),
        ("DENO_ENV", "production".to_owned()),
        ("DENO_DIR", "/deno-dir".to_owned()),
        ("POSTGREST_BASE_URL", "http://postgrest:3000".to_owned()),
        ("JWT_SECRET", shared(stack, "JWT_SECRET")),
        ("ENCRYPTION_KEY", encryption_key(stack)),
        (
            "WORKER_TIMEOUT_MS",
            stack
                .variable("WORKER_TIMEOUT_MS")
                .unwrap_or("60000")
                .to_owned(),
        ),
    ]);
    env.extend(connection(stack));
    env
}

/// What Postgres must decrypt with, too.
pub(crate) fn encryption_key(stack: &Stack) -> String {
    let own = stack.variable("ENCRYPTION_KEY");
    own.map_or_else(|| shared(stack, "JWT_SECRET"), str::to_owned)
}

fn connection(stack: &Stack) -> BTreeMap<String, String> {
    named([
        ("POSTGRES_HOST", "postgres".to_owned()),
        ("POSTGRES_PORT", "5432".to_owned()),
        ("POSTGRES_DB", stack.database().to_owned()),
        ("POSTGRES_USER", stack.superuser().to_owned()),
        ("POSTGRES_PASSWORD", stack.database_password.clone()),
    ])
}

fn database_url(stack: &Stack) -> String {
    format!(
        "postgresql://{}:{}@postgres:5432/{}",
        in_url(stack.superuser()),
        in_url(&stack.database_password),
        in_url(stack.database())
    )
}

pub(crate) fn in_url(text: &str) -> String {
    utf8_percent_encode(text, IN_URL).to_string()
}

/// One number on both sides: the server's sockets and PostgREST's connections.
fn pool(stack: &Stack) -> String {
    let own = stack.variable("POSTGREST_MAX_SOCKETS");
    own.map_or_else(|| stack.memory.postgrest_pool().to_string(), str::to_owned)
}

fn shared(stack: &Stack, name: &str) -> String {
    stack.variable(name).unwrap_or_default().to_owned()
}

fn named<const N: usize>(variables: [(&str, String); N]) -> BTreeMap<String, String> {
    variables
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

#[cfg(test)]
mod tests {
    use cp_model::ProjectId;

    use super::*;
    use crate::compose::memory::Memory;

    fn stack(env: &[(&str, &str)]) -> Stack {
        Stack {
            project_id: ProjectId::generate(),
            release: "v2.3.1".to_owned(),
            restarts: 0,
            database_password: "it's @ 100% $ecret".to_owned(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            memory: Memory(1000),
            database_only: false,
        }
    }

    #[test]
    fn the_server_gets_all_that_is_desired_and_its_place_among_the_containers() {
        let desired = [
            ("PROJECT_ID", "p-1"),
            ("AWS_INSTANCE_PROFILE_NAME", "insforge-project"),
            ("PARENT_APP_KEY", "parent"),
            ("JWT_SECRET", "j"),
            ("PORT", "1"),
            ("HOST", "127.0.0.1"),
            ("POSTGRES_HOST", "elsewhere"),
            ("POSTGREST_MAX_SOCKETS", "7"),
        ];
        let variables = variables(&stack(&desired));
        let server = &variables["insforge"];
        assert_eq!(server["AWS_INSTANCE_PROFILE_NAME"], "insforge-project");
        assert_eq!(server["PARENT_APP_KEY"], "parent");
        assert_eq!(
            (server["PORT"].as_str(), server["POSTGRES_HOST"].as_str()),
            ("7130", "postgres")
        );
        assert!(!server.contains_key("HOST"));
        assert_eq!(
            server["DATABASE_URL"],
            "postgresql://postgres:it%27s%20%40%20100%25%20%24ecret@postgres:5432/insforge"
        );
        assert_eq!(variables["postgrest"]["PGRST_DB_POOL"], "7");
        assert_eq!(variables["postgrest"]["PGRST_JWT_SECRET"], "j");
        // The identity is the server's alone.
        for other in ["postgres", "postgrest", "deno"] {
            assert!(!variables[other].contains_key("PROJECT_ID"), "{other}");
        }
    }

    #[test]
    fn without_an_encryption_key_all_three_take_the_same_other() {
        let stack = stack(&[("JWT_SECRET", "j"), ("ENCRYPTION_KEY", " ")]);
        assert_eq!(encryption_key(&stack), "j");
        assert_eq!(variables(&stack)["deno"]["ENCRYPTION_KEY"], "j");
    }
}
