//! Access tokens: JWTs (RFC 9068's type) whose claims are the public document's and `jti`. They
//! name their sign-in, so that every use can ask whether it still stands.

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::{ClientId, GrantId, Scopes, UserId};
use cp_tokens::secret::random_text_from;
use cp_tokens::session::{ACCESS_TOKEN, Session};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::Provider;
use crate::{DomainError, DomainResult};

pub(super) const ISSUER: &str = "insforge";
pub(super) const AUDIENCE: &str = "insforge-api";

/// The document's, seeds/oauth-server.md.
const LIFETIME: TimeDelta = TimeDelta::hours(1);

/// The one role that people have.
const ROLE: &str = "authenticated";

/// By how much the clocks of our processes may differ.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(1);

/// The document's claims beside the registered ones.
#[derive(Serialize, Deserialize)]
struct Claims {
    email: String,
    role: String,
    client_id: ClientId,
    scope: String,
}

/// What a token is made for.
pub(super) struct Subject<'a> {
    pub user: UserId,
    pub email: &'a str,
    pub grant: GrantId,
    pub grant_expires_at: DateTime<Utc>,
    pub client: &'a ClientId,
    pub scopes: &'a Scopes,
}

/// A token of ours that has not expired. Whether its sign-in still stands is another question.
pub(super) struct AccessToken {
    pub user: UserId,
    pub grant: GrantId,
    pub client: ClientId,
    pub scopes: Scopes,
    pub jti: String,
    pub iat: i64,
    pub exp: i64,
}

impl Provider {
    /// A token, and for how many seconds it is good.
    pub(super) fn issue_access_token(
        &self,
        subject: &Subject<'_>,
        now: DateTime<Utc>,
    ) -> DomainResult<(SecretString, i64)> {
        let random = random_text_from(b"0123456789abcdef", 16);
        let jti = format!("{}.{}", subject.grant, random.expose_secret());
        let claims = Claims {
            email: subject.email.to_owned(),
            role: ROLE.into(),
            client_id: subject.client.clone(),
            scope: subject.scopes.to_string(),
        };
        let lifetime = LIFETIME.min(subject.grant_expires_at - now);
        let sub = subject.user.to_string();
        let token = self
            .access_tokens
            .issue(ACCESS_TOKEN, &sub, &jti, claims, lifetime, now)
            .map_err(DomainError::internal)?;
        Ok((SecretString::from(token), lifetime.num_seconds()))
    }

