//! The signing keys of this process: loaded from the database, replaced as a whole whenever they
//! change there, rotated by whichever worker comes first.

use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cp_storage::notifications::Topic;
use cp_storage::signing_keys::{self, SigningKeyRecord};
use cp_storage::{PgConnection, StorageError};
use cp_tokens::keyring::{
    Jwk, KeyInRing, KeyRecord, KeyState, Keyring, ProjectAuthorization, RotationPolicy, Signer,
    SigningKey, plan_rotation,
};
use cp_tokens::secret::hash_bytes;
use secrecy::ExposeSecret;
use serde_json::json;

use crate::{ControlPlane, DomainError, DomainResult, Inner};

/// The document at `/.well-known/jwks.json`, ready to be sent.
#[derive(Debug, Clone, Default)]
pub struct PublishedJwks {
    pub json: String,
    /// Quoted, as the ETag header has it (RFC 9110 section 8.8.3).
    pub etag: String,
}

/// The ETag while no keys are loaded.
pub(crate) const NO_KEYS: &str = "\"none\"";

/// What operators are told of a key.
#[derive(Debug, Clone)]
pub struct SigningKeySummary {
    pub kid: String,
    pub state: KeyState,
    pub created_at: DateTime<Utc>,
    pub activated_at: Option<DateTime<Utc>>,
    pub retiring_since: Option<DateTime<Utc>>,
}

#[derive(Default)]
pub(crate) struct LoadedKeys(RwLock<Option<Loaded>>);

#[derive(Clone)]
struct Loaded {
    ring: Arc<Keyring>,
    published: Arc<PublishedJwks>,
}

impl LoadedKeys {
    fn get(&self) -> Option<Loaded> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, loaded: Loaded) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
    }
}

