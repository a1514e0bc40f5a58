//! `insforge-cloud merge`: the merge engine by itself, on any two databases.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use cp_merge::command::{self, CommandError, MergeCommand as Merge, SnapshotCommand};

use crate::cli::{MergeCommand, MergeOptions};

pub async fn run(asked: MergeCommand) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout();
    let done = match asked {
        MergeCommand::Snapshot(options) => {
            let command = SnapshotCommand {
                address: options.address,
                output: options.output,
            };
            command::take_snapshot(&command, &mut out).await
        }
        MergeCommand::Diff(options) => command::diff(&merge(*options), &mut out).await,
        MergeCommand::Apply(options) => {
            let command = Merge {
                online: options.online,
                ..merge(options.merge)
            };
            command::merge(&command, &mut out).await
        }
    };
    // Its text tells its cause already.
    let outcome = done.map_err(|error: CommandError| anyhow::anyhow!("{error}"))?;
    Ok(ExitCode::from(outcome.code()))
}

fn merge(options: MergeOptions) -> Merge {
    Merge {
        base: options.base,
        branch_base: options.branch_base,
        parent: options.parent,
        branch: options.branch,
        resolve: options.resolve,
        online: false,
        json: options.output.json,
        colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
    }
}