    /// None for whatever is not a valid access token: other types, issuers, audiences, keys and
    /// algorithms, expired ones, and ones from the future.
    pub(super) fn read_access_token(&self, token: &str, now: DateTime<Utc>) -> Option<AccessToken> {
        let session: Session<Claims> = self
            .access_tokens
            .verify(ACCESS_TOKEN, token, now)
            .inspect_err(|error| tracing::debug!(%error, "an access token was refused"))
            .ok()?;
        if session.iat > (now + CLOCK_SKEW).timestamp() {
            return None;
        }
        let (grant, _) = session.jti.split_once('.')?;
        let scopes: Vec<&str> = session.claims.scope.split(' ').collect();
        Some(AccessToken {
            user: session.sub.parse().ok()?,
            grant: grant.parse().ok()?,
            client: session.claims.client_id,
            scopes: Scopes::from_texts(&scopes),
            jti: session.jti,
            iat: session.iat,
            exp: session.exp,
        })
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use cp_tokens::sealing::{Sealer, SealingKey};
    use cp_tokens::session::{SessionSecret, SessionTokens};
    use serde_json::{Value, json};

    use super::*;

    fn key(id: &str) -> SealingKey {
        SealingKey::new(id, [7; 32]).unwrap()
    }

    fn provider() -> Provider {
        Provider::new(&Sealer::new(key("k1"), vec![]).unwrap())
    }

    fn noon() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 1, 21, 12, 0, 0).unwrap()
    }

    fn issue(provider: &Provider, left: TimeDelta) -> (String, i64, GrantId, UserId) {
        let (grant, user) = (GrantId::generate(), UserId::generate());
        let subject = Subject {
            user,
            email: "ada@example.com",
            grant,
            grant_expires_at: noon() + left,
            client: &"clf_a".parse().unwrap(),
            scopes: &"projects:read user:read".parse().unwrap(),
        };
        let (token, expires_in) = provider.issue_access_token(&subject, noon()).unwrap();
        (token.expose_secret().to_owned(), expires_in, grant, user)
    }

    #[test]
    fn a_token_says_what_it_was_made_for() {
        let provider = provider();
        let (token, expires_in, grant, user) = issue(&provider, TimeDelta::days(1));
        assert_eq!(expires_in, 3600);
        let read = provider.read_access_token(&token, noon()).unwrap();
        assert_eq!((read.user, read.grant), (user, grant));
        assert_eq!(read.client.as_str(), "clf_a");
        assert_eq!(read.scopes.to_string(), "user:read projects:read");
        assert_eq!(read.exp - read.iat, 3600);
        let (other, ..) = issue(&provider, TimeDelta::days(1));
        assert_ne!(
            provider.read_access_token(&other, noon()).unwrap().jti,
            read.jti
        );
    }

    #[test]
    fn a_token_has_exactly_the_documents_claims_and_jti() {
        let provider = provider();
        let (token, ..) = issue(&provider, TimeDelta::days(1));
        let session: Session<serde_json::Map<String, Value>> = provider
            .access_tokens
            .verify(ACCESS_TOKEN, &token, noon())
            .unwrap();
        let mut names: Vec<_> = session.claims.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["client_id", "email", "role", "scope"]);
        assert_eq!(session.claims["role"], "authenticated");
        assert_eq!(
            (session.iss.as_str(), session.aud.as_str()),
            ("insforge", "insforge-api")
        );
    }

    #[test]
    fn a_token_ends_with_its_sign_in() {
        let provider = provider();
        let (token, expires_in, ..) = issue(&provider, TimeDelta::minutes(10));
        assert_eq!(expires_in, 600);
        let later = |minutes| noon() + TimeDelta::minutes(minutes);
        assert!(provider.read_access_token(&token, later(9)).is_some());
        assert!(provider.read_access_token(&token, later(10)).is_none());
    }

    #[test]
    fn tokens_of_others_other_types_and_other_times_are_refused() {
        let provider = provider();
        let (token, ..) = issue(&provider, TimeDelta::days(1));
        let stranger = Provider::new(&Sealer::new(SealingKey::generate(), vec![]).unwrap());
        assert!(stranger.read_access_token(&token, noon()).is_none());
        assert!(
            provider
                .read_access_token(&token, noon() - TimeDelta::minutes(2))
                .is_none()
        );
        assert!(
            provider
                .read_access_token(&token, noon() + TimeDelta::hours(1))
                .is_none()
        );
        for bad in [
            "",
            ".",
            "..",
            "a.b.c",
            &token[..token.len() - 1],
            &format!("{token}.x"),
        ] {
            assert!(provider.read_access_token(bad, noon()).is_none(), "{bad}");
        }
        // The same secret, but a token for something else, or without a sign-in.
        let sealer = Sealer::new(key("k1"), vec![]).unwrap();
        let (kid, secret) = sealer.derived_keys("access token").remove(0);
        let ours =
            SessionTokens::new(ISSUER, AUDIENCE, &SessionSecret { kid, secret }, &[]).unwrap();
        let claims = json!({"email": "a@b.c", "role": "authenticated", "client_id": "clf_a", "scope": "user:read"});
        let grant = format!("{}.0", GrantId::generate());
        let user = UserId::generate().to_string();
        for (typ, sub, jti, good) in [
            (ACCESS_TOKEN, &*user, &*grant, true),
            ("jwt", &user, &grant, false),
            (ACCESS_TOKEN, "admin", &grant, false),
            (ACCESS_TOKEN, &user, "x", false),
            (ACCESS_TOKEN, &user, "x.y", false),
        ] {
            let token = ours
                .issue(typ, sub, jti, claims.clone(), TimeDelta::hours(1), noon())
                .unwrap();
            assert_eq!(
                provider.read_access_token(&token, noon()).is_some(),
                good,
                "{typ} {sub} {jti}"
            );
        }
    }

    #[test]
    fn tokens_outlive_a_new_sealing_key() {
        let (token, ..) = issue(&provider(), TimeDelta::days(1));
        let rotated = Provider::new(&Sealer::new(SealingKey::generate(), vec![key("k1")]).unwrap());
        assert!(rotated.read_access_token(&token, noon()).is_some());
    }
}
