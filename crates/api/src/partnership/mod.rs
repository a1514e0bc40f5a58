//! The partnership interface, one file per endpoint (contract/partnership-api.md). `router` puts
//! [`crate::partner_auth`] before all of it.

mod authorization;
mod connect_user;
mod delete_project;
mod list_projects;
mod metadata;
mod operation;
mod partner_usage;
mod pause;
mod project_request;
mod project_usage;
mod restart;
mod restore;
mod sync_embedded_project;
mod sync_project;
mod upgrade;
mod usage_report_link;
mod user_metadata;
mod wait;

pub use wait::project_of;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(connect_user::connect_user))
        .routes(routes!(sync_project::sync_project))
        .routes(routes!(user_metadata::get_user_project_metadata))
        .routes(routes!(sync_embedded_project::sync_embedded_project))
        .routes(routes!(metadata::get_project_metadata))
        .routes(routes!(pause::pause_project))
        .routes(routes!(restore::restore_project))
        .routes(routes!(restart::restart_project))
        .routes(routes!(upgrade::upgrade_project))
        .routes(routes!(delete_project::delete_project))
        .routes(routes!(authorization::authorize_project))
        .routes(routes!(list_projects::list_projects))
        .routes(routes!(operation::get_operation))
        .routes(routes!(project_usage::get_project_usage))
        .routes(routes!(partner_usage::get_partner_usage))
        .routes(routes!(usage_report_link::create_usage_report_link))
        .merge(crate::branches::partners())
}
