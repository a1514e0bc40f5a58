-- Machines and the time they ran.

create table machines (
    id uuid primary key,
    provider text not null,
    -- The provider's own name for it; null until the launch is recorded.
    provider_ref text,
    region text not null,
    instance_type text not null,
    volume_gib integer not null,
    state text not null check (state in ('launching', 'booting', 'ready', 'stopped', 'lost', 'terminating', 'terminated')),
    project_id uuid references projects,
    -- Set with the first project, for ever: such a machine never returns to the pool.
    held_data boolean not null default false,
    -- host:port of the backend, as the provider tells it.
    address text,
    bootstrap_hash bytea,
    -- The token itself, sealed, so that every attempt to launch hands out the same one. Emptied at
    -- registration.
    bootstrap_sealed bytea,
    bootstrap_expires_at timestamptz,
    agent_token_hash bytea,
    -- What the agent shall do is computed from the project; these two say that it changed.
    desired_generation bigint not null default 1,
    restarts bigint not null default 0,
    observed_generation bigint,
    observed_state text,
    observed_restarts bigint,
    backend_version text,
    agent_version text,
    agent_message text,
    registered_at timestamptz,
    last_seen_at timestamptz,
    -- When the provider was first asked in vain for it; cleared when it is seen again.
    missing_since timestamptz,
    created_at timestamptz not null,
    terminated_at timestamptz
);
-- Invariant 3: exactly one machine per project.
create unique index machines_project_id_key on machines (project_id) where project_id is not null;
create unique index machines_agent_token_hash_key on machines (agent_token_hash) where agent_token_hash is not null;
create index machines_pool_idx on machines (provider, region, instance_type, created_at)
    where project_id is null and not held_data and state in ('launching', 'booting', 'ready');
create index machines_living_idx on machines (provider, state) where state <> 'terminated';
comment on table machines is 'One row is one machine that we launched or mean to launch, kept after its end.';

create table machine_runs (
    id uuid primary key,
    machine_id uuid not null references machines,
    project_id uuid not null references projects,
    started_at timestamptz not null,
    stopped_at timestamptz,
    constraint machine_runs_order_check check (stopped_at is null or stopped_at >= started_at)
);
create unique index machine_runs_open_key on machine_runs (machine_id) where stopped_at is null;
create index machine_runs_project_id_idx on machine_runs (project_id, started_at);
comment on table machine_runs is 'One row is one stretch of time in which a machine ran for a project: the source of compute seconds.';
