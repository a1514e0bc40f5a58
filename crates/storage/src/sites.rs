//! Projects' sites. The domain seals and opens their secrets.

use chrono::{DateTime, Utc};
use cp_model::ProjectId;
use sqlx::PgConnection;

use crate::error::StorageResult;

/// Of the unique constraint on slugs.
pub const SLUG_KEY: &str = "sites_slug_key";
/// Of the unique constraint on Vercel's projects.
pub const VERCEL_PROJECT_KEY: &str = "sites_vercel_project_id_key";

/// What an operator sets.
pub struct NewSite<'a> {
    pub team_id: &'a str,
    pub vercel_project_id: &'a str,
    pub token_sealed: &'a [u8],
    pub token_expires_at: Option<DateTime<Utc>>,
    pub webhook_secret_sealed: Option<&'a [u8]>,
}

pub struct StoredSite {
    pub team_id: String,
    pub vercel_project_id: String,
    pub token_sealed: Vec<u8>,
    pub token_expires_at: Option<DateTime<Utc>>,
    pub webhook_secret_sealed: Option<Vec<u8>>,
    pub slug: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Sets all but the slug, which a site that is there keeps.
pub async fn set_site(
    conn: &mut PgConnection,
    project: ProjectId,
    site: &NewSite<'_>,
    now: DateTime<Utc>,
) -> StorageResult<()> {
    sqlx::query!(
        "insert into sites (project_id, team_id, vercel_project_id, token_sealed, token_expires_at,
                            webhook_secret_sealed, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $7)
         on conflict (project_id) do update
         set team_id = excluded.team_id, vercel_project_id = excluded.vercel_project_id,
             token_sealed = excluded.token_sealed, token_expires_at = excluded.token_expires_at,
             webhook_secret_sealed = excluded.webhook_secret_sealed, updated_at = excluded.updated_at",
        project.0,
        site.team_id,
        site.vercel_project_id,
        site.token_sealed,
        site.token_expires_at,
        site.webhook_secret_sealed,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find_site(
    conn: &mut PgConnection,
    project: ProjectId,
) -> StorageResult<Option<StoredSite>> {
    Ok(sqlx::query_as!(
        StoredSite,
        "select team_id, vercel_project_id, token_sealed, token_expires_at, webhook_secret_sealed, slug, created_at,
                updated_at
         from sites where project_id = $1",
        project.0
    )
    .fetch_optional(conn)
    .await?)
}

/// Gives the site another name, or none. False: there is no site.
pub async fn set_slug(
    conn: &mut PgConnection,
    project: ProjectId,
    slug: Option<&str>,
    now: DateTime<Utc>,
) -> StorageResult<bool> {
    let done = sqlx::query!(
        "update sites set slug = $2, updated_at = $3 where project_id = $1",
        project.0,
        slug,
        now
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Its slug is free then. False: there is no site.
pub async fn delete_site(conn: &mut PgConnection, project: ProjectId) -> StorageResult<bool> {
    let done = sqlx::query!("delete from sites where project_id = $1", project.0)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() == 1)
}
