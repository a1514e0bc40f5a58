//! Running the client programs: how they get the password, and what may be repeated of what they say.

use std::{
    env,
    path::Path,
    process::{ExitStatus, Stdio},
};

use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::{database::Database, error::Error};

/// How much of a program's complaints is kept.
const TAIL_BYTES: usize = 16 * 1024;

/// How much of it an error carries.
const SAID_CHARS: usize = 600;

/// A program that speaks to `database`. Ends when this is dropped.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    complaints: JoinHandle<Vec<u8>>,
    password: SecretString,
}

impl Process {
    /// Starts it. The caller says what becomes of standard input and output.
    pub(crate) fn start(
        name: &'static str,
        path: &Path,
        database: &Database,
        with: impl FnOnce(&mut Command),
    ) -> Result<Self, Error> {
        let mut command = Command::new(path);
        // Variables of libpq that we were started with would lead elsewhere.
        for (variable, _) in env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(variable);
            }
        }
        command
            .arg("--no-password")
            .arg(format!("--dbname={}", database.conninfo()))
            .env("PGPASSWORD", database.password.expose_secret())
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        with(&mut command);
        let mut child = command.spawn().map_err(|source| Error::Run {
            program: name,
            source,
        })?;
        // Read all the time: a full pipe would stop the program.
        let complaints = tokio::spawn(tail_of(child.stderr.take()));
        Ok(Self {
            name,
            child,
            complaints,
            password: database.password.clone(),
        })
    }

    /// Waits for its end; anything but success is an error with what it said.
    pub(crate) async fn finish(mut self) -> Result<(), Error> {
        let status = self.child.wait().await.map_err(|source| Error::Run {
            program: self.name,
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        Err(self.failure(status).await)
    }

    /// Ends it now, and waits until it is gone.
    pub(crate) async fn stop(mut self) {
        // It may be gone already, which is what is wanted.
        let _ = self.child.kill().await;
    }

    async fn failure(self, status: ExitStatus) -> Error {
        let said = self.complaints.await.unwrap_or_default();
        let said = repeatable(&String::from_utf8_lossy(&said), &self.password);
        // Without a word it was ended from outside: out of memory, a machine going down.
        let permanent = !said.is_empty() && !passes_by_itself(&said);
        Error::Program {
            program: self.name,
            said: if said.is_empty() {
                status.to_string()
            } else {
                said
            },
            permanent,
        }
    }
}

async fn tail_of(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut tail = Vec::new();
    let Some(mut pipe) = pipe else {
        return tail;
    };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        tail.extend_from_slice(&buffer[..read]);
        if tail.len() > 2 * TAIL_BYTES {
            tail.drain(..tail.len() - TAIL_BYTES);
        }
    }
    tail
}

/// The lines in which a program says what went wrong. What follows them (`DETAIL`, `CONTEXT`, `Command was`) quotes
/// rows and statements, thus users' data and sometimes their secrets.
fn repeatable(said: &str, password: &SecretString) -> String {
    let lines = said.lines().filter(|line| {
        line.starts_with("pg_dump: error: ")
            || line.starts_with("pg_restore: error: ")
            || line.starts_with("pg_dump: detail: Error message from server: ")
            || line.contains("FATAL: ")
    });
    let mut text = lines.collect::<Vec<_>>().join("; ");
    let password = password.expose_secret();
    if !password.is_empty() {
        text = text.replace(password, "***");
    }
    match text.char_indices().nth(SAID_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The programs tell no SQLSTATE, only text.
fn passes_by_itself(said: &str) -> bool {
    const PASSING: [&str; 16] = [
        "connection to server",
        "server closed the connection",
        "terminating connection",
        "no connection to the server",
        "could not receive data",
        "could not send data",
        "could not translate host name",
        "SSL SYSCALL",
        "SSL error",
        "timeout expired",
        "lock timeout",
        "deadlock detected",
        "the database system is",
        "too many clients",
        "remaining connection slots",
        "out of memory",
    ];
    const LASTING: [&str; 3] = [
        "password authentication failed",
        "does not exist",
        "no pg_hba.conf entry",
    ];
    PASSING.iter().any(|text| said.contains(text))
        && !LASTING.iter().any(|text| said.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_statements_and_passwords_are_not_repeated() {
        let said = "pg_restore: while PROCESSING TOC:\n\
            pg_restore: error: could not execute query: ERROR:  swordfish is no type\n\
            DETAIL:  Key (email)=(ann@example.com) already exists.\n\
            Command was: CREATE FUNCTION f() AS 'secret'\n\
            CONTEXT:  COPY secrets, line 1: \"secret\"\n";
        let text = repeatable(said, &SecretString::from("swordfish"));
        assert_eq!(
            text,
            "pg_restore: error: could not execute query: ERROR:  *** is no type"
        );
    }

    #[test]
    fn long_complaints_are_cut() {
        let said = format!("pg_dump: error: {}", "ä".repeat(10_000));
        let text = repeatable(&said, &SecretString::from(""));
        assert!(text.chars().count() == SAID_CHARS + 1);
    }

    #[test]
    fn a_lost_connection_passes_and_a_missing_role_stays() {
        assert!(passes_by_itself(
            "error: server closed the connection unexpectedly"
        ));
        assert!(!passes_by_itself("ERROR:  role \"reader\" does not exist"));
        assert!(!passes_by_itself(
            "connection to server failed: FATAL:  password authentication failed"
        ));
    }
}
