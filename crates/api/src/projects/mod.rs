//! Projects for the people of their organization: `/projects/v1/{projectId}…`, by an access token or an API key
//! (contract/platform-api.md 9). A branch's id is as good as a project's.

mod backups;
mod change;
mod project;
mod run;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::ApiState;

pub fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::default()
        .routes(routes!(
            project::get_project,
            change::update_project,
            change::delete_own_project
        ))
        .routes(routes!(project::get_access_api_key))
        .routes(routes!(change::transfer_project))
        .routes(routes!(run::pause_own_project))
        .routes(routes!(run::restore_own_project))
        .routes(routes!(run::restart_own_project))
        .routes(routes!(run::upgrade_instance))
        .routes(routes!(backups::list_backups))
        .routes(routes!(backups::get_latest_backup))
        .routes(routes!(backups::create_backup))
        .routes(routes!(backups::rename_backup, backups::delete_backup))
        .routes(routes!(backups::restore_backup))
}
