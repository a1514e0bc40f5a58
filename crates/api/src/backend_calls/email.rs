//! Mails that backends have us send (contract/project-backend.md 3.4).

use axum::Json;
use axum::extract::State;
use cp_domain::{ControlPlane, OwnMail, TemplateMail};
use cp_model::MailTemplate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Unproven;
use crate::body::{JsonBody, RequestBody};
use crate::docs::errors::{BackendErrors, BackendMailErrors};
use crate::params::{ProjectParam, one_of};
use crate::problem::Problem;
use crate::wire::schema;

/// What goes into a template: a code or a link.
#[derive(Deserialize, ToSchema)]
struct MailVariables {
    #[schema(nullable = false, example = "123456")]
    token: Option<String>,
    #[schema(
        nullable = false,
        example = "https://k7m2qx9d.eu-central.insforge.app/verify?token=abc"
    )]
    link: Option<String>,
}

/// A mail by one of our templates.
#[derive(Deserialize, ToSchema)]
pub struct TemplateMailRequest {
    #[schema(example = "ada@example.com")]
    email: String,
    #[schema(schema_with = schema::mail_template)]
    template: String,
    variables: MailVariables,
}

impl RequestBody for TemplateMailRequest {}

/// One address or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

impl Addresses {
    fn list(given: Option<&Self>) -> Vec<&str> {
        match given {
            None => Vec::new(),
            Some(Self::One(one)) => vec![one],
            Some(Self::Several(several)) => several.iter().map(String::as_str).collect(),
        }
    }
}

/// A mail that the project has written itself.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnMailRequest {
    #[schema(value_type = String, example = "ada@example.com")]
    to: Addresses,
    #[schema(example = "Your order")]
    subject: String,
    #[schema(example = "<p>It is on its way.</p>")]
    html: String,
    #[schema(value_type = Option<String>, nullable = false)]
    cc: Option<Addresses>,
    #[schema(value_type = Option<String>, nullable = false)]
    bcc: Option<Addresses>,
    /// The sender's name; the address is ours.
    #[schema(nullable = false, example = "Storefront")]
    from: Option<String>,
    #[schema(nullable = false)]
    reply_to: Option<String>,
}

impl RequestBody for OwnMailRequest {
    const MAX_BYTES: usize = 512 * 1024;
}

/// It will be sent.
#[derive(Serialize, ToSchema)]
pub struct MailQueued {
    success: bool,
}

/// Send a mail by a template
///
/// To one of the project's users, in the project's name, with the code or the link that its backend made.
#[utoipa::path(
    post,
    path = "/email/v1/{projectId}/send-with-template",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    request_body = TemplateMailRequest,
    responses(
        (status = 200, description = "It will be sent", body = MailQueued),
        BackendErrors, BackendMailErrors,
    )
)]
pub async fn send_template_mail(
    State(control_plane): State<ControlPlane>,
    call: Unproven,
    body: JsonBody<TemplateMailRequest>,
) -> Result<Json<MailQueued>, Problem> {
    let project = call.prove(&control_plane, None, &body.raw).await?;
    let request = &body.value;
    let (all, text) = (MailTemplate::ALL, MailTemplate::as_str);
    let mail = TemplateMail {
        email: &request.email,
        template: one_of("template", &request.template, all, text)?,
        token: request.variables.token.as_deref(),
        link: request.variables.link.as_deref(),
    };
    control_plane.send_template_mail(&project, &mail).await?;
    Ok(Json(MailQueued { success: true }))
}

/// Send a mail of the project's own
///
/// To at most 50 addresses. Not in the free plan.
#[utoipa::path(
    post,
    path = "/email/v1/{projectId}/send-on-demand",
    tag = "Backends",
    security(("signature" = [])),
    params(ProjectParam),
    request_body = OwnMailRequest,
    responses(
        (status = 200, description = "It will be sent", body = MailQueued),
        BackendErrors, BackendMailErrors,
    )
)]
pub async fn send_own_mail(
    State(control_plane): State<ControlPlane>,
    call: Unproven,
    body: JsonBody<OwnMailRequest>,
) -> Result<Json<MailQueued>, Problem> {
    let project = call.prove(&control_plane, None, &body.raw).await?;
    let request = &body.value;
    let mail = OwnMail {
        to: Addresses::list(Some(&request.to)),
        cc: Addresses::list(request.cc.as_ref()),
        bcc: Addresses::list(request.bcc.as_ref()),
        subject: &request.subject,
        html: &request.html,
        from: request.from.as_deref(),
        reply_to: request.reply_to.as_deref(),
    };
    control_plane.send_own_mail(&project, &mail).await?;
    Ok(Json(MailQueued { success: true }))
}
