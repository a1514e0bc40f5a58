//! What a start writes where it is missing: keys, singletons of cloud mode (project-backend
//! 1.2, 1.7, 5.5).

use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::CloudMode,
    crypto::{self, SealError},
    error::ApiError,
    secrets,
    state::AppState,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    #[error("the stored keys cannot be read with this ENCRYPTION_KEY: {0}")]
    ForeignKey(SealError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("{}", .0.message)]
    Storage(ApiError),
}

impl From<ApiError> for SeedError {
    fn from(error: ApiError) -> Self {
        Self::Storage(error)
    }
}

pub(crate) async fn seed(state: &AppState) -> Result<(), SeedError> {
    let config = &state.config;
    seed_api_key(state).await?;
    seed_anon_key(state).await?;
    let keep = async |key: &str, value: &SecretString| {
        secrets::insert_reserved_if_absent(&state.pool, &state.vault, key, value).await
    };
    keep("JWT_SECRET", &config.jwt_secret).await?;
    keep(
        "INSFORGE_BASE_URL",
        &SecretString::from(config.api_base_url.clone()),
    )
    .await?;
    match config.cloud_mode {
        CloudMode::Cloud => seed_cloud_sign_in(state).await?,
        CloudMode::SelfHosted => {
            let internal = format!("http://{}:{}", config.host, config.port);
            keep("INSFORGE_INTERNAL_URL", &SecretString::from(internal)).await?;
        }
    }
    Ok(())
}

/// `ACCESS_API_KEY` counts only while no active row exists; a rotated key survives restarts.
async fn seed_api_key(state: &AppState) -> Result<(), SeedError> {
    if let Some(sealed) = active_ciphertext(state, "API_KEY").await? {
        return match state.vault.open(&sealed) {
            Ok(_) => Ok(()),
            Err(error) => Err(SeedError::ForeignKey(error)),
        };
    }
    let key = given_or_random(state.config.access_api_key.as_ref(), "ik_")?;
    Ok(secrets::put_reserved(&state.pool, &state.vault, "API_KEY", &key).await?)
}

/// Likewise; a stored value of the older form is replaced.
async fn seed_anon_key(state: &AppState) -> Result<(), SeedError> {
    if let Some(sealed) = active_ciphertext(state, "ANON_KEY").await? {
        let stored = state.vault.open(&sealed).map_err(SeedError::ForeignKey)?;
        if stored.expose_secret().starts_with("anon_") {
            return Ok(());
        }
    }
    let key = given_or_random(state.config.access_anon_key.as_ref(), "anon_")?;
    Ok(secrets::put_reserved(&state.pool, &state.vault, "ANON_KEY", &key).await?)
}

async fn active_ciphertext(state: &AppState, key: &str) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value_ciphertext FROM system.secrets WHERE key = $1 AND is_active")
        .bind(key)
        .fetch_optional(&state.pool)
        .await
}

fn given_or_random(given: Option<&SecretString>, prefix: &str) -> Result<SecretString, SeedError> {
    match given {
        Some(key) => Ok(key.clone()),
        None => Ok(crypto::random_key(prefix).map_err(ApiError::from)?),
    }
}

async fn seed_cloud_sign_in(state: &AppState) -> Result<(), sqlx::Error> {
    let made = sqlx::query(
        "INSERT INTO auth.config (require_email_verification) VALUES (true)
         ON CONFLICT ((1)) DO NOTHING",
    )
    .execute(&state.pool)
    .await?;
    // Only on the first start, which that row marks: a provider that the user removed later
    // stays removed.
    if made.rows_affected() == 1 {
        sqlx::query(
            "INSERT INTO auth.oauth_configs (provider, use_shared_key)
             VALUES ('google', true), ('github', true) ON CONFLICT (provider) DO NOTHING",
        )
        .execute(&state.pool)
        .await?;
    }
    Ok(())
}
