-- Branches can be rebased: their parent's changes come to them.

alter table branch_comparisons add column direction text not null default 'merge' check (direction in ('merge', 'rebase'));
comment on column branch_comparisons.direction is 'merge: what the branch''s changes do to the parent; rebase: what the parent''s do to the branch';
