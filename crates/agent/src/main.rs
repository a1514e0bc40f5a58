//! The binary `insforge-agent`. Everything of interest is in the library.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(
    name = "insforge-agent",
    version,
    about = "Keeps one machine what the control plane desires."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM or Ctrl-C, which also stop the backend and Postgres.
    Run {
        /// The machine's agent.json.
        #[arg(long)]
        config: PathBuf,
    },
    /// The stand-in backend; started by `run`, configured by the environment.
    #[command(hide = true)]
    Backend,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    // One thread: an idle machine should cost next to nothing.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = match cli.command {
        Command::Run { config } => runtime.block_on(cp_agent::agent::run(&config)),
        Command::Backend => runtime.block_on(cp_agent::builtin::run()),
    };
    // A call that still hangs in a thread must not hold up the end.
    runtime.shutdown_background();
    outcome
}
