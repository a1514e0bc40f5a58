//! Organizations for people: `/organizations/v1/…`, by an access token or an API key (contract/platform-api.md 7 to
//! 9). What changes an organization or its members is open only to whoever stands for the whole person
//! (contract/oauth.md).

mod audit_log;
mod members;
mod organization;
mod projects;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(
            organization::list_organizations,
            organization::create_organization
        ))
        .routes(routes!(
            organization::update_organization,
            organization::delete_organization
        ))
        .routes(routes!(organization::leave_organization))
        .routes(routes!(members::list_members))
        .routes(routes!(members::invite_member))
        .routes(routes!(members::remove_member))
        .routes(routes!(members::set_member_role))
        .routes(routes!(members::revoke_invitation))
        .routes(routes!(audit_log::list_audit_log))
        .routes(routes!(
            projects::list_organization_projects,
            projects::create_project
        ))
}
