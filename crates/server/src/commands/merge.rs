//! `insforge-cloud merge …`: the merge engine on databases that somebody names. Needs neither our database nor our
//! configuration.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use cp_merge::command;

use crate::cli::{MergeCommand, MergeOptions};

/// Exit code 2 when conflicts or changes that need a migration stand in the way.
pub async fn run(command: MergeCommand) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout();
    let outcome = match command {
        MergeCommand::Snapshot { address, output } => {
            let command = command::SnapshotCommand { address, output };
            command::take_snapshot(&command, &mut out).await?
        }
        MergeCommand::Diff(options) => command::diff(&parsed(options), &mut out).await?,
        MergeCommand::Apply(options) => command::merge(&parsed(options), &mut out).await?,
    };
    Ok(ExitCode::from(outcome.code()))
}

fn parsed(options: MergeOptions) -> command::MergeCommand {
    command::MergeCommand {
        base: options.base,
        branch_base: options.branch_base,
        parent: options.parent,
        branch: options.branch,
        resolve: options.resolve,
        json: options.output.json,
        colour: io::stdout().is_terminal(),
    }
}
