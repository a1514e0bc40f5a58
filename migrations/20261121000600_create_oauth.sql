-- People who sign in: browser sessions, keys, mails; and the OAuth 2.0 provider.

alter table users
    add column avatar_url text,
    -- Set by an operator: no sign-in, no token, no key works any more.
    add column disabled_at timestamptz;

create table browser_sessions (
    id uuid primary key,
    -- SHA-256 of the cookie.
    hash bytea not null,
    user_id uuid not null references users,
    -- Where it was begun, for the person's list of sessions.
    address text,
    user_agent text,
    created_at timestamptz not null,
    last_seen_at timestamptz not null,
    -- 30 days after it was last seen, 90 days after it was begun at the latest.
    expires_at timestamptz not null,
    revoked_at timestamptz,
    constraint browser_sessions_hash_key unique (hash)
);
create index browser_sessions_user_id_idx on browser_sessions (user_id);
create index browser_sessions_expires_at_idx on browser_sessions (expires_at);
comment on table browser_sessions is 'One row is one browser in which a person is signed in to our pages.';

create table user_api_keys (
    id uuid primary key,
    user_id uuid not null references users,
    name text not null,
    hash bytea not null,
    -- The last four characters, so that a person can tell keys apart.
    hint text not null,
    -- Null: everything that the person may do.
    scopes text[],
    created_at timestamptz not null,
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz,
    constraint user_api_keys_hash_key unique (hash)
);
create index user_api_keys_user_id_idx on user_api_keys (user_id);
comment on table user_api_keys is 'One row is one API key (uak_…) of a person.';

create table email_challenges (
    id uuid primary key,
    user_id uuid not null references users,
    purpose text not null check (purpose in ('verify_email', 'first_login', 'reset_password')),
    -- SHA-256 of the secret in the mailed link.
    link_hash bytea not null,
    -- HMAC of the six digits, which are too few for a plain hash; null where only the link counts.
    code_hash bytea,
    -- Wrong codes so far.
    attempts integer not null default 0,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    constraint email_challenges_link_hash_key unique (link_hash)
);
create index email_challenges_user_id_idx on email_challenges (user_id, created_at);
create index email_challenges_created_at_idx on email_challenges (created_at);
comment on table email_challenges is 'One row is one proof, asked for by mail, that a person reads an address.';

create table mails (
    id uuid primary key,
    recipient text not null,
    -- Which mail it is, for operators.
    kind text not null,
    -- Subject and bodies, sealed: they hold links that sign people in. Emptied once sent.
    content_sealed bytea,
    state text not null check (state in ('queued', 'sent', 'failed')),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    last_error text,
    created_at timestamptz not null,
    sent_at timestamptz
);
create index mails_due_idx on mails (next_attempt_at) where state = 'queued';
create index mails_done_idx on mails (created_at) where state <> 'queued';
comment on table mails is 'One row is one mail that shall reach a person.';

create table oauth_clients (
    id text primary key,
    name text not null,
    kind text not null check (kind in ('public', 'confidential')),
    redirect_uris text[] not null,
    -- The most that it may ask for.
    scopes text[] not null,
    -- Ours: what the scopes do not name is open to it.
    first_party boolean not null default false,
    device_grant boolean not null default false,
    -- Token requests per minute.
    rate_limit integer not null check (rate_limit > 0),
    logo_url text,
    -- `#rrggbb`, for the consent page.
    color text,
    homepage_url text,
    disabled_at timestamptz,
    created_at timestamptz not null
);
comment on table oauth_clients is 'One row is one application that people may sign in to with us.';

create table oauth_client_secrets (
    id uuid primary key,
    client_id text not null references oauth_clients,
    hash bytea not null,
    created_at timestamptz not null,
    -- Null: lives until it is rotated.
    expires_at timestamptz,
    constraint oauth_client_secrets_hash_key unique (hash)
);
create index oauth_client_secrets_client_id_idx on oauth_client_secrets (client_id);
comment on table oauth_client_secrets is 'One row is one secret of a confidential client; two live ones overlap while it rotates.';

