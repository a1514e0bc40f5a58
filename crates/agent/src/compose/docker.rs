//! The calls of the docker program. No secret is ever among their arguments, and none leaves in
//! an error: docker may quote what it read.

use std::{path::PathBuf, process::Output, time::Duration};

use secrecy::ExposeSecret;

use super::{Limits, files::Files};
use crate::{
    command::{CommandError, in_one_line, run_with_input, said},
    config::ComposeConfig,
    postgres::alter_password,
};

/// What marks the volumes of a project (compose.yaml).
const PROJECT_LABEL: &str = "app.insforge.project";
/// What docker compose marks its containers with.
const STACK_LABEL: &str = "com.docker.compose.project";
/// Of what docker complains about, in characters.
const LONGEST_COMPLAINT: usize = 300;
const HIDDEN: &str = "[secret]";

#[derive(Debug, thiserror::Error)]
#[error("`docker {what}` {why}")]
pub(crate) struct DockerError {
    what: String,
    why: String,
}

pub(crate) struct Docker {
    program: PathBuf,
    stack: String,
    limits: Limits,
    /// Taken out of everything that docker says.
    secrets: Vec<String>,
}

impl Docker {
    pub(crate) fn new(config: &ComposeConfig, limits: &Limits) -> Self {
        Self {
            program: config.docker.clone(),
            stack: config.project_name.clone(),
            limits: limits.clone(),
            secrets: Vec::new(),
        }
    }

    /// In every form in which docker may quote them.
    pub(crate) fn hide(&mut self, secrets: &[String]) {
        let in_json = |text: &str| {
            let quoted = serde_json::Value::from(text).to_string();
            quoted.trim_matches('"').to_owned()
        };
        let lines = secrets.iter().flat_map(|secret| secret.lines());
        self.secrets = lines
            // Shorter lines tell nothing, and would tear texts apart.
            .filter(|line| line.len() >= 8)
            .flat_map(|line| {
                // As they are, in a compose file, in SQL.
                [
                    line.to_owned(),
                    line.replace('$', "$$"),
                    line.replace('\'', "''"),
                ]
                .into_iter()
                .flat_map(|text| [in_json(&text), text])
            })
            .collect();
        self.secrets.sort_by_key(|secret| usize::MAX - secret.len());
        self.secrets.dedup();
    }

    /// Is docker up, and does it have compose?
    pub(crate) async fn check(&self) -> Result<(), DockerError> {
        let look = self.limits.call;
        self.run(&["version", "--format", "{{.Server.Version}}"], b"", look)
            .await?;
        self.run(&["compose", "version", "--short"], b"", look)
            .await?;
        Ok(())
    }

    /// The projects that have volumes of this stack's on the machine; a blank one for a volume
    /// that does not tell.
    pub(crate) async fn projects_with_data(&self) -> Result<Vec<String>, DockerError> {
        let of_stack = format!("label={STACK_LABEL}={}", self.stack);
        let format = format!("{{{{.Label \"{PROJECT_LABEL}\"}}}}");
        let args = ["volume", "ls", "--filter", &of_stack, "--format", &format];
        let output = self.run(&args, b"", self.limits.call).await?;
        Ok(raw_lines(&output))
    }

