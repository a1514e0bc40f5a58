//! Ten-minute authorizations for a project's backend, signed with our RSA key.

use cp_model::{ProjectId, ProjectStatus};
use cp_storage::projects;
use cp_tokens::keyring::{
    NewProjectAuthorization, PROJECT_AUTHORIZATION_LIFETIME, ProjectAuthorization,
};
use secrecy::SecretString;

use crate::context::PartnerCaller;
use crate::{ControlPlane, DomainError, DomainResult, Thing};

/// A signed authorization. The backend's admin session exchange takes it as `code`.
pub struct Authorization {
    pub code: String,
    /// Seconds.
    pub expires_in: i64,
}

impl ControlPlane {
    pub async fn authorize_project(
        &self,
        by: &PartnerCaller,
        id: ProjectId,
    ) -> DomainResult<Authorization> {
        let mut conn = self.db().acquire_for_one().await?;
        let project = projects::find_partner_project(&mut conn, &by.partner.id, id).await?;
        conn.done();
        let project = project.ok_or(DomainError::NotFound(Thing::Project))?;
        if project.status != ProjectStatus::Active {
            return Err(DomainError::ProjectNotActive {
                status: project.status,
            });
        }
        let audience = project.access_host.ok_or_else(|| {
            DomainError::internal(format!("active project {id} has no access host"))
        })?;
        let user_id = match project.user_id {
            Some(user) => user.to_string(),
            None => by.actor(),
        };
        Ok(Authorization {
            code: self.sign_authorization(id, &audience, &user_id).await?,
            expires_in: PROJECT_AUTHORIZATION_LIFETIME.num_seconds(),
        })
    }

    /// For a service of ours that asks a project's backend something.
    pub async fn authorize_service(
        &self,
        project: ProjectId,
        access_host: &str,
        service: &str,
    ) -> DomainResult<SecretString> {
        let user = format!("service:{service}");
        let signed = self.sign_authorization(project, access_host, &user);
        Ok(signed.await?.into())
    }

    async fn sign_authorization(
        &self,
        project: ProjectId,
        audience: &str,
        user_id: &str,
    ) -> DomainResult<String> {
        let claims = ProjectAuthorization::new(
            NewProjectAuthorization {
                issuer: &self.settings().base_url,
                audience,
                project_id: project.0,
                user_id,
            },
            self.now(),
        )
        .map_err(DomainError::internal)?;
        self.sign(claims).await
    }
}
