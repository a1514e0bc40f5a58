//! The stand-in backend as a process of its own: `insforge-agent backend`, with the backend's
//! environment. It ends with its standard input, which only the agent holds, so an agent that is
//! killed leaves no backend behind.

use std::{io::Read, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// What requests under way may take when the agent is gone.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

pub async fn run() -> anyhow::Result<()> {
    let config = cp_devbackend::Config::from_env()?;
    let mut terminated = signal(SignalKind::terminate())?;
    let orphaned = watch_stdin();
    let shutdown = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = orphaned => {}
        }
    };
    cp_devbackend::run(config, shutdown).await?;
    Ok(())
}

/// A plain thread: a read of standard input through tokio could not be given up.
fn watch_stdin() -> oneshot::Receiver<()> {
    let (ended, orphaned) = oneshot::channel();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut ignored = [0; 64];
        while stdin.read(&mut ignored).is_ok_and(|read| read > 0) {}
        // Nobody listens when it ends by a signal.
        let _ = ended.send(());
        std::thread::sleep(ORPHAN_GRACE);
        std::process::exit(0);
    });
    orphaned
}
