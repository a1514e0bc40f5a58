-- First start of a project's database, before the server's migrations, as the superuser in the
-- project's database (contract/project-backend.md, sections 1.8, 5.2, 5.3). The migrations take it
-- from here: they give project_admin more rights, and remove both event triggers again.

CREATE ROLE anon NOLOGIN;
CREATE ROLE authenticated NOLOGIN;
CREATE ROLE project_admin NOLOGIN;

GRANT USAGE ON SCHEMA public TO anon, authenticated;
GRANT USAGE, CREATE ON SCHEMA public TO project_admin;

-- Requests of clients: row security decides what they get to see.
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO anon, authenticated, project_admin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO anon, authenticated, project_admin;

-- Until project_admin passes row security by an attribute of its own, a table with row security
-- needs a policy for it.

CREATE FUNCTION public.create_default_policies() RETURNS event_trigger
LANGUAGE plpgsql AS $$
DECLARE
    made record;
BEGIN
    FOR made IN
        SELECT c.oid::regclass AS name
        FROM pg_event_trigger_ddl_commands() AS command
        JOIN pg_class AS c ON c.oid = command.objid
        WHERE command.classid = 'pg_class'::regclass
          AND command.command_tag = 'CREATE TABLE'
          AND c.relkind IN ('r', 'p')
          AND c.relrowsecurity
    LOOP
        EXECUTE format(
            'CREATE POLICY project_admin_policy ON %s FOR ALL TO project_admin USING (true) WITH CHECK (true)',
            made.name);
    END LOOP;
END $$;

CREATE FUNCTION public.create_policies_after_rls() RETURNS event_trigger
LANGUAGE plpgsql AS $$
DECLARE
    altered record;
BEGIN
    FOR altered IN
        SELECT DISTINCT c.oid::regclass AS name
        FROM pg_event_trigger_ddl_commands() AS command
        JOIN pg_class AS c ON c.oid = command.objid
        WHERE command.classid = 'pg_class'::regclass
          AND command.command_tag = 'ALTER TABLE'
          AND c.relkind IN ('r', 'p')
          AND c.relrowsecurity
          -- Its author has policies of their own.
          AND NOT EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid)
    LOOP
        EXECUTE format(
            'CREATE POLICY project_admin_policy ON %s FOR ALL TO project_admin USING (true) WITH CHECK (true)',
            altered.name);
    END LOOP;
END $$;

CREATE EVENT TRIGGER create_policies_on_table_create ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION public.create_default_policies();

CREATE EVENT TRIGGER create_policies_on_rls_enable ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION public.create_policies_after_rls();
