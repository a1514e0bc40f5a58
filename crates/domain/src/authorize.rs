//! Ten-minute authorizations for a project's backend, signed with our RSA key.

use cp_model::{ProjectId, ProjectStatus};
use cp_storage::projects;
use cp_tokens::keyring::{
    NewProjectAuthorization, PROJECT_AUTHORIZATION_LIFETIME, ProjectAuthorization,
};

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
        let claims = ProjectAuthorization::new(
            NewProjectAuthorization {
                issuer: &self.settings().base_url,
                audience: &audience,
                project_id: id.0,
                user_id: &user_id,
            },
            self.now(),
        )
        .map_err(DomainError::internal)?;
        let code = self.sign(claims).await?;
        Ok(Authorization {
            code,
            expires_in: PROJECT_AUTHORIZATION_LIFETIME.num_seconds(),
        })
    }
}
