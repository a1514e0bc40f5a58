//! Running the Postgres programs and reading what they complain about.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{error::Error, run_as::RunAs};

/// How much of a program's output an error carries.
const TAIL_BYTES: usize = 2_000;

/// A command that runs as the right user in a folder which that user may enter, with plain
/// English messages.
pub(crate) fn command(program: &Path, run_as: &RunAs, folder: &Path) -> Command {
    let mut command = Command::new(program);
    if let RunAs::User { uid, gid, .. } = run_as {
        command.uid(*uid).gid(*gid);
    }
    command
        .current_dir(folder)
        // initdb takes encodings and pg_ctl its messages from the locale; PG* variables of the
        // caller would point the programs elsewhere.
        .env("LC_ALL", "C")
        .env_remove("PGDATA")
        .env_remove("PGPORT")
        .env_remove("PGHOST")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end, successfully or else [`Error::Program`].
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<Output, Error> {
    let program = name_of(&command);
    // A dropped future must not leave a half-done initdb behind.
    command.kill_on_drop(true);
    finish(
        program.clone(),
        timeout(limit, command.output())
            .await
            .map_err(|_| Error::TimedOut { program })?,
        command.as_std().get_program().as_ref(),
    )
}

/// Like [`run`], feeding `input` to standard input: the way of secrets, since arguments are
/// visible to everybody on the machine.
pub(crate) async fn run_with_input(
    mut command: Command,
    input: &[u8],
    limit: Duration,
) -> Result<Output, Error> {
    let program = name_of(&command);
    let path = command.as_std().get_program().to_owned();
    command.kill_on_drop(true).stdin(Stdio::piped());
    let exchange = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input).await?;
        }
        child.wait_with_output().await
    };
    let result = timeout(limit, exchange)
        .await
        .map_err(|_| Error::TimedOut {
            program: program.clone(),
        })?;
    finish(program, result, path.as_ref())
}

fn finish(program: String, result: std::io::Result<Output>, path: &Path) -> Result<Output, Error> {
    let output = result.map_err(Error::io("run", path))?;
    if output.status.success() {
        return Ok(output);
    }
    let mut said = output.stdout;
    said.extend_from_slice(&output.stderr);
    Err(Error::Program {
        program,
        output: tail(&said),
    })
}

/// The last lines of `bytes`, as text for an error.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

fn name_of(command: &Command) -> String {
    let path = Path::new(command.as_std().get_program());
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}
