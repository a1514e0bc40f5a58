//! The interface's links to what is stored, made by the store itself.

use std::time::Duration;

use async_trait::async_trait;
use cp_api::Downloads;
use cp_model::Region;
use cp_provider::{ObjectKey, SharedObjects};
use secrecy::SecretString;

/// Links as the store makes them.
pub struct StoreDownloads(pub SharedObjects);

#[async_trait]
impl Downloads for StoreDownloads {
    async fn link(&self, region: Region, key: &str, lifetime: Duration) -> Option<SecretString> {
        let key = match ObjectKey::new(key.to_owned()) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(%error, "a stored object has a key that is none");
                return None;
            }
        };
        let link = self.0.presign_get(region, &key, lifetime).await;
        link.inspect_err(|error| tracing::warn!(%error, "no link to a stored object can be made"))
            .ok()
    }
}
