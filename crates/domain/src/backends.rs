//! What projects' backends ask of us, signed with their project's `JWT_SECRET` (contract/project-backend.md 3).

use chrono::TimeDelta;
use cp_model::{Project, ProjectId};
use cp_storage::{machines, projects, used_signatures};
use cp_tokens::backend_signature;
use cp_tokens::secret::hash_bytes;
use secrecy::SecretString;

use crate::operations::commit;
use crate::{ControlPlane, DomainError, DomainResult};

/// The database of every backend, and who enters it (contract/project-backend.md 1.3).
const DATABASE: &str = "insforge";
const USER: &str = "postgres";

/// Signatures are made to the second, so two who ask for the same thing at once have the same one.
const AT_ONCE: TimeDelta = TimeDelta::seconds(5);

/// Calls of one backend in a minute.
const A_MINUTE: u32 = 600;

/// A call as it was signed for.
#[derive(Debug, Clone, Copy)]
pub struct SignedCall<'a> {
    /// Method and route, without what stands for its parameters.
    pub name: &'a str,
    /// JSON, or nothing.
    pub body: &'a [u8],
    /// Whether doing it twice is more than doing it once.
    pub changes: bool,
}

impl SignedCall<'_> {
    /// The same for the same call, however its body is spelled.
    fn canonical(&self) -> String {
        let mut body: serde_json::Value = serde_json::from_slice(self.body).unwrap_or_default();
        body.sort_all_objects();
        format!("{}\0{body}", self.name)
    }
}

/// Where a project's database is, and how it is entered. Has a secret, so no `Debug`.
pub struct DatabaseAccess {
    pub host: String,
    pub port: u16,
    pub database: &'static str,
    pub user: &'static str,
    pub password: SecretString,
}

impl ControlPlane {
    /// The live project whose backend signed this. Backends sign each call anew, though only to the second: a signature is
    /// good for some seconds from its first use, and for each change once. All that is wrong is answered alike, whether there
    /// is such a project or not.
    pub async fn authenticate_backend(
        &self,
        id: ProjectId,
        signature: Option<&str>,
        call: SignedCall<'_>,
    ) -> DomainResult<Project> {
        let now = self.now();
        let signature = signature.ok_or(DomainError::Unauthorized)?;
        let mut tx = self.db().begin().await?;
        let project = projects::find_project(&mut tx, id).await?;
        let project = project.filter(|project| project.status.is_live());
        let project = project.ok_or(DomainError::Unauthorized)?;
        let secret = self.jwt_secret(&mut tx, id).await?;
        let subject = id.to_string();
        let until = backend_signature::verify(&secret, signature, &subject, now);
        let until = until.map_err(|error| {
            tracing::info!(project = %id, %error, "a backend's signature is refused");
            DomainError::Unauthorized
        })?;
        let digest = |what: &str| hash_bytes(format!("{what}\0{signature}").as_bytes());
        // Whatever it was used for: one that stood in an address is in the logs of whoever stands before us.
        let used = digest("used");
        let first = used_signatures::insert_signature(&mut tx, id, &used, now, until).await?;
        let mut is_replay = first.is_some_and(|first| now - first > AT_ONCE);
        if call.changes {
            let change = digest(&call.canonical());
            let first = used_signatures::insert_signature(&mut tx, id, &change, now, until).await?;
            is_replay |= first.is_some();
        }
        if is_replay {
            tracing::warn!(project = %id, call = call.name, "a backend's signature came again");
            return Err(DomainError::Unauthorized);
        }
        commit(tx).await?;
        self.take(&format!("backend:{id}"), A_MINUTE).await?;
        Ok(project)
    }

    /// How the project's database is entered from outside. None: it is nowhere, or nobody has said where.
    pub async fn database_access(&self, id: ProjectId) -> DomainResult<Option<DatabaseAccess>> {
        let mut conn = self.db().acquire().await?;
        let machine = machines::find_project_machine(&mut conn, id).await?;
        let Some(machine) = machine else {
            return Ok(None);
        };
        let address = machines::find_database_address(&mut conn, machine.id).await?;
        let place = address.as_deref().and_then(|address| {
            let (host, port) = address.rsplit_once(':')?;
            Some((host.to_owned(), port.parse().ok()?))
        });
        drop(conn);
        let password = self.database_password(id).await?;
        Ok(place.map(|(host, port)| DatabaseAccess {
            host,
            port,
            database: DATABASE,
            user: USER,
            password,
        }))
    }
}
