-- Backups of projects' databases: asked for by people, and made daily.

create table backups (
    id uuid primary key,
    project_id uuid not null references projects,
    -- The operation that makes it. Operations are thrown away in time; what was made stays.
    operation_id uuid not null,
    name text check (length(name) between 1 and 64),
    -- The organization's plan at that time.
    plan text not null,
    trigger_source text not null check (trigger_source in ('manual', 'scheduled')),
    -- Who asked for it; null: the schedule.
    created_by uuid references users,
    created_at timestamptz not null,
    -- Where it is stored, with size and checksum, as in branches.copies; null until it is whole.
    copy jsonb,
    -- The users' own roles, which no dump carries.
    roles jsonb,
    completed_at timestamptz,
    -- Nobody sees it any more; a worker deletes what is stored, then the row.
    deleted_at timestamptz,
    constraint backups_completed_check check ((completed_at is null) = (copy is null))
);
create index backups_project_id_idx on backups (project_id, created_at desc) where deleted_at is null;
create index backups_created_at_idx on backups (created_at)
    where deleted_at is null and (completed_at is null or trigger_source = 'scheduled');
create index backups_deleted_at_idx on backups (deleted_at) where deleted_at is not null;
comment on table backups is 'One row is one backup of a project''s database, under way, complete or failed (then its operation says why).';

alter table projects
    add column next_backup_at timestamptz not null default now() + interval '1 day',
    add column serves boolean not null default true;
create index projects_next_backup_at_idx on projects (next_backup_at) where status = 'active' and parent_id is null;
comment on column projects.next_backup_at is 'When its next scheduled backup is due.';
comment on column projects.serves is 'Whether its backend may run beside its database: not while a backup is restored.';
