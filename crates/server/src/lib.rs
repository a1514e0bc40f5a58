//! The binary `insforge-cloud`: configuration, telemetry, subcommands, start and end of processes.
//! A library, too, so that the test harness and the bench can run parts of it in process.
//!
//! - [`cli`]: the command line. [`commands`]: what operators' commands do.
//! - [`config`]: one validated struct per concern, from a file and the environment.
//! - [`dev`]: everything on a laptop. [`production`]: `serve` and `work`.
//! - [`admin`]: the second listener: health, metrics, the queue board.

pub mod admin;
pub mod cli;
pub mod commands;
pub mod config;
pub mod dev;
pub mod downloads;
pub mod files;
pub mod local_machines;
pub mod plane;
pub mod production;
pub mod shutdown;
pub mod telemetry;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use config::Origins;

/// Runs the command line. Exit codes: 0 done, 1 failed, 2 wrong usage (by clap) or a merge that is blocked.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.json();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            commands::report_error(&error, json);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut found = config::find(&cli.sources())?;
    if let (cli::Command::Dev(_), Some(dir)) = (&cli.command, &cli.data_dir) {
        found.config.local.data_dir.clone_from(dir);
    }
    let _telemetry = telemetry::init(&found.config.telemetry, cli.log_style())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(dispatch(cli.command, found.config, &found.origins));
    // A blocking call that still hangs in a thread must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(
    command: Command,
    config: config::Config,
    origins: &Origins,
) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(options) => dev::run(config, options, shutdown::on_signals()?).await?,
        Command::Serve(options) => {
            Box::pin(production::serve(config, options, shutdown::on_signals()?)).await?;
        }
        Command::Work(options) => {
            Box::pin(production::work(config, options, shutdown::on_signals()?)).await?;
        }
        Command::Migrate => commands::migrate::run(&config).await?,
        Command::Partner(command) => commands::partner::run(&config, command).await?,
        Command::Project(command) => commands::project::run(&config, command).await?,
        Command::Site(command) => commands::site::run(&config, command).await?,
        Command::User(command) => commands::user::run(&config, command).await?,
        Command::Organization(command) => commands::organization::run(&config, command).await?,
        Command::Session(command) => commands::session::run(&config, command).await?,
        Command::Usage(command) => commands::usage::run(&config, command).await?,
        Command::UsageToken(command) => commands::usage_token::run(&config, command).await?,
        Command::OAuthClient(command) => commands::oauth_client::run(&config, command).await?,
        Command::SigningKey(command) => commands::signing_key::run(&config, command).await?,
        Command::Merge(command) => return commands::merge::run(command).await,
        Command::Operation(command) => commands::operation::run(&config, command).await?,
        Command::Doctor(options) => {
            return commands::doctor::run(&config, origins, &options).await;
        }
    }
    Ok(ExitCode::SUCCESS)
}
