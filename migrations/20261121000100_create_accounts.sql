-- Who uses the service: people, what owns projects, and partner platforms.

create table users (
    id uuid primary key,
    email text not null,
    name text not null,
    -- Argon2id in PHC form; null until the person has set one (accounts made by a partner).
    password_hash text,
    email_verified_at timestamptz,
    created_at timestamptz not null
);
create unique index users_email_key on users (lower(email));
comment on table users is 'One row is one person''s account.';

create table organizations (
    id uuid primary key,
    name text not null,
    kind text not null check (kind in ('personal', 'partner')),
    plan text not null,
    created_at timestamptz not null
);
comment on table organizations is 'One row owns projects: a person''s own organization or a partner''s.';

create table organization_members (
    organization_id uuid not null references organizations,
    user_id uuid not null references users,
    role text not null check (role in ('administrator', 'developer')),
    joined_at timestamptz not null,
    primary key (organization_id, user_id)
);
create index organization_members_user_id_idx on organization_members (user_id);
comment on table organization_members is 'One row is one person''s role in one organization.';

create table partners (
    id text primary key,
    name text not null,
    organization_id uuid not null references organizations,
    co_branded boolean not null,
    white_label boolean not null,
    -- Requests per minute over all endpoints.
    rate_limit integer not null check (rate_limit > 0),
    -- A trusted partner reads the keys of all projects of its connected users, as the public
    -- document describes; others only of projects made through them or shared with them.
    trusted boolean not null default false,
    suspended_at timestamptz,
    created_at timestamptz not null,
    constraint partners_model_check check (co_branded or white_label)
);
comment on table partners is 'One row is one partner platform.';

create table partner_secrets (
    id uuid primary key,
    partner_id text not null references partners,
    -- SHA-256 of the whole secret.
    hash bytea not null,
    created_at timestamptz not null,
    -- Null: lives until it is rotated.
    expires_at timestamptz,
    constraint partner_secrets_hash_key unique (hash)
);
create index partner_secrets_partner_id_idx on partner_secrets (partner_id);
comment on table partner_secrets is 'One row is one secret of a partner; two live ones overlap while it rotates.';

create table partner_users (
    partner_id text not null references partners,
    user_id uuid not null references users,
    connected_at timestamptz not null,
    primary key (partner_id, user_id)
);
comment on table partner_users is 'One row says that a person is connected to a partner.';
