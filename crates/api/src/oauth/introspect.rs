//! `POST /api/oauth/v1/introspect` (RFC 7662): what a token is good for. Only for applications
//! with a secret, and only about their own tokens.

use axum::Json;
use axum::extract::State;
use cp_domain::ControlPlane;
use cp_domain::oauth::Introspection;
use cp_model::{ClientId, UserId};
use serde::Serialize;
use utoipa::ToSchema;

use super::client_auth::ClientRequest;
use crate::docs::errors::OAuthErrors;
use crate::problem::Problem;

/// For the document.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by the OpenAPI generator alone")]
pub struct IntrospectionRequest {
    /// A refresh token or an access token.
    token: String,
    /// Not needed: what kind of token it is can be seen.
    token_type_hint: Option<String>,
    #[schema(example = "clf_abc123xyz")]
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// What a token is good for (RFC 7662 section 2.2). Of one that is good for nothing, no more is
/// told than that it is not active.
#[derive(Serialize, ToSchema)]
pub struct IntrospectionResponse {
    active: bool,
    /// All of what follows is told of active tokens only.
    #[serde(flatten)]
    token: Option<ActiveToken>,
}

/// A token that is good.
#[derive(Serialize, ToSchema)]
pub struct ActiveToken {
    #[schema(example = "user:read organizations:read")]
    scope: String,
    #[schema(value_type = String, example = "clf_abc123xyz")]
    client_id: ClientId,
    /// The person's e-mail address.
    #[schema(example = "ada@example.com")]
    username: String,
    /// Of access tokens: `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false)]
    token_type: Option<&'static str>,
    /// Until when, in seconds since 1970.
    exp: i64,
    /// Since when, in seconds since 1970.
    iat: i64,
    /// The person's id.
    #[schema(value_type = Uuid)]
    sub: UserId,
    /// Of access tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, nullable = false, example = "insforge-api")]
    aud: Option<&'static str>,
    #[schema(value_type = String, example = "insforge")]
    iss: &'static str,
    /// Of access tokens: the token's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    jti: Option<String>,
}

impl From<Option<Introspection>> for IntrospectionResponse {
    fn from(found: Option<Introspection>) -> Self {
        Self {
            active: found.is_some(),
            token: found.map(|token| ActiveToken {
                scope: token.scopes.to_string(),
                client_id: token.client_id,
                username: token.username,
                token_type: token.token_type,
                exp: token.exp,
                iat: token.iat,
                sub: token.sub,
                aud: token.aud,
                iss: token.iss,
                jti: token.jti,
            }),
        }
    }
}

/// Introspect a token
///
/// Whether a token of the client's own is good, and for what. For confidential clients.
#[utoipa::path(
    post,
    path = "/api/oauth/v1/introspect",
    tag = "OAuth",
    security(("client_secret" = [])),
    request_body(content(
        (IntrospectionRequest = "application/x-www-form-urlencoded"),
        (IntrospectionRequest = "application/json"),
    )),
    responses(
        (status = 200, description = "What the token is good for", body = IntrospectionResponse),
        OAuthErrors,
    )
)]
pub async fn introspect_token(
    State(control_plane): State<ControlPlane>,
    request: ClientRequest,
) -> Result<Json<IntrospectionResponse>, Problem> {
    let client = request.confidential_client(&control_plane).await?;
    let token = request.parameters.required("token")?;
    let found = control_plane.introspect(&client, token).await?;
    Ok(Json(found.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_dead_token_nothing_is_told() {
        let answer = serde_json::to_value(IntrospectionResponse::from(None)).unwrap();
        assert_eq!(answer, json!({"active": false}));
    }

    #[test]
    fn a_live_token_is_told_flat() {
        let sub = UserId::generate();
        let found = Introspection {
            scopes: "user:read".parse().unwrap(),
            client_id: "clf_abc".parse().unwrap(),
            username: "ada@example.com".into(),
            sub,
            iss: "insforge",
            iat: 1,
            exp: 2,
            token_type: None,
            aud: None,
            jti: None,
        };
        let answer = serde_json::to_value(IntrospectionResponse::from(Some(found))).unwrap();
        assert_eq!(
            answer,
            json!({"active": true, "scope": "user:read", "client_id": "clf_abc",
                   "username": "ada@example.com", "sub": sub, "iss": "insforge", "iat": 1, "exp": 2})
        );
    }
}