create table oauth_consents (
    user_id uuid not null references users,
    client_id text not null references oauth_clients,
    scopes text[] not null,
    granted_at timestamptz not null,
    primary key (user_id, client_id)
);
comment on table oauth_consents is 'One row says what a person has allowed an application, so that it need not ask again.';

create table oauth_grants (
    id uuid primary key,
    user_id uuid not null references users,
    client_id text not null references oauth_clients,
    scopes text[] not null,
    -- How it came about.
    origin text not null check (origin in ('authorization_code', 'device_code', 'password')),
    address text,
    user_agent text,
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    -- A year after it was made, whatever happens.
    expires_at timestamptz not null,
    revoked_at timestamptz,
    revoked_because text
);
create index oauth_grants_user_id_idx on oauth_grants (user_id);
create index oauth_grants_client_id_idx on oauth_grants (client_id);
comment on table oauth_grants is 'One row is one sign-in of a person to an application: a family of refresh tokens, and the access tokens made with them.';

create table oauth_refresh_tokens (
    -- SHA-256 of the token.
    hash bytea primary key,
    grant_id uuid not null references oauth_grants,
    created_at timestamptz not null,
    -- 30 days after it was made, if it is not used.
    expires_at timestamptz not null,
    used_at timestamptz
);
create index oauth_refresh_tokens_grant_id_idx on oauth_refresh_tokens (grant_id);
-- A family has one live token: what a race would need to make two.
create unique index oauth_refresh_tokens_live_key on oauth_refresh_tokens (grant_id) where used_at is null;
-- For housekeeping; next to no work for whoever writes rows.
create index oauth_refresh_tokens_created_at_idx on oauth_refresh_tokens using brin (created_at);
comment on table oauth_refresh_tokens is 'One row is one refresh token; used ones stay for a while, to tell a replay.';

create table oauth_authorization_codes (
    hash bytea primary key,
    client_id text not null references oauth_clients,
    user_id uuid not null references users,
    redirect_uri text not null,
    code_challenge text not null,
    scopes text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    used_at timestamptz,
    -- What it was exchanged for, which ends if it is used again.
    grant_id uuid references oauth_grants
);
create index oauth_authorization_codes_expires_at_idx on oauth_authorization_codes (expires_at);
-- Without it each deletion of a grant would read all codes.
create index oauth_authorization_codes_grant_id_idx on oauth_authorization_codes (grant_id);
comment on table oauth_authorization_codes is 'One row is one authorization code.';

create table oauth_device_codes (
    hash bytea primary key,
    -- Eight letters, without the dash.
    user_code text not null,
    client_id text not null references oauth_clients,
    scopes text[] not null,
    state text not null check (state in ('pending', 'approved', 'denied', 'used')),
    -- Where the request came from, for the page that approves it.
    address text,
    user_agent text,
    user_id uuid references users,
    -- Seconds between two polls; grows with each that comes too soon.
    poll_interval integer not null,
    last_polled_at timestamptz,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    constraint oauth_device_codes_user_code_key unique (user_code)
);
create index oauth_device_codes_expires_at_idx on oauth_device_codes (expires_at);
comment on table oauth_device_codes is 'One row is one device that waits for a person to approve it (RFC 8628).';

-- The command-line client exists in every installation (contract: oauth.md, Rules). Any port of
-- the two loopback addresses is meant (RFC 8252 section 7.3).
insert into oauth_clients (id, name, kind, redirect_uris, scopes, first_party, device_grant, rate_limit, created_at)
values ('clf_NK8cMUs41gm8ZcfdtSguVw', 'InsForge CLI', 'public',
        array['http://127.0.0.1/callback', 'http://[::1]/callback'],
        array['user:read', 'organizations:read', 'projects:read', 'projects:write'],
        true, true, 50, now());
