//! Sign-ins: how a code, a device or a password becomes one, how refresh tokens keep it going, and
//! how it ends.
//!
//! A refresh token is used by one UPDATE, which also makes its successor. The successor is derived
//! from it (HMAC, a key of ours), so a client that lost the answer may ask again with the same
//! token for a minute and is told the same one, although only its hash is stored. Whoever comes
//! with an older token holds what somebody else has used: the sign-in ends for both (RFC 9700
//! section 4.14.2).

use chrono::{DateTime, TimeDelta, Utc};
use cp_model::oauth::CLI_CLIENT_ID;
use cp_model::{ClientId, GrantId, OAuthClient, Scopes, UserId};
use cp_storage::oauth_codes::{self, TakenCode};
use cp_storage::oauth_grants::{
    self, Account, KnownRefreshToken, LiveGrant, NewGrant, Origin, Rotation,
};
use cp_storage::{PgConnection, StorageError, accounts};
use cp_tokens::pkce;
use cp_tokens::secret::{OpaqueSecret, SecretKind};
use secrecy::SecretString;
use serde_json::json;

use super::access_tokens::Subject;
use super::{OAuthError, OAuthErrorCode, kept_user_agent, parse_scopes, profile};
use crate::context::Caller;
use crate::{ControlPlane, DomainError, DomainResult, Profile};

/// After this long without a refresh a sign-in is over.
pub(crate) const IDLE: TimeDelta = TimeDelta::days(30);

/// After this long it is over, whatever happens.
const LONGEST: TimeDelta = TimeDelta::days(365);

/// How long a refresh token may be sent again by a client that lost the answer.
const RETRY: TimeDelta = TimeDelta::seconds(60);

/// A sign-in is noted as used no more often than this.
const SEEN: TimeDelta = TimeDelta::minutes(1);

/// What a client gets. It holds secrets, so it has no `Debug`.
pub struct TokenPair {
    pub access_token: SecretString,
    pub refresh_token: SecretString,
    /// Seconds until the access token ends.
    pub expires_in: i64,
    /// Of the access token.
    pub scopes: Scopes,
    pub user: Profile,
}

/// A sign-in about to be made.
pub(super) struct SignIn<'a> {
    pub client: &'a ClientId,
    pub user: UserId,
    pub scopes: Scopes,
    pub origin: Origin,
    pub caller: &'a Caller,
    pub user_agent: Option<&'a str>,
}

fn dead_code() -> OAuthError {
    OAuthError::invalid_grant(
        "The authorization code is not valid: it has expired, was used before, or was never issued.",
    )
}

fn dead_refresh_token() -> OAuthError {
    OAuthError::invalid_grant(
        "The refresh token is not valid: it has expired, was revoked or replaced, or was never issued. Sign in again.",
    )
}

/// Whether the code was made for this request (RFC 6749 section 4.1.3, RFC 7636 section 4.6).
fn check_code(
    code: &TakenCode,
    client: &OAuthClient,
    redirect_uri: &str,
    code_verifier: &str,
) -> Result<(), OAuthError> {
    if code.client != client.id {
        return Err(dead_code());
    }
    if code.redirect_uri != redirect_uri {
        return Err(OAuthError::invalid_grant(
            "The redirect_uri is not the one of the authorization request.",
        ));
    }
    if !pkce::verify(code_verifier, &code.code_challenge) {
        return Err(OAuthError::invalid_grant(
            "The code_verifier does not belong to the code_challenge of the authorization request.",
        ));
    }
    Ok(())
}

/// What a refresh token that is not live for this request means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It has become live since: use it.
    TryAgain,
    /// The client lost the answer: this is its successor's hash.
    Retry(Vec<u8>),
    /// Somebody uses what somebody else has used already.
    Replay,
    Dead,
    TooMuch,
}

fn judge(
    known: &KnownRefreshToken,
    client: &ClientId,
    wanted: Option<&Scopes>,
    now: DateTime<Utc>,
) -> Verdict {
    if known.client != *client || known.is_over {
        return Verdict::Dead;
    }
    let too_much = wanted.is_some_and(|wanted| !wanted.is_subset(&known.grant.scopes));
    match (known.used_at, &known.live_successor) {
        (Some(used_at), Some(successor)) if now - used_at <= RETRY => {
            if too_much {
                Verdict::TooMuch
            } else {
                Verdict::Retry(successor.clone())
            }
        }
        (Some(_), _) => Verdict::Replay,
        (None, _) if known.expires_at <= now => Verdict::Dead,
        (None, _) if too_much => Verdict::TooMuch,
        (None, _) => Verdict::TryAgain,
    }
}

