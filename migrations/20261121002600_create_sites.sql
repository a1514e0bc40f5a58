-- Sites: the Vercel projects that projects' backends deploy to, named by the operator one by one.

create table sites (
    project_id uuid primary key references projects,
    team_id text not null,
    vercel_project_id text not null,
    -- What the backend speaks to Vercel with.
    token_sealed bytea not null,
    -- When Vercel ends the token; null: it does not.
    token_expires_at timestamptz,
    -- What Vercel signs its webhooks with; null: it sends none.
    webhook_secret_sealed bytea,
    -- Its label under sites.domain, as its people chose it.
    slug text check (length(slug) between 3 and 63),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    -- Whoever may deploy to it may read and replace what is there.
    constraint sites_vercel_project_id_key unique (vercel_project_id),
    constraint sites_slug_key unique (slug)
);
comment on table sites is 'One row is the site of one project: where its backend deploys it, by which token, under which name.';
