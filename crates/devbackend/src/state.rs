//! What every handler shares.

use std::sync::Arc;

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use crate::{
    cloud_token::CloudVerifier,
    config::Config,
    crypto::Vault,
    database,
    error::ApiError,
    signing::{self, SigningKey},
};

#[derive(Clone)]
pub(crate) struct AppState(Arc<Shared>);

pub(crate) struct Shared {
    pub pool: PgPool,
    pub connect: PgConnectOptions,
    pub vault: Vault,
    pub cloud: CloudVerifier,
    pub config: Config,
    signing_key: OnceCell<SigningKey>,
}

impl AppState {
    pub fn new(config: Config) -> Self {
        let connect = config.database.options();
        Self(Arc::new(Shared {
            pool: database::pool(connect.clone()),
            connect,
            vault: Vault::new(&config.encryption_key),
            cloud: CloudVerifier::new(&config.cloud_api_host),
            signing_key: OnceCell::new(),
            config,
        }))
    }

    /// The pair that signs access tokens: read or made on first use, then kept until a restart.
    pub async fn signing_key(&self) -> Result<&SigningKey, ApiError> {
        self.signing_key
            .get_or_try_init(|| signing::load_or_create(&self.pool, &self.vault))
            .await
    }

    /// Makes the pair in the background: generating RSA keys takes longer than all the rest of a
    /// start, and readiness does not depend on it.
    pub fn warm_signing_key(&self) {
        let state = self.clone();
        tokio::spawn(async move {
            if let Err(error) = state.signing_key().await {
                tracing::error!(message = %error.message, "no signing key");
            }
        });
    }
}

impl std::ops::Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}
