//! Which tables hold configuration, by what a row is told apart, and what of it a merge carries.
//!
//! Source: the project backend's contract, section 6.1. Columns that are not named here (ids, timestamps, secrets and
//! references to them, entries of `pg_cron`) never travel.

/// A table whose rows a merge carries.
#[derive(Debug)]
pub(super) struct Table {
    pub schema: &'static str,
    pub name: &'static str,
    /// The columns that tell rows apart; none for a table of one row.
    pub key: &'static [&'static str],
    /// What stands behind `ON CONFLICT`.
    pub conflict_target: &'static str,
    pub columns: &'static [&'static str],
    pub special: Special,
}

/// What a table needs beyond `INSERT` and `UPDATE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    None,
    /// `auth.oauth_configs`: a row with keys of its own arrives without its secret.
    OwnKeys,
    /// `auth.custom_oauth_configs`: no row without a secret.
    SecretRequired,
    /// `email.config`: of no use without a password.
    Password,
    /// `schedules.jobs`: an entry of `pg_cron` and encrypted headers belong to each row.
    Job,
    /// `functions.definitions`: an edge function, named by its slug.
    EdgeFunction,
}

const fn plain(
    schema: &'static str,
    name: &'static str,
    key: &'static [&'static str],
    conflict_target: &'static str,
    columns: &'static [&'static str],
) -> Table {
    Table {
        schema,
        name,
        key,
        conflict_target,
        columns,
        special: Special::None,
    }
}

impl Table {
    const fn with(mut self, special: Special) -> Self {
        self.special = special;
        self
    }
}

/// In the order in which they are written. There are no foreign keys among them.
pub(super) const TABLES: &[Table] = &[
    plain(
        "auth",
        "config",
        &[],
        "((1))",
        &[
            "require_email_verification",
            "password_min_length",
            "require_number",
            "require_lowercase",
            "require_uppercase",
            "require_special_char",
            "verify_email_method",
            "reset_password_method",
            "allowed_redirect_urls",
            "disable_signup",
        ],
    ),
    plain(
        "auth",
        "oauth_configs",
        &["provider"],
        "(provider)",
        &[
            "client_id",
            "native_client_ids",
            "scopes",
            "redirect_uri",
            "use_shared_key",
        ],
    )
    .with(Special::OwnKeys),
    plain(
        "auth",
        "custom_oauth_configs",
        &["key"],
        "(key)",
        &["name", "discovery_endpoint", "client_id"],
    )
    .with(Special::SecretRequired),
    plain(
        "storage",
        "buckets",
        &["name"],
        "(name)",
        &["public", "cors_rules", "versioning_status"],
    ),
    plain("storage", "config", &[], "((1))", &["max_file_size_mb"]),
    plain(
        "email",
        "config",
        &[],
        "((1))",
        &[
            "enabled",
            "host",
            "port",
            "username",
            "sender_email",
            "sender_name",
            "min_interval_seconds",
        ],
    )
    .with(Special::Password),
    plain(
        "email",
        "templates",
        &["template_type"],
        "(template_type)",
        &["subject", "body_html"],
    ),
    plain(
        "realtime",
        "channels",
        &["pattern"],
        "(pattern)",
        &["description", "webhook_urls", "enabled"],
    ),
    plain("realtime", "config", &[], "((1))", &["retention_days"]),
    plain(
        "schedules",
        "jobs",
        // Names are not unique, and ids survive a restore.
        &["id"],
        "(id)",
        &[
            "name",
            "cron_schedule",
            "function_url",
            "http_method",
            "headers",
            "body",
            "is_active",
        ],
    )
    .with(Special::Job),
    plain("schedules", "config", &[], "((1))", &["retention_days"]),
    plain(
        "system",
        "database_config",
        &[],
        "((1))",
        &[
            "backup_enabled",
            "backup_cron_schedule",
            "backup_retention_days",
        ],
    ),
    plain(
        "system",
        "advisor_suppressions",
        &["rule_id", "affected_object"],
        "(rule_id, COALESCE(affected_object, ''))",
        &["scope", "reason", "note"],
    ),
    plain(
        "functions",
        "definitions",
        &["slug"],
        "(slug)",
        &["name", "description", "code", "status"],
    )
    .with(Special::EdgeFunction),
];

impl Table {
    /// `schema.table`; none of these names needs quotes.
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// `type` of changes and conflicts.
    pub fn kind(&self) -> &'static str {
        match self.special {
            Special::EdgeFunction => "edge_function",
            _ => "config_row",
        }
    }
}
