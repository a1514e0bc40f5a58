//! `insforge-cloud migrate`.

use anyhow::Context as _;

use super::output::print;
use crate::config::Config;
use crate::plane;

pub async fn run(config: &Config) -> anyhow::Result<()> {
    let database = plane::database(config, "migrate")?;
    super::ping(&database)
        .await
        .context("the database cannot be used")?;
    let before = database.pending_migrations().await?;
    database.migrate().await?;
    print(&match before {
        0 => "the database is up to date".to_owned(),
        1 => "1 migration was run; the database is up to date".to_owned(),
        n => format!("{n} migrations were run; the database is up to date"),
    });
    database.close().await;
    Ok(())
}
