-- Calls that backends sign with their project's secret.

create table used_signatures (
    project_id uuid not null references projects,
    -- SHA-256 of the signature and of what it was used for.
    digest bytea not null check (length(digest) = 32),
    first_used_at timestamptz not null,
    expires_at timestamptz not null,
    primary key (project_id, digest)
);
create index used_signatures_expires_at_idx on used_signatures (expires_at);
comment on table used_signatures is 'One row is one use of a signature that a backend made; used again later, it is refused.';

alter table machines add column database_address text;
comment on column machines.database_address is 'Host and port of its Postgres, as its project''s people reach it.';
