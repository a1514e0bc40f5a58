-- Organizations that people share, and who may do what in them.

alter table organizations
    drop constraint organizations_kind_check,
    add constraint organizations_kind_check check (kind in ('personal', 'team', 'company', 'partner')),
    -- Whose own it is: made with the account, where partners make the person's projects. Never left, never deleted.
    add column home_user_id uuid references users,
    add column updated_at timestamptz,
    -- The row stays for the usage and the audit of what it owned; it has no members any more.
    add column deleted_at timestamptz;
update organizations set updated_at = created_at;
alter table organizations alter column updated_at set not null, alter column updated_at set default now();
update organizations o set home_user_id = m.user_id
    from organization_members m where m.organization_id = o.id and o.kind = 'personal';
create unique index organizations_home_user_id_key on organizations (home_user_id) where home_user_id is not null;
comment on table organizations is 'One row owns projects: a person''s own organization, one that people share, or a partner''s.';

-- Servers of the release before this one make people's own organizations without the new column. To be dropped by the
-- next release.
create function claim_home_organization() returns trigger
language plpgsql as $$
begin
    update organizations o set home_user_id = new.user_id
        where o.id = new.organization_id and o.kind = 'personal' and o.home_user_id is null
          and not exists (select from organizations h where h.home_user_id = new.user_id)
          and not exists (select from organization_members m
                          where m.organization_id = o.id and m.user_id <> new.user_id);
    return null;
end $$;
create trigger claim_home_organization after insert on organization_members
    for each row execute function claim_home_organization();

alter table organization_members
    add column id uuid not null default gen_random_uuid(),
    add column invited_by uuid references users,
    add constraint organization_members_id_key unique (id);

create table organization_invitations (
    id uuid primary key,
    organization_id uuid not null references organizations,
    email text not null,
    role text not null check (role in ('administrator', 'developer')),
    -- SHA-256 of the secret in the mailed link.
    hash bytea not null,
    invited_by uuid not null references users,
    -- A pending one past its end counts as expired.
    status text not null check (status in ('pending', 'accepted', 'declined', 'revoked')),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    settled_at timestamptz,
    constraint organization_invitations_hash_key unique (hash)
);
create unique index organization_invitations_pending_key on organization_invitations (organization_id, lower(email))
    where status = 'pending';
create index organization_invitations_organization_id_idx on organization_invitations (organization_id, created_at);
create index organization_invitations_expires_at_idx on organization_invitations (expires_at);
comment on table organization_invitations is 'One row is one invitation, by mail, to become a member of an organization.';

alter table projects
    -- A host name of its people's, as they told it. Not unique: it is nobody's until DNS says so.
    add column customized_domain text;
-- An organization's projects, page by page.
create index projects_organization_page_idx on projects (organization_id, id)
    where parent_id is null and status not in ('deleting', 'deleted');
-- What an organization used: deleted projects, too.
create index projects_organization_usage_idx on projects (organization_id, created_at);
