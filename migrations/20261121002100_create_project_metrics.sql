-- How busy projects' machines are.

create table project_metrics (
    project_id uuid not null references projects,
    -- How long a slot is: 1 (a ring of a day) or 10 (a ring of a week).
    minutes smallint not null check (minutes in (1, 10)),
    slot smallint not null,
    -- When the slot that is in it now began.
    at timestamptz not null,
    machine_id uuid not null,
    -- Means of so many samples; percent, and bytes per second.
    samples integer not null,
    cpu_usage double precision not null,
    memory_usage double precision not null,
    disk_usage double precision not null,
    network_in double precision not null,
    network_out double precision not null,
    primary key (project_id, minutes, slot)
) with (fillfactor = 80);
comment on table project_metrics is 'One row is one slot of a ring: what was measured when its time last came.';
