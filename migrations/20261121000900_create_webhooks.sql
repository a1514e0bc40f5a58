-- Webhooks: what partners are told without asking; and the limits on usage that they are told of.

create table partner_webhooks (
    partner_id text primary key references partners,
    url text not null,
    secret_sealed bytea not null,
    -- After a rotation the secret before signs, too, until then.
    previous_secret_sealed bytea,
    previous_until timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint partner_webhooks_previous_check check ((previous_secret_sealed is null) = (previous_until is null))
);
comment on table partner_webhooks is 'One row is where one partner wants to be told of events.';

create table webhook_events (
    id uuid primary key,
    partner_id text not null references partners,
    type text not null,
    data jsonb not null,
    created_at timestamptz not null,
    state text not null check (state in ('queued', 'delivered', 'failed')),
    -- Since it was queued, or queued again by an operator.
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    give_up_at timestamptz not null,
    last_status integer,
    last_error text,
    delivered_at timestamptz
);
create index webhook_events_due_idx on webhook_events (partner_id, next_attempt_at) where state = 'queued';
create index webhook_events_partner_idx on webhook_events (partner_id, id);
create index webhook_events_done_idx on webhook_events (created_at) where state <> 'queued';
comment on table webhook_events is 'One row is one event that one partner is told, at least once.';

create table usage_limits (
    id uuid primary key,
    partner_id text not null references partners,
    -- None: what all projects of the partner use together.
    project_id uuid references projects,
    metric text not null,
    period text not null check (period in ('day', 'month')),
    -- In the metric's unit.
    amount bigint not null check (amount > 0),
    created_at timestamptz not null,
    constraint usage_limits_key unique nulls not distinct (partner_id, project_id, metric, period, amount)
);
comment on table usage_limits is 'One row is an amount of a metric that a partner is told of when usage reaches it.';

create table usage_limit_crossings (
    limit_id uuid not null references usage_limits on delete cascade,
    -- The day, or the first day of the month.
    period_start date not null,
    crossed_at timestamptz not null,
    -- What the usage was when that was seen.
    value bigint not null,
    primary key (limit_id, period_start)
);
comment on table usage_limit_crossings is 'One row says that usage reached a limit in a period; it is told once.';
