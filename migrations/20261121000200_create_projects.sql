-- Projects, what they keep secret, and the long work on them.

create table projects (
    id uuid primary key,
    organization_id uuid not null references organizations,
    -- The partner it was made through; null for a person's own.
    partner_id text references partners,
    -- The person it was made for; null for a partner's embedded ones.
    user_id uuid references users,
    external_id text,
    name text not null,
    app_key text not null,
    region text not null,
    instance_type text not null,
    status text not null check (status in ('provisioning', 'active', 'pausing', 'paused', 'restoring',
        'restarting', 'upgrading', 'deleting', 'failed', 'deleted')),
    failure_code text,
    failure_message text,
    -- Where its backend answers; null until it has a machine with an address.
    access_host text,
    -- The backend release it is pinned to; null: the newest.
    release text,
    metadata jsonb,
    last_activity_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    constraint projects_app_key_key unique (app_key)
);
-- A person has one live project of a name through a partner; that is what makes sync-project a sync.
create unique index projects_synced_name_key on projects (partner_id, user_id, name)
    where user_id is not null and status not in ('deleting', 'deleted');
create unique index projects_external_id_key on projects (partner_id, external_id)
    where external_id is not null and status not in ('deleting', 'deleted');
create index projects_organization_id_idx on projects (organization_id) where status <> 'deleted';
create index projects_partner_id_idx on projects (partner_id, id) where status not in ('deleting', 'deleted');
comment on table projects is 'One row is one backend, kept after its deletion for usage and audit.';

create table project_shares (
    project_id uuid not null references projects,
    partner_id text not null references partners,
    shared_at timestamptz not null,
    primary key (project_id, partner_id)
);
comment on table project_shares is 'One row lets a partner read the keys of a project that was not made through it.';

create table project_secrets (
    project_id uuid not null references projects,
    kind text not null,
    -- AES-256-GCM with key id; bound to its row by the associated data "project:<id>:<kind>".
    sealed bytea not null,
    created_at timestamptz not null,
    primary key (project_id, kind)
);
comment on table project_secrets is 'One row is one sealed secret of a project''s backend.';

-- Not partitioned by time: invariant 2 needs a unique index over all rows in flight, which a
-- partitioned table cannot have. There is one row per lifecycle event, not per request, and
-- retention deletes old finished ones.
create table operations (
    id uuid primary key,
    project_id uuid not null references projects,
    kind text not null,
    state text not null check (state in ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    step text not null,
    -- What later steps need of earlier ones; never a secret.
    data jsonb not null default '{}',
    attempts integer not null default 0,
    max_attempts integer not null,
    next_attempt_at timestamptz not null,
    deadline_at timestamptz,
    -- Grows with each lease; a worker writes only while it holds the newest (invariant 4).
    generation bigint not null default 0,
    lease_owner text,
    lease_until timestamptz,
    -- Grows with each wake-up, so that one that comes while a step runs is not slept through.
    wakes bigint not null default 0,
    error_code text,
    error_message text,
    requested_by text not null,
    request_id text not null,
    created_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz
);
-- Invariant 2: one operation in flight per project.
create unique index operations_in_flight_key on operations (project_id)
    where state in ('queued', 'running', 'waiting');
create index operations_due_idx on operations (next_attempt_at)
    where state in ('queued', 'running', 'waiting');
create index operations_project_id_idx on operations (project_id, created_at);
create index operations_finished_at_idx on operations (finished_at) where finished_at is not null;
comment on table operations is 'One row is one piece of long work on one project.';
