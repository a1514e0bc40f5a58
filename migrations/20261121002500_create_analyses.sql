-- Questions about projects that people asked an AI.

create table analyses (
    id uuid primary key,
    project_id uuid not null references projects,
    user_id uuid not null references users,
    -- Characters. What was asked and answered is not kept.
    question_length integer not null check (question_length > 0),
    started_at timestamptz not null,
    -- Null: under way, or its process died.
    outcome text check (outcome in ('done', 'failed', 'abandoned')),
    ended_at timestamptz,
    rating text check (rating in ('helpful', 'not_helpful', 'incorrect')),
    rating_comment text check (length(rating_comment) between 1 and 2000),
    rated_at timestamptz,
    constraint analyses_ended_check check ((outcome is null) = (ended_at is null)),
    constraint analyses_rated_check check ((rating is null) = (rated_at is null))
);
create index analyses_user_id_idx on analyses (user_id, started_at);
create index analyses_started_at_idx on analyses (started_at);
comment on table analyses is 'One row is one question that a person asked an AI about a project, and how they rated the answer.';
