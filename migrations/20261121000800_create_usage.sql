-- Usage: what partners are billed for.

create table usage_tokens (
    id uuid primary key,
    name text not null,
    -- What the service may call itself in its events.
    sources text[] not null,
    token_hash bytea not null,
    created_at timestamptz not null,
    revoked_at timestamptz
);
create unique index usage_tokens_token_hash_key on usage_tokens (token_hash);
create unique index usage_tokens_name_key on usage_tokens (name) where revoked_at is null;
comment on table usage_tokens is 'One row lets one service of ours post usage events.';

-- Kept apart from the events, which are partitioned by their day: an event that comes again with
-- another time is still the same event, and a unique index of a partitioned table cannot tell.
create table usage_event_keys (
    -- The first 16 bytes of SHA-256 of source, a zero byte, and id.
    key uuid primary key,
    received_at timestamptz not null
);
-- Rows lie in the order of their arrival; retention needs no more.
create index usage_event_keys_received_at_idx on usage_event_keys using brin (received_at);
comment on table usage_event_keys is 'One row says that one event was counted, committed with its effect.';

-- No index: events are written much and read by day, to count a day again or to answer a question.
create table usage_events (
    occurred_at timestamptz not null,
    received_at timestamptz not null,
    project_id uuid not null,
    metric text not null,
    -- In the metric's unit: bytes, calls, millionths of a credit.
    amount bigint not null,
    source text not null,
    id text not null
) partition by range (occurred_at);
create table usage_events_default partition of usage_events default;
comment on table usage_events is 'One row is one accepted event, as it came.';

-- `lane`: a transaction that counts takes a lane that no other has, and writes only rows of its
-- lane; so writers never wait for each other on a row, however many count for one project. A day's
-- amount is the sum over its lanes. Sizes stand in lane 0: the greatest counts, not the sum.
create table usage_daily (
    project_id uuid not null,
    day date not null,
    lane smallint not null,
    partner_id text,
    database_bytes bigint not null default 0,
    storage_bytes bigint not null default 0,
    ai_tokens bigint not null default 0,
    mcp_calls bigint not null default 0,
    egress_bytes bigint not null default 0,
    ai_credits bigint not null default 0,
    email_requests bigint not null default 0,
    function_calls bigint not null default 0,
    primary key (project_id, day, lane)
) partition by range (day);
create table usage_daily_default partition of usage_daily default;
comment on table usage_daily is 'One row is what one project used on one day, as far as one lane counted it; compute is in machine_runs.';

create table usage_partner_daily (
    partner_id text not null,
    day date not null,
    lane smallint not null,
    -- Sums over projects of each one's greatest size of the day.
    database_bytes bigint not null default 0,
    storage_bytes bigint not null default 0,
    ai_tokens bigint not null default 0,
    mcp_calls bigint not null default 0,
    egress_bytes bigint not null default 0,
    ai_credits bigint not null default 0,
    email_requests bigint not null default 0,
    function_calls bigint not null default 0,
    -- Machines that began and ceased to run, and the sums of the seconds since midnight at which
    -- they did: from these the seconds of compute follow (cp_model::usage::RunChanges).
    run_starts bigint not null default 0,
    run_start_seconds bigint not null default 0,
    run_stops bigint not null default 0,
    run_stop_seconds bigint not null default 0,
    -- A reader whose clock went back reads as of this.
    newest_run_change timestamptz,
    primary key (partner_id, day, lane)
);
comment on table usage_partner_daily is 'One row is what all projects of one partner used on one day, as far as one lane counted it.';

-- Deleted projects are on bills, too.
create index projects_partner_usage_idx on projects (partner_id, id);

create table usage_collections (
    project_id uuid primary key references projects,
    -- What its backend counted before then is counted here.
    collected_until timestamptz not null,
    next_attempt_at timestamptz not null,
    attempts integer not null default 0,
    last_error text
);
create index usage_collections_next_attempt_at_idx on usage_collections (next_attempt_at);
comment on table usage_collections is 'One row says until when one backend''s own counts are collected, and when it is asked next.';

-- The lane of this transaction, until it ends. Few writers at once use few lanes, so that readers
-- find few rows.
create function usage_lane() returns smallint language plpgsql as $$
begin
    for lane in 0..63 loop
        if pg_try_advisory_xact_lock(1967814245, lane) then
            return lane;
        end if;
    end loop;
    perform pg_advisory_xact_lock(1967814245, 64);
    return 64;
end $$;

-- Makes the partitions of events for `first` to `first + days`, and of days for their years. One
-- that would have to take rows from the default partition is left out: those rows are where they are.
create function ensure_usage_partitions(first date, days integer) returns void
language plpgsql as $$
declare
    day date;
    name text;
begin
    for i in 0..days loop
        day := first + i;
        name := 'usage_events_' || to_char(day, 'YYYYMMDD');
        if to_regclass(name) is null and not exists (
            select from usage_events_default
            where occurred_at >= day::timestamp at time zone 'UTC' and occurred_at < (day + 1)::timestamp at time zone 'UTC')
        then
            execute format('create table %I partition of usage_events for values from (%L) to (%L)', name,
                to_char(day, 'YYYY-MM-DD"T00:00:00Z"'), to_char(day + 1, 'YYYY-MM-DD"T00:00:00Z"'));
        end if;
        name := 'usage_daily_' || to_char(day, 'YYYY');
        if to_regclass(name) is null and not exists (
            select from usage_daily_default where date_trunc('year', usage_daily_default.day) = date_trunc('year', ensure_usage_partitions.first + i))
        then
            execute format('create table %I partition of usage_daily for values from (%L) to (%L)', name,
                to_char(day, 'YYYY-01-01'), to_char(day + interval '1 year', 'YYYY-01-01'));
        end if;
    end loop;
end $$;
select ensure_usage_partitions(current_date - 36, 39);

-- Drops the events of the days before `before`.
create function drop_usage_events(before date) returns void
language plpgsql as $$
declare
    name text;
begin
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'usage_events'::regclass and c.relname ~ '^usage_events_[0-9]{8}$'
            and to_date(right(c.relname, 8), 'YYYYMMDD') < before
    loop
        execute format('drop table %I', name);
    end loop;
    delete from usage_events_default where occurred_at < before::timestamp at time zone 'UTC';
end $$;

-- The runs so far.
insert into usage_partner_daily (partner_id, day, lane, run_starts, run_start_seconds, run_stops, run_stop_seconds, newest_run_change)
select c.partner_id, (c.at at time zone 'UTC')::date, 0,
    count(*) filter (where c.starts), coalesce(sum(mod(floor(extract(epoch from c.at))::bigint, 86400)) filter (where c.starts), 0),
    count(*) filter (where not c.starts), coalesce(sum(mod(floor(extract(epoch from c.at))::bigint, 86400)) filter (where not c.starts), 0),
    max(c.at)
from (
    select p.partner_id, r.started_at as at, true as starts
    from machine_runs r join projects p on p.id = r.project_id where p.partner_id is not null
    union all
    select p.partner_id, r.stopped_at, false
    from machine_runs r join projects p on p.id = r.project_id where p.partner_id is not null and r.stopped_at is not null
) c
group by 1, 2;