/// Keeps the keys as the database has them: at once when they change, and every half minute in
/// case a notification was lost.
pub(crate) fn follow(inner: Weak<Inner>) -> impl Future<Output = ()> + Send {
    let changes = inner
        .upgrade()
        .map(|i| i.db.notifications().subscribe(Topic::SigningKeys, ""));
    async move {
        let Some(mut changes) = changes else { return };
        loop {
            let Some(inner) = inner.upgrade() else { return };
            let control_plane = ControlPlane { inner };
            let loaded = control_plane.load_keys().await;
            drop(control_plane);
            let pause = match loaded {
                Ok(true) => Duration::from_secs(30),
                Ok(false) => Duration::from_secs(1),
                Err(error) => {
                    tracing::warn!(%error, "signing keys could not be loaded; trying again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

fn context(kid: &str) -> String {
    format!("signing_key:{kid}")
}

fn state_of(record: &SigningKeyRecord) -> DomainResult<KeyState> {
    record
        .state
        .parse()
        .map_err(|e| DomainError::internal(format!("signing key {}: {e}", record.kid)))
}

fn plannable(records: &[SigningKeyRecord]) -> DomainResult<Vec<KeyRecord>> {
    records
        .iter()
        .map(|r| {
            Ok(KeyRecord {
                kid: r.kid.clone(),
                state: state_of(r)?,
                created_at: r.created_at,
                activated_at: r.activated_at,
                retiring_since: r.retiring_since,
            })
        })
        .collect()
}

impl ControlPlane {
    /// Reads the keys. False: none can sign yet.
    pub async fn load_keys(&self) -> DomainResult<bool> {
        let mut conn = self.db().acquire().await?;
        let records = signing_keys::list_keys(&mut conn, false).await?;
        drop(conn);
        if !records.iter().any(|r| r.state == KeyState::Active.as_str()) {
            return Ok(false);
        }
        let mut keys = Vec::with_capacity(records.len());
        for record in records {
            let state = state_of(&record)?;
            let signer = match (&record.private_sealed, state) {
                (Some(sealed), KeyState::Active) => Some(self.open_signer(&record.kid, sealed)?),
                _ => None,
            };
            let public_jwk: Jwk =
                serde_json::from_value(record.public_jwk).map_err(DomainError::internal)?;
            keys.push(KeyInRing {
                kid: record.kid,
                state,
                public_jwk,
                signer,
            });
        }
        let ring = Keyring::new(keys).map_err(DomainError::internal)?;
        let json = serde_json::to_string(ring.jwks()).map_err(DomainError::internal)?;
        let digest = hash_bytes(json.as_bytes());
        let etag = digest[..12]
            .iter()
            .fold(String::from("\""), |etag, byte| format!("{etag}{byte:02x}"))
            + "\"";
        self.inner.keys.set(Loaded {
            ring: Arc::new(ring),
            published: Arc::new(PublishedJwks { json, etag }),
        });
        Ok(true)
    }

    fn open_signer(&self, kid: &str, sealed: &[u8]) -> DomainResult<Signer> {
        let der = self.sealer().open(sealed, &context(kid)).map_err(|e| {
            DomainError::internal(format!("signing key {kid} cannot be opened: {e}"))
        })?;
        Signer::from_pkcs8(kid, &der)
            .map_err(|e| DomainError::internal(format!("signing key {kid}: {}", e.reason)))
    }

    /// The published key set; empty until keys are loaded.
    pub fn jwks(&self) -> Arc<PublishedJwks> {
        match self.inner.keys.get() {
            Some(loaded) => loaded.published,
            None => Arc::new(PublishedJwks {
                json: r#"{"keys":[]}"#.into(),
                etag: NO_KEYS.into(),
            }),
        }
    }

    /// About half a millisecond of arithmetic.
    pub(crate) async fn sign(&self, claims: ProjectAuthorization) -> DomainResult<String> {
        let loaded = self.inner.keys.get().ok_or(DomainError::Unavailable)?;
        self.inner
            .signing
            .run(move || loaded.ring.sign(&claims))
            .await?
            .map_err(DomainError::internal)
    }

    /// Takes the rotation's next step if one is due; with `force` begins a rotation before its
    /// time. Any number of processes may call it at any time: they take turns.
    pub async fn rotate_signing_keys(&self, force: bool) -> DomainResult<()> {
        let policy = self.settings().rotation;
        // The first run of an installation takes two steps: a key is made, then it is activated.
        while self.take_rotation_step(&policy, force).await? {}
        self.load_keys().await?;
        Ok(())
    }

    /// For a key that has leaked: the next one signs at once. Backends that fetched the key set
    /// within the last half minute refuse its tokens until they fetch it again.
    pub async fn rotate_signing_keys_at_once(&self) -> DomainResult<()> {
        let policy = RotationPolicy {
            publish_ahead: TimeDelta::zero(),
            ..self.settings().rotation
        };
        let signing = |keys: Vec<SigningKeySummary>| {
            keys.into_iter()
                .find(|k| k.state == KeyState::Active)
                .map(|k| k.kid)
        };
        let before = signing(self.list_signing_keys().await?);
        // A key is made if none waits, then it is activated.
        for force in [true, false] {
            if signing(self.list_signing_keys().await?) == before {
                self.take_rotation_step(&policy, force).await?;
            }
        }
        self.load_keys().await?;
        Ok(())
    }

    /// True: call again at once.
    async fn take_rotation_step(&self, policy: &RotationPolicy, force: bool) -> DomainResult<bool> {
        let plan_now = async |conn: &mut PgConnection| {
            let records = signing_keys::list_keys(conn, false).await?;
            let keys = plannable(&records)?;
            let had_active = keys.iter().any(|k| k.state == KeyState::Active);
            let plan = plan_rotation(&keys, self.now(), policy, force);
            Ok::<_, DomainError>((plan, had_active))
        };
        let mut conn = self.db().acquire().await?;
        let (plan, _) = plan_now(&mut conn).await?;
        drop(conn);
        if plan.is_empty() {
            return Ok(false);
        }
        // Made before the lock is taken: it costs a third of a second.
        let fresh = if plan.create_next {
            let made = tokio::task::spawn_blocking(SigningKey::generate)
                .await
                .map_err(DomainError::internal)?;
            Some(made.map_err(DomainError::internal)?)
        } else {
            None
        };
        let now = self.now();
        let mut tx = self.db().begin().await?;
        signing_keys::lock_keys(&mut tx).await?;
        let (plan, had_active) = plan_now(&mut tx).await?;
        for kid in &plan.retire {
            signing_keys::mark_retired(&mut tx, kid, now).await?;
            self.audit_key(&mut tx, "signing_key.retired", kid).await?;
        }
        if let Some(kid) = &plan.activate {
            signing_keys::activate_next(&mut tx, kid, now).await?;
            self.audit_key(&mut tx, "signing_key.activated", kid)
                .await?;
        }
        if let (true, Some(key)) = (plan.create_next, &fresh) {
            let sealed = self
                .sealer()
                .seal(key.private_der.expose_secret(), &context(&key.kid));
            let public = serde_json::to_value(&key.public_jwk).map_err(DomainError::internal)?;
            signing_keys::insert_key(&mut tx, &key.kid, &public, &sealed, false, now).await?;
            self.audit_key(&mut tx, "signing_key.created", &key.kid)
                .await?;
        }
        tx.commit().await.map_err(StorageError::from)?;
        Ok(!had_active)
    }

    /// For operators: all keys, retired ones too.
    pub async fn list_signing_keys(&self) -> DomainResult<Vec<SigningKeySummary>> {
        let mut conn = self.db().acquire().await?;
        signing_keys::list_keys(&mut conn, true)
            .await?
            .into_iter()
            .map(|r| {
                Ok(SigningKeySummary {
                    state: state_of(&r)?,
                    kid: r.kid,
                    created_at: r.created_at,
                    activated_at: r.activated_at,
                    retiring_since: r.retiring_since,
                })
            })
            .collect()
    }

    /// For operators: stops publishing a retiring key before its time, which refuses every token
    /// it signed. For a key that has leaked.
    pub async fn retire_signing_key(&self, kid: &str) -> DomainResult<()> {
        let mut tx = self.db().begin().await?;
        signing_keys::lock_keys(&mut tx).await?;
        let records = signing_keys::list_keys(&mut tx, true).await?;
        let Some(record) = records.iter().find(|r| r.kid == kid) else {
            return Err(DomainError::Conflict(format!(
                "there is no signing key {kid}; see `signing-key list`"
            )));
        };
        match state_of(record)? {
            KeyState::Retiring => {}
            KeyState::Retired => return Ok(()),
            KeyState::Active => {
                return Err(DomainError::Conflict(
                    "this key signs now; run `signing-key rotate` first, and retire it once it is retiring".into(),
                ));
            }
            KeyState::Next => {
                return Err(DomainError::Conflict(
                    "this key has not signed anything yet; it cannot be retired".into(),
                ));
            }
        }
        signing_keys::mark_retired(&mut tx, kid, self.now()).await?;
        self.audit_key(&mut tx, "signing_key.retired", kid).await?;
        tx.commit().await.map_err(StorageError::from)?;
        self.load_keys().await?;
        Ok(())
    }

    async fn audit_key(
        &self,
        conn: &mut PgConnection,
        action: &str,
        kid: &str,
    ) -> DomainResult<()> {
        Ok(self
            .audit_service(
                conn,
                "system",
                action,
                ("signing_key", kid),
                None,
                json!({}),
            )
            .await?)
    }
}
