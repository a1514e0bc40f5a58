-- The base schema of the stand-in: the schemas, tables and keys of the project backend's
-- contract (sections 5.1, 6.1, 6.2), so that SQL written against the real server works here.
-- Runs once, in one transaction, as the superuser; later changes are further steps in schema.rs.
-- Not here: pg_cron, http and vector (a plain Postgres does not bring them), so no schema
-- `cron`; payments tables are shells that hold what is dumped and compared, not their columns.

CREATE SCHEMA auth;
CREATE SCHEMA storage;
CREATE SCHEMA functions;
CREATE SCHEMA email;
CREATE SCHEMA realtime;
CREATE SCHEMA schedules;
CREATE SCHEMA payments;
CREATE SCHEMA compute;
CREATE SCHEMA deployments;
CREATE SCHEMA memory;

-- system ------------------------------------------------------------------------------------

CREATE TABLE system.secrets (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key text NOT NULL UNIQUE,
    value_ciphertext text NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    last_used_at timestamptz,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    is_reserved boolean NOT NULL DEFAULT false
);

CREATE TABLE system.custom_migrations (
    version text PRIMARY KEY CHECK (version ~ '^[0-9]{1,64}$'),
    name text NOT NULL,
    statements text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE system.audit_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    actor text NOT NULL,
    action text NOT NULL,
    module text NOT NULL,
    details jsonb,
    ip_address inet,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE system.mcp_usage (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    tool_name varchar(255) NOT NULL,
    success boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mcp_usage_created_at ON system.mcp_usage (created_at);

CREATE TABLE system.advisor_scans (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    status text NOT NULL DEFAULT 'completed',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE system.advisor_findings (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    scan_id uuid NOT NULL REFERENCES system.advisor_scans (id) ON DELETE CASCADE,
    rule_id text NOT NULL,
    affected_object text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE system.advisor_suppressions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    rule_id text NOT NULL,
    affected_object text,
    scope text NOT NULL DEFAULT 'rule',
    reason text,
    note text,
    created_by text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX advisor_suppressions_key
    ON system.advisor_suppressions (rule_id, COALESCE(affected_object, ''));

CREATE TABLE system.database_backups (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    status text NOT NULL DEFAULT 'completed',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE system.database_config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    backup_enabled boolean NOT NULL DEFAULT false,
    backup_cron_schedule text,
    backup_retention_days integer,
    backup_schedule_anchor timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX database_config_singleton ON system.database_config ((1));
INSERT INTO system.database_config DEFAULT VALUES;

-- auth --------------------------------------------------------------------------------------

CREATE TABLE auth.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text UNIQUE,
    password text,
    email_verified boolean NOT NULL DEFAULT false,
    is_project_admin boolean NOT NULL DEFAULT false,
    is_anonymous boolean NOT NULL DEFAULT false,
    profile jsonb NOT NULL DEFAULT '{}',
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE auth.user_providers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
    provider text NOT NULL,
    provider_account_id text NOT NULL,
    provider_data jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (provider, provider_account_id)
);
CREATE TABLE auth.email_otps (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email text NOT NULL,
    purpose text NOT NULL,
    otp_hash text NOT NULL,
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (email, purpose)
);
CREATE TABLE auth.config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    require_email_verification boolean NOT NULL DEFAULT false,
    password_min_length integer NOT NULL DEFAULT 6,
    require_number boolean NOT NULL DEFAULT false,
    require_lowercase boolean NOT NULL DEFAULT false,
    require_uppercase boolean NOT NULL DEFAULT false,
    require_special_char boolean NOT NULL DEFAULT false,
    verify_email_method text NOT NULL DEFAULT 'code',
    reset_password_method text NOT NULL DEFAULT 'code',
    allowed_redirect_urls text[] NOT NULL DEFAULT '{}',
    disable_signup boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX auth_config_singleton ON auth.config ((1));
CREATE TABLE auth.oauth_configs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    provider text NOT NULL UNIQUE,
    client_id text,
    native_client_ids text[] NOT NULL DEFAULT '{}',
    secret_id uuid REFERENCES system.secrets (id) ON DELETE RESTRICT,
    scopes text[],
    redirect_uri text,
    use_shared_key boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE auth.custom_oauth_configs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    key text NOT NULL UNIQUE,
    name text NOT NULL,
    discovery_endpoint text NOT NULL,
    client_id text NOT NULL,
    secret_id uuid NOT NULL REFERENCES system.secrets (id) ON DELETE RESTRICT,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE
    AS $$ SELECT NULLIF(current_setting('request.jwt.claims', true), '')::jsonb $$;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT NULLIF(COALESCE(current_setting('request.jwt.claim.sub', true), auth.jwt() ->> 'sub'), '')::uuid $$;
CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT NULLIF(COALESCE(current_setting('request.jwt.claim.role', true), auth.jwt() ->> 'role'), '') $$;
CREATE FUNCTION auth.email() RETURNS text LANGUAGE sql STABLE
    AS $$ SELECT NULLIF(COALESCE(current_setting('request.jwt.claim.email', true), auth.jwt() ->> 'email'), '') $$;

-- storage -----------------------------------------------------------------------------------

CREATE TABLE storage.buckets (
    name text PRIMARY KEY,
    public boolean NOT NULL DEFAULT false,
    cors_rules jsonb,
    versioning_status text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE storage.objects (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    bucket text NOT NULL REFERENCES storage.buckets (name) ON DELETE CASCADE,
    key text NOT NULL,
    size bigint NOT NULL DEFAULT 0,
    mime_type text,
    uploaded_by text,
    uploaded_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (bucket, key)
);
CREATE TABLE storage.object_tags (
    object_id uuid NOT NULL REFERENCES storage.objects (id) ON DELETE CASCADE,
    key text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (object_id, key)
);
CREATE TABLE storage.s3_access_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    access_key_id text NOT NULL UNIQUE,
    secret_access_key_encrypted text NOT NULL,
    description text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE storage.config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    max_file_size_mb integer NOT NULL DEFAULT 50,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX storage_config_singleton ON storage.config ((1));
INSERT INTO storage.config DEFAULT VALUES;

-- functions ---------------------------------------------------------------------------------

CREATE TABLE functions.definitions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    slug text NOT NULL UNIQUE,
    name text NOT NULL,
    description text,
    code text NOT NULL,
    status text NOT NULL DEFAULT 'draft',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deployed_at timestamptz
);
CREATE TABLE functions.deployments (
    id text PRIMARY KEY,
    status text NOT NULL DEFAULT 'pending',
    url text,
    functions jsonb,
    error_message text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- email -------------------------------------------------------------------------------------

CREATE TABLE email.config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    enabled boolean NOT NULL DEFAULT false,
    host text NOT NULL DEFAULT '',
    port integer NOT NULL DEFAULT 465,
    username text NOT NULL DEFAULT '',
    password_encrypted text,
    sender_email text NOT NULL DEFAULT '',
    sender_name text NOT NULL DEFAULT '',
    min_interval_seconds integer NOT NULL DEFAULT 60,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX email_config_singleton ON email.config ((1));
INSERT INTO email.config DEFAULT VALUES;
CREATE TABLE email.templates (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    template_type text NOT NULL UNIQUE,
    subject text NOT NULL,
    body_html text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO email.templates (template_type, subject, body_html) VALUES
    ('email-verification-code', 'Verify your email', '<p>Your code: {{ token }}</p>'),
    ('email-verification-link', 'Verify your email', '<p><a href="{{ link }}">Verify</a></p>'),
    ('reset-password-code', 'Reset your password', '<p>Your code: {{ token }}</p>'),
    ('reset-password-link', 'Reset your password', '<p><a href="{{ link }}">Reset</a></p>'),
    ('request-otp', 'Your sign-in code', '<p>Your code: {{ token }}</p>');

-- realtime ----------------------------------------------------------------------------------

CREATE TABLE realtime.channels (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    pattern text NOT NULL UNIQUE,
    description text,
    webhook_urls text[],
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE realtime.messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    event_name text NOT NULL,
    channel_id uuid REFERENCES realtime.channels (id) ON DELETE SET NULL,
    channel_name text NOT NULL,
    payload jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE realtime.config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    retention_days integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX realtime_config_singleton ON realtime.config ((1));
INSERT INTO realtime.config DEFAULT VALUES;

-- schedules ---------------------------------------------------------------------------------

CREATE TABLE schedules.jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    cron_schedule text NOT NULL,
    function_url text NOT NULL,
    http_method text NOT NULL DEFAULT 'POST',
    headers jsonb,
    encrypted_headers text,
    body jsonb,
    cron_job_id bigint,
    is_active boolean NOT NULL DEFAULT true,
    last_executed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE schedules.job_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    job_id uuid NOT NULL REFERENCES schedules.jobs (id) ON DELETE CASCADE,
    success boolean NOT NULL,
    status_code integer,
    message text,
    executed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE schedules.config (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    retention_days integer,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX schedules_config_singleton ON schedules.config ((1));
INSERT INTO schedules.config DEFAULT VALUES;

-- compute, deployments, memory, payments ----------------------------------------------------

CREATE TABLE compute.services (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id text,
    name text NOT NULL,
    status text NOT NULL DEFAULT 'stopped',
    env_vars_encrypted text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE deployments.runs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    status text NOT NULL DEFAULT 'waiting',
    url text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE deployments.files (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    run_id uuid NOT NULL REFERENCES deployments.runs (id) ON DELETE CASCADE,
    path text NOT NULL
);
-- Without embeddings: they need the extension `vector`.
CREATE TABLE memory.memories (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    content text NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['customer_mappings', 'customers', 'provider_connections',
        'razorpay_items', 'razorpay_orders', 'razorpay_plans', 'razorpay_subscriptions',
        'stripe_checkout_sessions', 'stripe_customer_portal_sessions', 'stripe_prices',
        'stripe_products', 'stripe_subscription_items', 'stripe_subscriptions', 'transactions',
        'webhook_events']
    LOOP
        EXECUTE format('CREATE TABLE payments.%I (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            environment text NOT NULL,
            data jsonb NOT NULL DEFAULT ''{}'',
            created_at timestamptz NOT NULL DEFAULT now(),
            updated_at timestamptz NOT NULL DEFAULT now())', name);
    END LOOP;
END $$;

-- exposed schemas (5.1, 5.3) ----------------------------------------------------------------

CREATE FUNCTION system.is_exposed_schema(schema_name text) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT schema_name !~ '^pg_'
       AND schema_name <> 'information_schema'
       AND schema_name <> ALL (string_to_array(COALESCE(
               NULLIF(current_setting('insforge.internal_schemas', true), ''),
               'ai,auth,compute,deployments,email,functions,memory,payments,realtime,schedules,storage,system'), ','))
       AND NOT EXISTS (
           SELECT FROM pg_depend d JOIN pg_namespace n ON n.oid = d.objid
           WHERE d.classid = 'pg_namespace'::regclass AND d.deptype = 'e' AND n.nspname = schema_name)
$$;

CREATE FUNCTION system.sync_postgrest_exposed_schemas() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE schemas text;
BEGIN
    SELECT string_agg(nspname, ',' ORDER BY nspname <> 'public', nspname) INTO schemas
    FROM pg_namespace WHERE system.is_exposed_schema(nspname);
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET pgrst.db_schemas = %L',
        current_user, current_database(), COALESCE(schemas, 'public'));
    NOTIFY pgrst, 'reload config';
    NOTIFY pgrst, 'reload schema';
END $$;

CREATE FUNCTION system.on_schema_change() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    PERFORM system.sync_postgrest_exposed_schemas();
END $$;
CREATE EVENT TRIGGER insforge_sync_postgrest_schemas ON ddl_command_end
    WHEN TAG IN ('CREATE SCHEMA', 'ALTER SCHEMA', 'DROP SCHEMA')
    EXECUTE FUNCTION system.on_schema_change();

-- What the superuser made in public becomes editable by the project (5.7).
CREATE FUNCTION system.reassign_public_objects_to_project_admin() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE item record;
BEGIN
    FOR item IN
        SELECT c.oid::regclass AS name, c.relkind
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
          AND c.relowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
              AND d.objid = c.oid AND d.deptype IN ('e', 'a', 'i'))
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO project_admin', CASE item.relkind
            WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
            WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, item.name);
    END LOOP;
    FOR item IN
        SELECT p.oid::regprocedure AS name
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = current_user::regrole
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass
              AND d.objid = p.oid AND d.deptype = 'e')
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO project_admin', item.name);
    END LOOP;
END $$;

-- rights (5.2) ------------------------------------------------------------------------------

GRANT ALL ON SCHEMA public TO project_admin;
GRANT USAGE ON SCHEMA public TO anon, authenticated;
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO anon, authenticated;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO anon, authenticated;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO project_admin;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO project_admin;
ALTER DEFAULT PRIVILEGES FOR ROLE project_admin IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO anon, authenticated;
ALTER DEFAULT PRIVILEGES FOR ROLE project_admin IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO anon, authenticated;

DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['auth', 'storage', 'functions', 'email', 'realtime', 'schedules',
        'payments', 'compute', 'deployments', 'memory', 'system']
    LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO project_admin', name);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO project_admin', name);
    END LOOP;
END $$;
GRANT USAGE ON SCHEMA auth TO anon, authenticated;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA auth TO anon, authenticated, project_admin;
-- User tables commonly reference users.
GRANT REFERENCES ON auth.users TO project_admin;
REVOKE EXECUTE ON FUNCTION system.reassign_public_objects_to_project_admin() FROM PUBLIC;
