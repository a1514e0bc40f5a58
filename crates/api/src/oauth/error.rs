//! Refusals under `/api/oauth/v1` in the protocol's form (RFC 6749 section 5.2). The front door
//! writes them, like all others; here is what the form asks for.

use std::borrow::Cow;

use cp_domain::oauth::OAuthErrorCode;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

/// A refusal of the OAuth interface.
#[derive(Serialize, ToSchema)]
#[schema(as = OAuthError)]
pub struct OAuthErrorBody<'a> {
    /// What happened, for programs: a code of RFC 6749 section 5.2 or RFC 8628 section 3.5.
    #[schema(example = "invalid_grant")]
    pub error: &'a str,
    /// What happened and what to do next, for people.
    #[schema(example = "The authorization code has expired. Start again.")]
    pub error_description: &'a str,
}

/// 400 for nearly everything (RFC 6749 section 5.2).
pub fn status(code: OAuthErrorCode) -> StatusCode {
    match code {
        OAuthErrorCode::InvalidClient => StatusCode::UNAUTHORIZED,
        OAuthErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        OAuthErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

/// The protocol's code for a refusal. Those that OAuth did not make, like a body that is too
/// large or a path that leads nowhere, have a code of ours, which no OAuth client knows.
pub fn protocol_code(status: StatusCode, code: &'static str) -> &'static str {
    let code = match code {
        "invalid_input"
        | "not_found"
        | "method_not_allowed"
        | "payload_too_large"
        | "unsupported_media_type" => OAuthErrorCode::InvalidRequest,
        "unauthorized" => OAuthErrorCode::InvalidClient,
        "internal_error" => OAuthErrorCode::ServerError,
        _ if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) =>
        {
            OAuthErrorCode::TemporarilyUnavailable
        }
        protocol => return protocol,
    };
    code.as_str()
}

/// The characters that `error_description` may have: printable ASCII without `"` and `\`.
pub fn description(message: &str) -> Cow<'_, str> {
    let allowed = |c: char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    if message.chars().all(allowed) {
        return Cow::Borrowed(message);
    }
    let replaced = message.chars().map(|c| match c {
        '"' | '\u{2018}'..='\u{201f}' => '\'',
        '\\' => '/',
        c if allowed(c) => c,
        _ => '?',
    });
    Cow::Owned(replaced.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_characters_of_the_rfc_are_written() {
        assert!(matches!(
            description("All is well: 1-2, (3)."),
            Cow::Borrowed(_)
        ));
        assert_eq!(
            description("a \"b\" \\ \u{201c}c\u{201d}\r\n\u{e9}"),
            "a 'b' / 'c'???"
        );
    }

    #[test]
    fn the_protocols_own_codes_stay() {
        let of = |code| protocol_code(StatusCode::BAD_REQUEST, code);
        assert_eq!(of("authorization_pending"), "authorization_pending");
        assert_eq!(of("slow_down"), "slow_down");
        assert_eq!(of("payload_too_large"), "invalid_request");
    }
}
