-- Plans that are paid for, through a payment provider.

alter table organizations
    -- What the operator gave, whatever is paid for; none: only what is paid for counts.
    add column granted_plan text;
comment on column organizations.plan is 'What it has: the better one of what is granted and what is paid for, else free.';
-- Until now every other plan than the free one was the operator's.
update organizations set granted_plan = plan where plan <> 'free';

create table billing_customers (
    organization_id uuid primary key references organizations,
    -- As Stripe names it: cus_….
    customer_id text not null,
    -- What its subscriptions gave when the provider was last asked.
    paid_plan text not null default 'free',
    -- Counts what we were told and each time we ask. An answer is taken only if no later one was.
    round bigint not null default 0,
    taken_round bigint not null default 0,
    -- When the provider is to be asked again; none: all is over.
    due_at timestamptz,
    failures integer not null default 0,
    created_at timestamptz not null,
    constraint billing_customers_customer_id_key unique (customer_id)
);
create index billing_customers_due_at_idx on billing_customers (due_at) where due_at is not null;
comment on table billing_customers is 'One row is an organization as the payment provider knows it.';

create table billing_events (
    -- As Stripe names it: evt_….
    id text primary key,
    kind text not null,
    organization_id uuid not null references organizations,
    -- When it happened there, and when we were told.
    happened_at timestamptz not null,
    received_at timestamptz not null
);
create index billing_events_received_at_idx on billing_events (received_at);
create index billing_events_organization_id_idx on billing_events (organization_id, received_at);
comment on table billing_events is 'One row is an event that the payment provider told of an organization; told again, it is known.';
