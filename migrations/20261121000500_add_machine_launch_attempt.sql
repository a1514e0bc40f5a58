-- A provider may show a new machine late, and a worker may die before it hears the answer to its
-- launch: whoever comes next waits until a machine of that attempt would be seen.
alter table machines add column launch_attempted_at timestamptz;
comment on column machines.launch_attempted_at is
    'When a launch was last tried whose outcome may be unknown; null when the provider surely made no machine.';
