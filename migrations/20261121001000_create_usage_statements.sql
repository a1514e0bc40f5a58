-- Statements: what one month's bill says, for ever.

create table usage_statements (
    partner_id text not null references partners,
    -- Its first day.
    month date not null,
    -- The statement before it. Statements of a partner are a chain: no month can be closed beside
    -- another one, and none after a later one.
    follows date,
    closed_at timestamptz not null,
    database_bytes bigint not null,
    storage_bytes bigint not null,
    ai_tokens bigint not null,
    mcp_calls bigint not null,
    egress_bytes bigint not null,
    ai_credits bigint not null,
    email_requests bigint not null,
    function_calls bigint not null,
    ec2_compute bigint not null,
    primary key (partner_id, month),
    constraint usage_statements_follows_key unique nulls not distinct (partner_id, follows),
    constraint usage_statements_order_check check (follows is null or follows < month)
);
comment on table usage_statements is 'One row is what one partner used in one month, as it was known when the month was closed.';

create table usage_statement_lines (
    partner_id text not null,
    month date not null,
    project_id uuid not null,
    database_bytes bigint not null,
    storage_bytes bigint not null,
    ai_tokens bigint not null,
    mcp_calls bigint not null,
    egress_bytes bigint not null,
    ai_credits bigint not null,
    email_requests bigint not null,
    function_calls bigint not null,
    ec2_compute bigint not null,
    primary key (partner_id, month, project_id),
    foreign key (partner_id, month) references usage_statements
);
comment on table usage_statement_lines is 'One row is what one project used in a closed month; projects that used nothing have none.';

create table usage_statement_adjustments (
    partner_id text not null,
    month date not null,
    -- The closed month of which something became known later.
    of_month date not null,
    database_bytes bigint not null,
    storage_bytes bigint not null,
    ai_tokens bigint not null,
    mcp_calls bigint not null,
    egress_bytes bigint not null,
    ai_credits bigint not null,
    email_requests bigint not null,
    function_calls bigint not null,
    ec2_compute bigint not null,
    primary key (partner_id, month, of_month),
    foreign key (partner_id, month) references usage_statements,
    foreign key (partner_id, of_month) references usage_statements,
    constraint usage_statement_adjustments_order_check check (of_month < month)
);
comment on table usage_statement_adjustments is 'One row is by how much a statement mends what earlier ones said of a month.';
