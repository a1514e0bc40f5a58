-- Agents replace their tokens; the answer to that may be lost.

alter table machines
    add column previous_agent_token_hash bytea,
    add column previous_agent_token_until timestamptz;
create unique index machines_previous_agent_token_hash_key on machines (previous_agent_token_hash)
    where previous_agent_token_hash is not null;
comment on column machines.previous_agent_token_hash is 'The token before the present one; good until previous_agent_token_until.';
