//! What the client reads, as the tables of contract/platform-api.md have it.

use cp_tests::Shape;
use cp_tests::Shape::{
    Date, Flag, Id, Label, List, Map, Moment, Number, Object, OneOf, OrNull, Text, Url, Version,
    Whole,
};

/// 3.2. `message` is left out: with it the shown text is another one.
pub const ERROR: Shape = Object(&[("code", Text), ("error", Text), ("requestId", Text)]);

/// 4.1
pub const USER: Shape = Object(&[
    ("id", Id),
    ("name", Text),
    ("email", Text),
    ("avatar_url", OrNull(&Url)),
    ("email_verified", Flag),
]);
pub const PROFILE: Shape = Object(&[("user", USER)]);

/// 4.2
pub const LOGIN: Shape = Object(&[("token", Text), ("user", USER)]);

/// 5.2 and 6.2
pub const TOKENS: Shape = Object(&[
    ("access_token", Text),
    ("refresh_token", Text),
    ("expires_in", Whole),
    ("scope", Text),
]);

/// 6.1
pub const DEVICE: Shape = Object(&[
    ("device_code", Text),
    ("user_code", Text),
    ("verification_uri", Url),
    ("verification_uri_complete", Url),
    ("expires_in", Whole),
    ("interval?", Number),
]);

/// 7.1
const ORGANIZATION: Shape = Object(&[
    ("id", Id),
    ("name", Text),
    ("type", OneOf(&["personal", "team", "company"])),
    ("created_at", Moment),
    ("updated_at", Moment),
]);
pub const ONE_ORGANIZATION: Shape = Object(&[("organization", ORGANIZATION)]);
pub const ORGANIZATIONS: Shape = Object(&[("organizations", List(&ORGANIZATION))]);
pub const LEFT: Shape = Object(&[("message", Text)]);
pub const ORGANIZATION_DELETED: Shape = Object(&[("message", Text), ("organizationId", Id)]);

/// 8.1
const ROLE: Shape = OneOf(&["administrator", "developer"]);
const MEMBER: Shape = Object(&[
    ("id", Id),
    ("organization_id", Id),
    ("user_id", Id),
    ("role", ROLE),
    ("invited_by?", Id),
    ("joined_at", Moment),
    ("name?", Text),
    ("email?", Text),
    ("avatar_url?", Url),
]);
const INVITATION: Shape = Object(&[
    ("id", Id),
    ("organization_id", Id),
    ("email", Text),
    ("role", ROLE),
    (
        "status",
        OneOf(&["pending", "accepted", "expired", "declined"]),
    ),
    ("expires_at", Moment),
    ("created_at", Moment),
]);
pub const MEMBERS: Shape = Object(&[
    ("members", List(&MEMBER)),
    ("invitations", List(&INVITATION)),
]);
pub const ONE_MEMBER: Shape = Object(&[("member", MEMBER)]);
pub const INVITED: Shape = Object(&[(
    "invitation",
    Object(&[
        ("id", Id),
        ("email", Text),
        ("role", ROLE),
        ("expires_at", Moment),
    ]),
)]);

/// 9.1
const PROJECT: Shape = Object(&[
    ("id", Id),
    ("organization_id", Id),
    ("name", Text),
    ("appkey", Label),
    (
        "region",
        OneOf(&["us-east", "us-west", "eu-central", "ap-southeast"]),
    ),
    ("status", Text),
    ("operation_status?", OrNull(&Text)),
    (
        "instance_type",
        OneOf(&["nano", "micro", "small", "medium", "large", "xl"]),
    ),
    ("service_version", OrNull(&Version)),
    ("customized_domain", OrNull(&Text)),
    ("created_at", Moment),
    ("updated_at", Moment),
]);
pub const ONE_PROJECT: Shape = Object(&[("project", PROJECT)]);
pub const PROJECTS: Shape = Object(&[("projects", List(&PROJECT))]);
pub const ACCESS_API_KEY: Shape = Object(&[("access_api_key", Text)]);

/// 9.5
pub const LATEST_VERSION: Shape = Object(&[("version", Text), ("cached", Flag)]);

/// 9.6
pub const UPGRADE: Shape = Object(&[
    ("message", Text),
    ("project", PROJECT),
    ("previousInstanceType", Text),
    ("newInstanceType", Text),
    ("previousVolumeSizeGiB", Number),
    ("newVolumeSizeGiB", Number),
]);

/// 10.1 and 10.2
const BRANCH: Shape = Object(&[
    ("id", Id),
    ("parent_project_id", Id),
    ("organization_id", Id),
    ("name", Text),
    ("appkey", Label),
    ("region", Text),
    ("status?", Text),
    (
        "branch_state",
        OneOf(&[
            "creating",
            "ready",
            "merging",
            "merged",
            "conflicted",
            "deleted",
            "resetting",
        ]),
    ),
    ("branch_created_at", Moment),
    (
        "branch_metadata",
        Object(&[
            ("mode", OneOf(&["full", "schema-only"])),
            ("source_backup_s3_key?", Text),
        ]),
    ),
]);
pub const ONE_BRANCH: Shape = Object(&[("branch", BRANCH)]);
pub const BRANCHES: Shape = Object(&[("data", List(&BRANCH))]);

