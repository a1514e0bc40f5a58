-- API keys that projects' backends ask AI models with.

create table ai_keys (
    -- Part of the key's name at the provider, so that one whose answer was lost is found.
    id uuid primary key,
    project_id uuid not null references projects,
    -- Whose it was when it was made: transfers do not make an organization's count forget it.
    organization_id uuid not null references organizations,
    -- making: about to be asked for, or asked for and not answered yet. current: the project's own.
    -- doomed: to be deleted at the provider. gone: it is, or never was there; kept for a while to be counted.
    state text not null check (state in ('making', 'current', 'doomed', 'gone')),
    -- The provider's id of it. Null: not known, it may not even have been made.
    hash text,
    key_sealed bytea,
    -- US cents, as the provider was last told.
    monthly_limit bigint not null check (monthly_limit > 0),
    created_at timestamptz not null,
    -- When a worker next tries to delete it, or to tell another limit.
    next_attempt_at timestamptz not null,
    constraint ai_keys_sealed_check check ((state = 'current') = (key_sealed is not null)),
    constraint ai_keys_hash_check check (state <> 'current' or hash is not null)
);
create unique index ai_keys_making_key on ai_keys (project_id) where state = 'making';
create unique index ai_keys_current_key on ai_keys (project_id) where state = 'current';
create index ai_keys_doomed_idx on ai_keys (next_attempt_at) where state = 'doomed';
create index ai_keys_project_id_idx on ai_keys (project_id, created_at);
create index ai_keys_organization_id_idx on ai_keys (organization_id, created_at);
create index ai_keys_created_at_idx on ai_keys (created_at) where state = 'gone';
comment on table ai_keys is 'One row is one API key of a project at the AI provider, from before it is asked for until after it is deleted there.';
