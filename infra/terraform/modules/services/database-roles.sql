-- The roles of the control plane's database, and the database itself. Run by the master, any number of times:
-- infra/bin/task database-roles. ROLE_NAME and ROLE_PASSWORD come from the secret <name>/database-role.
\set ON_ERROR_STOP on
\getenv role_name ROLE_NAME
\getenv role_password ROLE_PASSWORD

-- Owns everything, and cannot log in.
select 'create role insforge nologin' where not exists (select from pg_roles where rolname = 'insforge') \gexec
grant insforge to current_user;

-- Logs in and becomes the owner at once, so that what one login role makes the other one may change.
select format('create role %I', :'role_name') where not exists (select from pg_roles where rolname = :'role_name') \gexec
alter role :"role_name" login password :'role_password';
grant insforge to :"role_name";
alter role :"role_name" set role = 'insforge';

select 'create database insforge owner insforge' where not exists (select from pg_database where datname = 'insforge') \gexec
revoke all on database insforge from public;