/// 10.9
pub const DIFF: Shape = Object(&[
    (
        "summary",
        Object(&[("added", Whole), ("modified", Whole), ("conflicts", Whole)]),
    ),
    ("rendered_sql", Text),
    (
        "changes",
        List(&Object(&[
            ("schema", Text),
            ("object", Text),
            ("type", Text),
            ("action", OneOf(&["add", "modify", "drop"])),
            ("sql", Text),
        ])),
    ),
    (
        "conflicts",
        List(&Object(&[
            ("schema", Text),
            ("object", Text),
            ("type", Text),
            ("parent_t0_hash", Text),
            ("parent_now_hash", Text),
            ("branch_now_hash", Text),
            ("hint", Text),
        ])),
    ),
]);
/// 10.8
pub const MERGED: Shape = Object(&[
    ("branchId", Id),
    ("status", OneOf(&["merged"])),
    ("diff", DIFF),
]);
pub const CONFLICT: Shape = Object(&[("code", Text), ("error", Text), ("diff", DIFF)]);

/// 11.1
pub const BACKUPS: Shape = Object(&[(
    "backups",
    List(&Object(&[
        ("id", Id),
        ("project_id", Id),
        ("organization_id", Id),
        ("plan", Text),
        ("status", OneOf(&["running", "completed", "failed"])),
        ("trigger_source", OneOf(&["manual", "scheduled"])),
        ("error_message", OrNull(&Text)),
        ("triggered_at", OrNull(&Moment)),
        ("created_at", Moment),
        ("name", OrNull(&Text)),
        ("size_bytes", OrNull(&Whole)),
        ("created_by", OrNull(&Id)),
    ])),
)]);
/// 11.2
pub const LATEST_BACKUP: Shape =
    Object(&[("file", Text), ("download_url", Url), ("size_bytes", Whole)]);
pub const BACKUP_BEGUN: Shape = Object(&[
    ("message", Text),
    (
        "project",
        Object(&[("id", Id), ("name", Text), ("status", Text)]),
    ),
]);
pub const BACKUP_RENAMED: Shape = Object(&[("id", Id), ("name", OrNull(&Text))]);

/// 12
pub const SUBSCRIPTION: Shape = Object(&[
    ("status", Text),
    ("plan", Text),
    ("currentPeriodEnd?", Moment),
    ("cancelAtPeriodEnd?", Flag),
    ("stripeCustomerId?", Text),
    ("stripeSubscriptionId?", Text),
]);
pub const PAYMENTS: Shape = Object(&[(
    "payments",
    List(&Object(&[
        ("stripe_invoice_id?", Text),
        ("amount_cents", Whole),
        ("amount_display", Text),
        ("currency", Text),
        ("status", Text),
        ("description", OrNull(&Text)),
        ("invoice_pdf_url", OrNull(&Url)),
        ("created_at", Moment),
    ])),
)]);
const CYCLE: Shape = Object(&[("start_date", Date), ("end_date", Date)]);
pub const CYCLES: Shape = Object(&[("current", CYCLE), ("previous?", CYCLE)]);
pub const CREDITS: Shape = Object(&[
    ("creditBalanceCents", Whole),
    ("creditBalanceFormatted", Text),
    (
        "transactions",
        List(&Object(&[
            ("amountCents", Whole),
            ("description", Text),
            ("created", Moment),
        ])),
    ),
]);
pub const USAGE: Shape = Object(&[
    (
        "organization",
        Object(&[("id", Id), ("name", Text), ("price_plan", Text)]),
    ),
    ("usage_summary", Map(&Number)),
    (
        "projects",
        List(&Object(&[
            ("id", Id),
            ("name", Text),
            ("status", Text),
            ("database_bytes?", Number),
            ("storage_bytes?", Number),
            ("egress_bytes?", Number),
        ])),
    ),
    ("_meta", Object(&[("requested_at", Moment)])),
]);

/// 13.1
pub const METRICS: Shape = Object(&[
    ("project_id", Id),
    ("range", Text),
    (
        "metrics",
        List(&Object(&[
            (
                "metric",
                OneOf(&[
                    "cpu_usage",
                    "memory_usage",
                    "disk_usage",
                    "network_in",
                    "network_out",
                ]),
            ),
            // Not read; left out while nothing was measured.
            ("instance_id?", Text),
            (
                "data",
                List(&Object(&[("timestamp", Number), ("value", Number)])),
            ),
        ])),
    ),
    (
        "_meta?",
        Object(&[
            ("requested_at", Moment),
            ("query_time_ms", Number),
            ("cached", Flag),
        ]),
    ),
]);

/// 13.3
pub const INCIDENT: Shape = Object(&[
    (
        "verdict",
        OneOf(&[
            "paused_or_suspended",
            "platform_operation_in_progress",
            "oom_likely",
            "down_unknown",
            "metrics_stopped",
            "no_incident_detected",
        ]),
    ),
    ("explanation", Text),
    ("recommendation", Text),
    ("project_id", Id),
    ("project_status", Text),
    ("operation_status", OrNull(&Text)),
    ("instance_type", OrNull(&Text)),
    (
        "reachable",
        Object(&[
            ("metrics_last_seen_at", OrNull(&Moment)),
            ("metrics_reporting", Flag),
            ("database_connect", Flag),
        ]),
    ),
    ("down_since", OrNull(&Moment)),
    // What is missing counts as null, and nobody tells it.
    ("postgres_started_at?", OrNull(&Moment)),
    ("memory_before_down_pct", OrNull(&Number)),
    ("memory_latest_pct", OrNull(&Number)),
    ("scrape_gaps_24h", Whole),
    (
        "recent_platform_operations",
        List(&Object(&[("action", Text), ("at", Moment)])),
    ),
]);
