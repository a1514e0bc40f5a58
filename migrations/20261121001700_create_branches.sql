-- Branches: copies of a whole backend, which are merged back into their parent.

-- The project that it is a branch of; null for all others.
alter table projects add column parent_id uuid references projects;
create index projects_parent_id_idx on projects (parent_id) where parent_id is not null and status <> 'deleted';

-- Branches of different parents may share a name, and a branch may have that of a project.
drop index projects_synced_name_key;
create unique index projects_synced_name_key on projects (partner_id, user_id, name)
    where user_id is not null and parent_id is null and status not in ('deleting', 'deleted');

create table branches (
    project_id uuid primary key references projects,
    parent_id uuid not null references projects,
    name text not null,
    mode text not null check (mode in ('full', 'schema-only')),
    state text not null check (state in ('creating', 'ready', 'merging', 'merged', 'resetting', 'deleted')),
    -- Where a merge or a reset began, to return to if it fails.
    previous_state text check (previous_state in ('ready', 'merged')),
    -- Whether its backend may run: not before its database was restored, nor while it is restored again.
    serves boolean not null default false,
    -- T0: keys, sizes and checksums of the dump and of the two catalogs.
    copies jsonb not null default '{}',
    created_at timestamptz not null,
    expires_at timestamptz,
    -- When its owner was told that it will expire.
    warned_at timestamptz,
    merged_at timestamptz,
    updated_at timestamptz not null
);
create unique index branches_name_key on branches (parent_id, lower(name)) where state <> 'deleted';
create index branches_expires_at_idx on branches (expires_at) where state <> 'deleted' and expires_at is not null;
comment on table branches is 'One row is one branch, kept after its deletion as its project is.';

create table branch_comparisons (
    id uuid primary key,
    project_id uuid not null references branches,
    -- Which side conflicts are settled for, by name: {"public.users.email": "branch"}.
    resolutions jsonb not null default '{}',
    -- The merge that it was made for; null for a dry run.
    operation_id uuid,
    state text not null check (state in ('waiting', 'running', 'done', 'failed')),
    diff jsonb,
    error_code text,
    error_message text,
    -- Whoever works on it has until then; database time.
    lease_until timestamptz,
    attempts integer not null default 0,
    created_at timestamptz not null,
    finished_at timestamptz
);
create index branch_comparisons_open_idx on branch_comparisons (created_at) where state in ('waiting', 'running');
create index branch_comparisons_project_id_idx on branch_comparisons (project_id, created_at);
comment on table branch_comparisons is 'One row is one comparison of a branch with its parent: a dry run, or what a merge did.';
