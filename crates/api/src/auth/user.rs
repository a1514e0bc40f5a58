//! A person as the wire has them: the union of the public document's shape (seeds/oauth-server.md)
//! and the command-line client's (contract/platform-api.md 4.1).

use axum::Json;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use cp_domain::Profile;
use cp_domain::oauth::TokenPair;
use cp_model::UserId;
use http::StatusCode;
use http::header::SET_COOKIE;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::refresh_cookie;
use crate::problem::Problem;
use crate::wire::time;

/// A person.
#[derive(Serialize, ToSchema)]
pub struct User<'a> {
    #[schema(value_type = Uuid)]
    id: UserId,
    #[schema(example = "ada@example.com")]
    email: &'a str,
    #[schema(example = "Ada Moreno")]
    name: &'a str,
    #[schema(required)]
    avatar_url: Option<&'a str>,
    email_verified: bool,
    #[serde(serialize_with = "time::seconds")]
    #[schema(example = "2025-01-01T00:00:00Z")]
    created_at: DateTime<Utc>,
    profile: UserProfile<'a>,
}

/// What the person shows of themselves.
#[derive(Serialize, ToSchema)]
pub struct UserProfile<'a> {
    #[schema(example = "Ada Moreno")]
    name: &'a str,
    #[schema(required)]
    avatar_url: Option<&'a str>,
}

impl<'a> From<&'a Profile> for User<'a> {
    fn from(profile: &'a Profile) -> Self {
        let name = profile.name.as_str();
        let avatar_url = profile.avatar_url.as_deref();
        Self {
            id: profile.id,
            email: &profile.email,
            name,
            avatar_url,
            email_verified: profile.email_verified,
            created_at: profile.created_at,
            profile: UserProfile { name, avatar_url },
        }
    }
}

/// A session that was begun or goes on. The token is a credential, so this has no `Debug`.
#[derive(Serialize, ToSchema)]
pub struct SessionResponse<'a> {
    /// An access token, for `Authorization: Bearer`.
    #[schema(example = "eyJhbGciOiJIUzI1NiIs...")]
    token: &'a str,
    user: User<'a>,
}

/// Answers with the access token; the refresh token goes into its cookie.
pub fn answer_session(
    status: StatusCode,
    tokens: &TokenPair,
    base_url: &str,
) -> Result<Response, Problem> {
    let cookie = refresh_cookie::set(&tokens.refresh_token, base_url)?;
    let body = Json(SessionResponse {
        token: tokens.access_token.expose_secret(),
        user: User::from(&tokens.user),
    });
    Ok((status, [(SET_COOKIE, cookie)], body).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_documents_find_their_fields() {
        let id = UserId::generate();
        let profile = Profile {
            id,
            email: "ada@example.com".into(),
            name: "Ada Moreno".into(),
            avatar_url: None,
            email_verified: true,
            created_at: "2025-01-01T00:00:00.123Z".parse().unwrap(),
        };
        assert_eq!(
            serde_json::to_value(User::from(&profile)).unwrap(),
            json!({
                "id": id, "email": "ada@example.com", "name": "Ada Moreno", "avatar_url": null,
                "email_verified": true, "created_at": "2025-01-01T00:00:00Z",
                "profile": {"name": "Ada Moreno", "avatar_url": null},
            })
        );
    }
}
