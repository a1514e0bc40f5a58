//! The secrets of a project's backend: made with the project, sealed at once, opened where they
//! are shown or handed to the machine.

use cp_model::ProjectId;
use cp_storage::{PgConnection, project_secrets};
use cp_tokens::sealing::Sealer;
use cp_tokens::secret::{generate_anon_key, generate_api_key, random_text};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::operations::{Lease, commit, held, lock};
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// What a backend keeps secret (contract/project-backend.md section 1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SecretName {
    ApiKey,
    AnonKey,
    JwtSecret,
    EncryptionKey,
    DatabasePassword,
    AdminPassword,
}

impl SecretName {
    const ALL: [Self; 6] = [
        Self::ApiKey,
        Self::AnonKey,
        Self::JwtSecret,
        Self::EncryptionKey,
        Self::DatabasePassword,
        Self::AdminPassword,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::AnonKey => "anon_key",
            Self::JwtSecret => "jwt_secret",
            Self::EncryptionKey => "encryption_key",
            Self::DatabasePassword => "database_password",
            Self::AdminPassword => "admin_password",
        }
    }

    fn generate(self) -> SecretString {
        match self {
            Self::ApiKey => generate_api_key(),
            Self::AnonKey => generate_anon_key(),
            Self::JwtSecret | Self::EncryptionKey => random_text(48),
            Self::DatabasePassword | Self::AdminPassword => random_text(32),
        }
    }

    /// Binds the sealed value to its row: moved to another project or kind it does not open.
    fn context(self, project: ProjectId) -> String {
        format!("project:{project}:{}", self.as_str())
    }
}

/// Opens a sealed secret of a project.
pub(crate) fn open(
    sealer: &Sealer,
    project: ProjectId,
    name: SecretName,
    sealed: &[u8],
) -> DomainResult<SecretString> {
    sealer
        .open_text(sealed, &name.context(project))
        .map_err(|e| {
            DomainError::internal(format!(
                "{} of project {project} cannot be opened: {e}",
                name.as_str()
            ))
        })
}

/// All secrets of a project, opened.
pub(crate) struct ProjectSecrets(Vec<(String, SecretString)>);

impl ProjectSecrets {
    pub(crate) fn get(&self, name: SecretName) -> DomainResult<&str> {
        self.0
            .iter()
            .find(|(kind, _)| kind == name.as_str())
            .map(|(_, value)| value.expose_secret())
            .ok_or_else(|| DomainError::internal(format!("a project lacks its {}", name.as_str())))
    }
}

impl ControlPlane {
    pub(crate) async fn make_secrets(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
    ) -> DomainResult<()> {
        let sealed: Vec<_> = SecretName::ALL
            .into_iter()
            .map(|name| {
                let value = name.generate();
                let sealed = self
                    .sealer()
                    .seal(value.expose_secret().as_bytes(), &name.context(project));
                (name.as_str().to_owned(), sealed)
            })
            .collect();
        Ok(project_secrets::insert_secrets(conn, project, &sealed, self.now()).await?)
    }

    /// A branch has keys of its own, but for the two without which it could neither read its parent's
    /// ciphertexts nor know its users (branching.md).
    pub(crate) async fn make_branch_secrets(
        &self,
        conn: &mut PgConnection,
        branch: ProjectId,
        parent: ProjectId,
    ) -> DomainResult<()> {
        let of_parent = self.open_secrets(conn, parent).await?;
        let mut sealed = Vec::new();
        for name in SecretName::ALL {
            let value = match name {
                SecretName::JwtSecret | SecretName::EncryptionKey => {
                    SecretString::from(of_parent.get(name)?)
                }
                _ => name.generate(),
            };
            let value = value.expose_secret().as_bytes();
            let value = self.sealer().seal(value, &name.context(branch));
            sealed.push((name.as_str().to_owned(), value));
        }
        Ok(project_secrets::insert_secrets(conn, branch, &sealed, self.now()).await?)
    }

    /// For workers: the password of the project's Postgres superuser.
    pub async fn database_password(&self, project: ProjectId) -> DomainResult<SecretString> {
        let mut conn = self.db().acquire().await?;
        let name = SecretName::DatabasePassword;
        let sealed = project_secrets::find_secret(&mut conn, project, name.as_str())
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        open(self.sealer(), project, name, &sealed)
    }

    /// With which the project's backend signs.
    pub(crate) async fn jwt_secret(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
    ) -> DomainResult<SecretString> {
        let name = SecretName::JwtSecret;
        let sealed = project_secrets::find_secret(conn, project, name.as_str())
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        open(self.sealer(), project, name, &sealed)
    }

    pub(crate) async fn open_secrets(
        &self,
        conn: &mut PgConnection,
        project: ProjectId,
    ) -> DomainResult<ProjectSecrets> {
        let mut opened = Vec::new();
        for (kind, sealed) in project_secrets::list_secrets(conn, project).await? {
            if let Some(name) = SecretName::ALL.into_iter().find(|n| n.as_str() == kind) {
                opened.push((kind, open(self.sealer(), project, name, &sealed)?));
            }
        }
        Ok(ProjectSecrets(opened))
    }

    /// The key with which the worker checks that a backend serves.
    pub async fn project_api_key(&self, project: ProjectId) -> DomainResult<SecretString> {
        let mut conn = self.db().acquire().await?;
        let sealed = project_secrets::find_secret(&mut conn, project, SecretName::ApiKey.as_str())
            .await?
            .ok_or(DomainError::NotFound(Thing::Project))?;
        open(self.sealer(), project, SecretName::ApiKey, &sealed)
    }

    /// The project's owner gave the backend another API key, of which nobody told us.
    pub async fn record_rotated_api_key(
        &self,
        lease: &Lease,
        api_key: &SecretString,
    ) -> DomainResult<()> {
        let (project, name) = (lease.project, SecretName::ApiKey);
        let sealed = self
            .sealer()
            .seal(api_key.expose_secret().as_bytes(), &name.context(project));
        let mut tx = self.begin_under(lease).await?;
        held(project_secrets::replace_secret(&mut tx, project, name.as_str(), &sealed).await?)?;
        let (project, action) = (lock(&mut tx, project).await?, "project.api_key_learned");
        self.audit_operation(
            &mut tx,
            "system",
            action,
            lease.operation,
            &project,
            json!({}),
        )
        .await?;
        commit(tx).await
    }
}