impl ControlPlane {
    /// Exchanges an authorization code. Whatever does not fit uses it up; one that comes again
    /// ends the sign-in that it was exchanged for (RFC 6749 section 4.1.2).
    pub async fn exchange_code(
        &self,
        client: &OAuthClient,
        code: &str,
        redirect_uri: Option<&str>,
        code_verifier: Option<&str>,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<TokenPair> {
        let given = |value: Option<&'_ str>, missing: &'static str| match value {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(OAuthError::invalid_request(missing)),
        };
        let redirect_uri = given(redirect_uri, "The parameter redirect_uri is missing.")?;
        let code_verifier = given(code_verifier, "The parameter code_verifier is missing.")?;
        let code = OpaqueSecret::parse(SecretKind::AuthorizationCode, code)
            .map_err(|_| dead_code())?
            .hash();
        let mut tx = self.db().begin().await?;
        let Some(taken) = oauth_codes::take_code(&mut tx, code.as_bytes(), self.now()).await?
        else {
            self.end_replayed(&mut tx, client, code.as_bytes(), caller)
                .await?;
            tx.commit().await.map_err(StorageError::from)?;
            return Err(dead_code().into());
        };
        if let Err(refusal) = check_code(&taken, client, &redirect_uri, &code_verifier) {
            // It stays used: nobody tries verifiers one after the other.
            tx.commit().await.map_err(StorageError::from)?;
            return Err(refusal.into());
        }
        let sign_in = SignIn {
            client: &client.id,
            user: taken.user,
            scopes: taken.scopes,
            origin: Origin::AuthorizationCode,
            caller,
            user_agent,
        };
        let Some((grant, tokens)) = self.begin_sign_in(&mut tx, sign_in).await? else {
            tx.commit().await.map_err(StorageError::from)?;
            return Err(dead_code().into());
        };
        oauth_codes::set_grant(&mut tx, code.as_bytes(), grant).await?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(tokens)
    }

    /// Ends what the first use of the code made, if there was one.
    async fn end_replayed(
        &self,
        conn: &mut PgConnection,
        client: &OAuthClient,
        code: &[u8],
        caller: &Caller,
    ) -> DomainResult<()> {
        let Some(grant) = oauth_codes::find_grant_of_used_code(conn, code).await? else {
            return Ok(());
        };
        let ended = self
            .end_sign_in(conn, grant, client, caller, "oauth.code_replayed")
            .await?;
        if ended {
            tracing::warn!(%grant, client = %client.id, "an authorization code came twice; its sign-in was ended");
        }
        Ok(())
    }

    /// False: it had ended before, and nothing needs to be written down.
    async fn end_sign_in(
        &self,
        conn: &mut PgConnection,
        grant: GrantId,
        client: &OAuthClient,
        caller: &Caller,
        action: &'static str,
    ) -> DomainResult<bool> {
        let because = match action {
            "oauth.code_replayed" => "code_replayed",
            "oauth.refresh_replayed" => "refresh_token_replayed",
            _ => "revoked_by_client",
        };
        let ended = oauth_grants::mark_revoked(conn, grant, because, self.now()).await?;
        if ended {
            let details = json!({ "client_id": client.id.as_str() });
            self.audit_client(conn, &client.id, caller, action, grant, details)
                .await?;
        }
        Ok(ended)
    }

    /// Makes a sign-in with its first tokens. None: the account is disabled.
    pub(super) async fn begin_sign_in(
        &self,
        conn: &mut PgConnection,
        sign_in: SignIn<'_>,
    ) -> DomainResult<Option<(GrantId, TokenPair)>> {
        let now = self.now();
        let grant = GrantId::generate();
        let refresh_token = OpaqueSecret::generate(SecretKind::RefreshToken);
        let address = sign_in.caller.address.map(|a| a.to_string());
        let user_agent = kept_user_agent(sign_in.user_agent);
        let hash = refresh_token.hash();
        let new = NewGrant {
            id: grant,
            user: sign_in.user,
            client: sign_in.client,
            scopes: &sign_in.scopes,
            origin: sign_in.origin,
            address: address.as_deref(),
            user_agent: user_agent.as_deref(),
            refresh_hash: hash.as_bytes(),
            refresh_expires_at: now + IDLE,
            expires_at: now + LONGEST,
            now,
        };
        let Some(account) = oauth_grants::insert_grant(conn, &new).await? else {
            return Ok(None);
        };
        let details = json!({
            "client_id": sign_in.client.as_str(),
            "user_id": sign_in.user.to_string(),
            "origin": sign_in.origin.as_str(),
            "scope": sign_in.scopes.to_string(),
        });
        let SignIn { client, caller, .. } = sign_in;
        self.audit_client(conn, client, caller, "oauth.token_issued", grant, details)
            .await?;
        let live = LiveGrant {
            id: grant,
            scopes: sign_in.scopes,
            expires_at: now + LONGEST,
            account,
        };
        let tokens = self.token_pair(sign_in.client, live, None, refresh_token, now)?;
        Ok(Some((grant, tokens)))
    }

    /// A fresh access token beside this refresh token; `wanted` narrows it.
    fn token_pair(
        &self,
        client: &ClientId,
        grant: LiveGrant,
        wanted: Option<Scopes>,
        refresh_token: OpaqueSecret,
        now: DateTime<Utc>,
    ) -> DomainResult<TokenPair> {
        let LiveGrant {
            id,
            scopes: granted,
            expires_at,
            account,
        } = grant;
        let scopes = wanted.unwrap_or(granted);
        let Account {
            id: user, email, ..
        } = &account;
        let subject = Subject {
            user: *user,
            email,
            grant: id,
            grant_expires_at: expires_at,
            client,
            scopes: &scopes,
        };
        let (access_token, expires_in) = self.inner.oauth.issue_access_token(&subject, now)?;
        Ok(TokenPair {
            access_token,
            refresh_token: refresh_token.into_secret_string(),
            expires_in,
            scopes,
            user: profile(account),
        })
    }

    /// Exchanges a refresh token for its successor and a fresh access token, in one statement.
    /// `scope` may ask for less, for this access token alone (RFC 6749 section 6).
    pub async fn refresh(
        &self,
        client: &OAuthClient,
        refresh_token: &str,
        scope: Option<&str>,
        caller: &Caller,
    ) -> DomainResult<TokenPair> {
        let wanted = scope
            .filter(|text| !text.is_empty())
            .map(|text| parse_scopes(text, &client.scopes))
            .transpose()?;
        let token = OpaqueSecret::parse(SecretKind::RefreshToken, refresh_token)
            .map_err(|_| dead_refresh_token())?;
        let hash = token.hash();
        // What refused the token may have passed by the time that we look why: then once more.
        for _ in 0..3 {
            let now = self.now();
            let successor = self.successors(&token).next().ok_or_else(no_key)?;
            let successor_hash = successor.hash();
            let rotation = Rotation {
                hash: hash.as_bytes(),
                successor: successor_hash.as_bytes(),
                client: &client.id,
                scopes: wanted.as_ref(),
                expires_at: now + IDLE,
                seen_before: now - SEEN,
                now,
            };
            let mut conn = self.db().acquire_for_one().await?;
            let rotated = oauth_grants::rotate_refresh_token(&mut conn, &rotation).await?;
            conn.done();
            if let Some(grant) = rotated {
                return self.token_pair(&client.id, grant, wanted, successor, now);
            }
            if let Some(tokens) = self
                .refresh_again(client, &token, wanted.as_ref(), caller)
                .await?
            {
                return Ok(tokens);
            }
        }
        Err(DomainError::Unavailable)
    }

    /// What takes the token's place; by the key in use first, by former ones after it.
    fn successors(&self, token: &OpaqueSecret) -> impl Iterator<Item = OpaqueSecret> {
        let keys = self.inner.oauth.refresh_keys.iter();
        keys.map(|key| {
            OpaqueSecret::derive(SecretKind::RefreshToken, key, token.expose().as_bytes())
        })
    }

    /// Why a token was not live: its own client asks again, or somebody replays it. None: it is
    /// live now.
    async fn refresh_again(
        &self,
        client: &OAuthClient,
        token: &OpaqueSecret,
        wanted: Option<&Scopes>,
        caller: &Caller,
    ) -> DomainResult<Option<TokenPair>> {
        let now = self.now();
        let candidates: Vec<Vec<u8>> = self
            .successors(token)
            .map(|successor| successor.hash().as_bytes().to_vec())
            .collect();
        let mut tx = self.db().begin().await?;
        let hash = token.hash();
        let known =
            oauth_grants::find_refresh_token(&mut tx, hash.as_bytes(), &candidates, now).await?;
        let Some(known) = known else {
            return Err(dead_refresh_token().into());
        };
        match judge(&known, &client.id, wanted, now) {
            Verdict::TryAgain => Ok(None),
            Verdict::Dead => Err(dead_refresh_token().into()),
            Verdict::TooMuch => Err(OAuthError::new(
                OAuthErrorCode::InvalidScope,
                "The scope asks for more than the person has allowed.",
            )
            .into()),
            Verdict::Retry(live) => {
                drop(tx);
                let successor = self
                    .successors(token)
                    .find(|successor| successor.hash().as_bytes() == live)
                    .ok_or_else(no_key)?;
                let tokens =
                    self.token_pair(&client.id, known.grant, wanted.cloned(), successor, now)?;
                Ok(Some(tokens))
            }
            Verdict::Replay => {
                let grant = known.grant.id;
                let ended = self
                    .end_sign_in(&mut tx, grant, client, caller, "oauth.refresh_replayed")
                    .await?;
                tx.commit().await.map_err(StorageError::from)?;
                if ended {
                    tracing::warn!(%grant, client = %client.id, "a used refresh token came again; its sign-in was ended");
                }
                Err(dead_refresh_token().into())
            }
        }
    }

    /// Tokens for a person who typed their password to us directly: those of the command-line
    /// client (contract: oauth.md, Rules). Only while the password is still the account's: no
    /// sign-in begins with one that was changed, or an account that was claimed, since it was
    /// proven.
    ///
    /// # Errors
    /// [`DomainError::Unauthorized`]: the account is disabled, or has another password by now.
    pub(crate) async fn begin_password_sign_in(
        &self,
        user: UserId,
        password_hash: &str,
        caller: &Caller,
        user_agent: Option<&str>,
    ) -> DomainResult<TokenPair> {
        let id: ClientId = CLI_CLIENT_ID.parse().map_err(DomainError::internal)?;
        let known = self
            .known_client(&id)
            .await?
            .ok_or_else(|| DomainError::internal("the command-line client is missing"))?;
        if known.client.disabled_at.is_some() {
            return Err(OAuthError::new(
                OAuthErrorCode::UnauthorizedClient,
                "Sign-in by password alone has been switched off here. Sign in with the browser.",
            )
            .into());
        }
        let sign_in = SignIn {
            client: &id,
            user,
            scopes: known.client.scopes.clone(),
            origin: Origin::Password,
            caller,
            user_agent,
        };
        let mut tx = self.db().begin().await?;
        if !accounts::lock_password(&mut tx, user, password_hash).await? {
            return Err(DomainError::Unauthorized);
        }
        let (_, tokens) = self
            .begin_sign_in(&mut tx, sign_in)
            .await?
            .ok_or(DomainError::Unauthorized)?;
        tx.commit().await.map_err(StorageError::from)?;
        Ok(tokens)
    }

    /// Ends a sign-in that began with a password, by its refresh token. Also while operators have
    /// disabled the command-line client: who leaves must stay out when it is enabled again.
    pub async fn log_out(&self, refresh_token: &str, caller: &Caller) -> DomainResult<()> {
        let id: ClientId = CLI_CLIENT_ID.parse().map_err(DomainError::internal)?;
        match self.known_client(&id).await? {
            Some(known) => {
                self.revoke_token(&known.client, refresh_token, caller)
                    .await
            }
            None => Ok(()),
        }
    }

    /// Ends the sign-in that the token belongs to, whichever of its tokens it is (RFC 7009 section
    /// 2.1). A token that is unknown, over, or another client's is none to speak of (section 2.2).
    pub async fn revoke_token(
        &self,
        client: &OAuthClient,
        token: &str,
        caller: &Caller,
    ) -> DomainResult<()> {
        let now = self.now();
        let mut tx = self.db().begin().await?;
        let grant = match OpaqueSecret::parse(SecretKind::RefreshToken, token) {
            Ok(token) => {
                let hash = token.hash();
                oauth_grants::find_refresh_token(&mut tx, hash.as_bytes(), &[], now)
                    .await?
                    .filter(|known| known.client == client.id)
                    .map(|known| known.grant.id)
            }
            Err(_) => self
                .inner
                .oauth
                .read_access_token(token, now)
                .filter(|token| token.client == client.id)
                .map(|token| token.grant),
        };
        if let Some(grant) = grant {
            self.end_sign_in(&mut tx, grant, client, caller, "oauth.revoked")
                .await?;
            tx.commit().await.map_err(StorageError::from)?;
        }
        Ok(())
    }
}

/// Cannot be: a sealer always has a key.
fn no_key() -> DomainError {
    DomainError::internal("no key to derive refresh tokens with")
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

    fn noon() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 1, 21, 12, 0, 0).unwrap()
    }

    fn id(text: &str) -> ClientId {
        text.parse().unwrap()
    }

    /// A token used this many seconds ago (none: never), and whether its successor is live.
    fn token(used: Option<i64>, successor_lives: bool) -> KnownRefreshToken {
        KnownRefreshToken {
            client: id("clf_a"),
            grant: LiveGrant {
                id: GrantId::generate(),
                scopes: "user:read projects:read".parse().unwrap(),
                expires_at: noon() + TimeDelta::days(300),
                account: Account {
                    id: UserId::generate(),
                    email: "ada@example.com".into(),
                    name: "Ada".into(),
                    avatar_url: None,
                    email_verified_at: None,
                    created_at: noon(),
                },
            },
            is_over: false,
            created_at: noon() - TimeDelta::hours(1),
            expires_at: noon() + TimeDelta::days(30),
            used_at: used.map(|seconds| noon() - TimeDelta::seconds(seconds)),
            live_successor: successor_lives.then(|| vec![1, 2, 3]),
        }
    }

    fn verdict(known: &KnownRefreshToken) -> Verdict {
        judge(known, &id("clf_a"), None, noon())
    }

    #[test]
    fn the_immediate_predecessor_is_forgiven_for_a_minute() {
        for seconds in [-1, 0, 1, 60] {
            assert_eq!(
                verdict(&token(Some(seconds), true)),
                Verdict::Retry(vec![1, 2, 3])
            );
        }
        assert_eq!(verdict(&token(Some(61), true)), Verdict::Replay);
    }

    #[test]
    fn an_older_one_is_a_replay_however_young() {
        assert_eq!(verdict(&token(Some(0), false)), Verdict::Replay);
        assert_eq!(verdict(&token(Some(86_400), false)), Verdict::Replay);
    }

    #[test]
    fn what_is_over_is_dead_and_ends_nothing() {
        for used in [None, Some(0), Some(600)] {
            let over = KnownRefreshToken {
                is_over: true,
                ..token(used, true)
            };
            assert_eq!(verdict(&over), Verdict::Dead);
            // Another client's token tells nothing about the one that it belongs to.
            let known = token(used, false);
            assert_eq!(judge(&known, &id("clf_b"), None, noon()), Verdict::Dead);
        }
        let expired = KnownRefreshToken {
            expires_at: noon(),
            ..token(None, false)
        };
        assert_eq!(verdict(&expired), Verdict::Dead);
    }

    #[test]
    fn nobody_gets_more_than_was_granted() {
        let asked = |text: &str, known: &KnownRefreshToken| {
            judge(known, &id("clf_a"), Some(&text.parse().unwrap()), noon())
        };
        for known in [token(None, false), token(Some(5), true)] {
            assert_eq!(asked("user:read projects:write", &known), Verdict::TooMuch);
        }
        assert_eq!(asked("user:read", &token(None, false)), Verdict::TryAgain);
        assert_eq!(
            asked("user:read", &token(Some(5), true)),
            Verdict::Retry(vec![1, 2, 3])
        );
        assert_eq!(
            asked("projects:write", &token(Some(5), false)),
            Verdict::Replay
        );
    }

    #[test]
    fn a_code_is_bound_to_client_address_and_verifier() {
        let client = |text: &str| OAuthClient {
            id: id(text),
            name: "Shop".into(),
            kind: cp_model::ClientKind::Public,
            redirect_uris: vec![],
            scopes: Scopes::all(),
            first_party: false,
            device_grant: false,
            rate_limit: 50,
            logo_url: None,
            color: None,
            homepage_url: None,
            disabled_at: None,
            created_at: noon(),
        };
        let code = TakenCode {
            client: id("clf_a"),
            user: UserId::generate(),
            redirect_uri: "http://127.0.0.1:4711/callback".into(),
            code_challenge: pkce::code_challenge(VERIFIER),
            scopes: Scopes::all(),
        };
        let check = |client_id, redirect_uri, verifier| {
            check_code(&code, &client(client_id), redirect_uri, verifier)
                .map_err(|error| error.code)
        };
        let uri = "http://127.0.0.1:4711/callback";
        assert_eq!(check("clf_a", uri, VERIFIER), Ok(()));
        let refused = Err(OAuthErrorCode::InvalidGrant);
        assert_eq!(check("clf_b", uri, VERIFIER), refused);
        assert_eq!(
            check("clf_a", "http://127.0.0.1:4712/callback", VERIFIER),
            refused
        );
        let other = VERIFIER.replace('d', "e");
        assert_eq!(check("clf_a", uri, &other), refused);
        assert_eq!(check("clf_a", uri, &code.code_challenge), refused);
        assert_eq!(check("clf_a", uri, ""), refused);
    }
}