    /// Each container of the stack with its status, as in `insforge-insforge-1: Up 2 minutes`.
    pub(crate) async fn containers(&self) -> Result<Vec<String>, DockerError> {
        let of_stack = format!("label={STACK_LABEL}={}", self.stack);
        let format = "{{.Names}}: {{.Status}}";
        let args = ["ps", "--all", "--filter", &of_stack, "--format", format];
        let output = self.run(&args, b"", self.limits.call).await?;
        Ok(raw_lines(&output))
    }

    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        let args = ["image", "inspect", "--format", "{{.Id}}", image];
        match self.output(&args, b"", self.limits.call).await {
            Ok(output) if output.status.success() => Ok(true),
            // It says so in other words from version to version.
            Ok(output) if said(&output).to_lowercase().contains("no such image") => Ok(false),
            Ok(output) => Err(self.failed(&args, &output)),
            Err(error) => Err(not_run(&args, &error)),
        }
    }

    pub(crate) async fn pull(&self, image: &str) -> Result<(), DockerError> {
        self.run(&["pull", "--quiet", image], b"", self.limits.pull)
            .await
            .map(drop)
    }

    /// The tags of an image that are there.
    pub(crate) async fn tags(&self, image: &str) -> Result<Vec<String>, DockerError> {
        let args = ["image", "ls", "--format", "{{.Tag}}", image];
        let output = self.run(&args, b"", self.limits.call).await?;
        Ok(raw_lines(&output))
    }

    pub(crate) async fn remove_image(&self, image: &str) -> Result<(), DockerError> {
        self.run(&["image", "rm", image], b"", self.limits.call)
            .await
            .map(drop)
    }

    /// Makes the containers what the files say. Does nothing to those that are so already.
    pub(crate) async fn up(&self, files: &Files) -> Result<(), DockerError> {
        let args = ["up", "--detach", "--remove-orphans", "--quiet-pull"];
        self.compose(files, &args, b"", self.limits.up).await
    }

    /// The database alone, until it is ready.
    pub(crate) async fn up_postgres(&self, files: &Files) -> Result<(), DockerError> {
        let args = ["up", "--detach", "--wait", "--quiet-pull", "postgres"];
        self.compose(files, &args, b"", self.limits.up).await
    }

    /// Does the database take connections?
    pub(crate) async fn postgres_answers(
        &self,
        files: &Files,
        superuser: &str,
    ) -> Result<(), DockerError> {
        // By TCP, as in its health check.
        let host = "--host=127.0.0.1";
        let superuser = format!("--username={superuser}");
        let args = ["exec", "-T", "postgres", "pg_isready", host, &superuser];
        self.compose(files, &args, b"", self.limits.call).await
    }

    /// Stops and removes all but the database. What was only stopped would be started by whoever
    /// sees to it that what the files name runs.
    pub(crate) async fn remove_all_but_postgres(&self, files: &Files) -> Result<(), DockerError> {
        let mut which = files.compose_args();
        // The function host may run on a machine that has no functions folder any more.
        which.extend(["--profile", "functions"].map(str::to_owned));
        let args = ["rm", "--stop", "--force", "insforge", "postgrest", "deno"];
        self.compose_with(&which, &args, b"", self.limits.up).await
    }

    pub(crate) async fn restart(&self, files: &Files, service: &str) -> Result<(), DockerError> {
        self.compose(files, &["restart", service], b"", self.limits.up)
            .await
    }

    /// In the database's container, whose socket asks for no password.
    pub(crate) async fn set_password(
        &self,
        files: &Files,
        superuser: &str,
        password: &str,
    ) -> Result<(), DockerError> {
        let sql = alter_password(superuser, &password.into());
        let args = [
            "exec",
            "-T",
            "postgres",
            "psql",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--dbname=postgres",
            "--username",
            superuser,
        ];
        let sql = sql.expose_secret().as_bytes();
        self.compose(files, &args, sql, self.limits.call).await
    }

    /// Removes the stack's containers, by their labels: the files may be gone. Volumes stay.
    pub(crate) async fn down(&self) -> Result<(), DockerError> {
        let args = ["down", "--remove-orphans"];
        self.compose_with(&[], &args, b"", self.limits.up).await
    }

    async fn compose(
        &self,
        files: &Files,
        args: &[&str],
        input: &[u8],
        within: Duration,
    ) -> Result<(), DockerError> {
        self.compose_with(&files.compose_args(), args, input, within)
            .await
    }

    async fn compose_with(
        &self,
        files: &[String],
        args: &[&str],
        input: &[u8],
        within: Duration,
    ) -> Result<(), DockerError> {
        let mut all = vec!["compose", "--ansi", "never", "--project-name", &self.stack];
        all.extend(files.iter().map(String::as_str));
        all.extend(args);
        let named = [&["compose"], args].concat();
        match self.output(&all, input, within).await {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(self.failed(&named, &output)),
            Err(error) => Err(not_run(&named, &error)),
        }
    }

    async fn run(
        &self,
        args: &[&str],
        input: &[u8],
        within: Duration,
    ) -> Result<Output, DockerError> {
        match self.output(args, input, within).await {
            Ok(output) if output.status.success() => Ok(output),
            Ok(output) => Err(self.failed(args, &output)),
            Err(error) => Err(not_run(args, &error)),
        }
    }

    async fn output(
        &self,
        args: &[&str],
        input: &[u8],
        within: Duration,
    ) -> Result<Output, CommandError> {
        tracing::debug!(?args, "docker");
        run_with_input(&self.program, args, input, within).await
    }

    fn failed(&self, args: &[&str], output: &Output) -> DockerError {
        // Hidden before it is cut: half a secret is one, too.
        let said = in_one_line(&self.without_secrets(&said(output)), LONGEST_COMPLAINT);
        DockerError {
            what: name_of(args),
            why: format!("failed: {said}"),
        }
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }
}

fn not_run(args: &[&str], error: &CommandError) -> DockerError {
    DockerError {
        what: name_of(args),
        why: error.to_string(),
    }
}

/// Its words up to the first option, as an operator would name the call.
fn name_of(args: &[&str]) -> String {
    let words = args.iter().take_while(|arg| !arg.starts_with('-'));
    let mut words: Vec<&str> = words.copied().collect();
    if let ["pull", ..] = args {
        words.extend(args.last());
    }
    words.join(" ")
}

fn raw_lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    use super::*;

    #[test]
    fn what_docker_says_leaves_without_secrets() {
        let mut docker = Docker::new(&ComposeConfig::default(), &Limits::default());
        docker.hide(&["hunter2 $hunter2\nof two lines".to_owned()]);
        let output = Output {
            status: ExitStatus::from_raw(256),
            stdout: Vec::new(),
            stderr: format!(
                "bad\n\"hunter2 $$hunter2\\nof two lines\" {}",
                "x".repeat(290)
            )
            .into_bytes(),
        };
        let error = docker
            .failed(&["compose", "up", "--detach"], &output)
            .to_string();
        assert!(error.starts_with("`docker compose up` failed: "), "{error}");
        assert!(
            !error.contains("hunter") && !error.contains("lines"),
            "{error}"
        );
        let error = docker.failed(&["pull", "--quiet", "a/b:c"], &output);
        assert!(error.to_string().starts_with("`docker pull a/b:c`"));
    }
}
