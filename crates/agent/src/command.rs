//! Programs of the machine (`docker`, `growpart`, …): run to their end, within a time, and ended
//! with all that they started when that is over or nobody waits any more.

use std::{
    io,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::process;

/// What of our own environment they may see: where things are, and how docker is reached.
const INHERITED: [&str; 6] = [
    "PATH",
    "HOME",
    "TZ",
    "TMPDIR",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
];

/// Why a program did not end by itself. The texts name no argument.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot be run: {0}")]
    Run(#[from] io::Error),
    #[error("took longer than {} seconds", .0.as_secs_f32().ceil())]
    TimedOut(Duration),
}

/// Runs programs; tests bring their own.
pub(crate) trait Commands {
    fn run(
        &self,
        program: &Path,
        args: &[&str],
        within: Duration,
    ) -> impl Future<Output = Result<Output, CommandError>>;
}

/// The programs that are really there.
pub(crate) struct Programs;

impl Commands for Programs {
    async fn run(
        &self,
        program: &Path,
        args: &[&str],
        within: Duration,
    ) -> Result<Output, CommandError> {
        run_with_input(program, args, b"", within).await
    }
}

/// Standard input is the way of secrets: arguments are visible to everybody on the machine.
pub(crate) async fn run_with_input(
    program: &Path,
    args: &[&str],
    input: &[u8],
    within: Duration,
) -> Result<Output, CommandError> {
    let mut child = Command::new(program)
        .args(args)
        // docker compose would take up what it finds in ours.
        .current_dir("/")
        .env_clear()
        .envs(
            INHERITED
                .iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?))),
        )
        // What they say is read by us and by operators.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let mut group = Group(child.id());
    let exchange = async {
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input).await {
                // It did not want to read; its exit status tells whether that is well.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                outcome => outcome?,
            }
        }
        child.wait_with_output().await
    };
    let output = timeout(within, exchange)
        .await
        .map_err(|_| CommandError::TimedOut(within))??;
    // Once it has ended its number may be another's.
    group.0 = None;
    Ok(output)
}

/// A running program and what it started. Killed when dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            process::signal_group(leader, Signal::KILL);
        }
    }
}

/// What a program complained about, or else said.
pub(crate) fn said(output: &Output) -> String {
    let said = match output.stderr.trim_ascii() {
        [] => output.stdout.trim_ascii(),
        said => said,
    };
    String::from_utf8_lossy(said).into_owned()
}

/// The end of a text in one line of at most `most` characters.
pub(crate) fn in_one_line(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let skipped = line.chars().count().saturating_sub(most);
    line.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, within: Duration) -> impl Future<Output = Result<Output, CommandError>> {
        let script = script.to_owned();
        async move {
            Programs
                .run(Path::new("/bin/sh"), &["-c", &script], within)
                .await
        }
    }

    #[tokio::test]
    async fn it_tells_how_a_program_ended() {
        let output = sh(
            "echo out; echo so >&2; echo bad >&2; exit 3",
            Duration::from_secs(20),
        );
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(in_one_line(&said(&output), 100), "so bad");
        assert_eq!(in_one_line(&said(&output), 3), "bad");
        let missing = Programs
            .run(Path::new("/no/such/program"), &[], Duration::from_secs(1))
            .await;
        assert!(matches!(missing, Err(CommandError::Run(_))));
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let outcome = sh(&script, Duration::from_millis(500)).await;
        assert!(matches!(outcome, Err(CommandError::TimedOut(_))));
        let pid = std::fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        for _ in 0..200 {
            // A zombie that nobody waits for has no command line.
            if process::command_line(pid)
                .await
                .is_none_or(|line| line.trim().is_empty())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("a grandchild outlived its time");
    }
}
