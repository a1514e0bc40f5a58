-- What the service itself keeps: signing keys, answers to repeat, limits, the audit log.

create table signing_keys (
    kid text primary key,
    state text not null check (state in ('next', 'active', 'retiring', 'retired')),
    public_jwk jsonb not null,
    -- PKCS#8, sealed; emptied when the key is retired.
    private_sealed bytea,
    created_at timestamptz not null,
    activated_at timestamptz,
    retiring_since timestamptz,
    retired_at timestamptz
);
create unique index signing_keys_active_key on signing_keys (state) where state = 'active';
create unique index signing_keys_next_key on signing_keys (state) where state = 'next';
comment on table signing_keys is 'One row is one RSA key that signs project authorizations.';

create table idempotency_keys (
    partner_id text not null references partners,
    key text not null,
    -- SHA-256 of method, path and body.
    fingerprint bytea not null,
    -- What the effect was, to build the answer again if the process died before it was kept.
    effect jsonb,
    status smallint,
    -- The answer's body, sealed, since it may hold a project's key.
    body_sealed bytea,
    -- Until then somebody is working on the answer.
    locked_until timestamptz not null,
    created_at timestamptz not null,
    primary key (partner_id, key)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);
comment on table idempotency_keys is 'One row is one Idempotency-Key of a partner and its first answer.';

-- Unlogged: after a crash of Postgres every window starts anew, which harms nobody.
create unlogged table rate_limit_windows (
    key text primary key,
    window_start timestamptz not null,
    used bigint not null
);
comment on table rate_limit_windows is 'One row counts the requests of one partner or address in the current minute.';

create table audit_log (
    id uuid not null,
    at timestamptz not null,
    actor text not null,
    partner_id text,
    organization_id uuid,
    action text not null,
    target_type text not null,
    target_id text not null,
    address text,
    request_id text,
    details jsonb not null default '{}',
    primary key (at, id)
) partition by range (at);
create index audit_log_target_idx on audit_log (target_type, target_id, at);
create index audit_log_organization_idx on audit_log (organization_id, at);
create index audit_log_partner_idx on audit_log (partner_id, at);
comment on table audit_log is 'One row is one change that somebody made, or was refused.';
-- Takes what no month has: nothing is lost if the maintenance job was not there.
create table audit_log_default partition of audit_log default;

-- Makes the partitions of the months from `first` to `first + months`, if missing.
create function ensure_audit_partitions(first date, months integer) returns void
language plpgsql as $$
declare
    month date;
begin
    for i in 0..months loop
        month := (date_trunc('month', first) + make_interval(months => i))::date;
        if to_regclass(format('audit_log_%s', to_char(month, 'YYYYMM'))) is null then
            execute format('create table %I partition of audit_log for values from (%L) to (%L)',
                'audit_log_' || to_char(month, 'YYYYMM'),
                to_char(month, 'YYYY-MM-DD"T00:00:00Z"'),
                to_char(month + interval '1 month', 'YYYY-MM-DD"T00:00:00Z"'));
        end if;
    end loop;
end $$;
select ensure_audit_partitions(current_date, 2);
