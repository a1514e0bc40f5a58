-- Upgrades of machines, and releases that their agents gave up.

-- The default stays: servers of the release before this one insert projects, too.
alter table projects add column volume_gib integer not null default 8;
comment on column projects.volume_gib is 'The size of the disk of its machine, in GiB; a new machine gets it, too.';

alter table machines
    add column backend_release text,
    add column rolled_back_from text;
comment on column machines.backend_release is 'The release that serves, as its agent tells.';
comment on column machines.rolled_back_from is 'The desired release that did not become healthy, so that backend_release serves in its place; null: none.';
