//! The checklist of contract/platform-api.md, section 19: client command to platform calls.
//!
//! A call that is made only in a named case begins with `? `; one that is repeated stands once. What stands in braces is an
//! id. `R` (the organization, where none is given) is the conditional `GET /organizations/v1`.

pub struct Row {
    pub command: &'static str,
    pub calls: &'static [&'static str],
}

const fn row(command: &'static str, calls: &'static [&'static str]) -> Row {
    Row { command, calls }
}

const R: &str = "? GET /organizations/v1";

pub const ROWS: &[Row] = &[
    row(
        "login",
        &[
            "GET /api/oauth/v1/authorize",
            "POST /api/oauth/v1/token",
            "GET /auth/v1/profile",
        ],
    ),
    row(
        "login --device",
        &[
            "? POST /api/oauth/v1/device_authorization",
            "POST /api/oauth/v1/token",
            "GET /auth/v1/profile",
        ],
    ),
    row("login --email", &["POST /auth/v1/login"]),
    row("login --user-api-key", &["GET /auth/v1/profile"]),
    row("whoami", &["GET /auth/v1/profile"]),
    row(
        "list",
        &[
            "GET /organizations/v1",
            "GET /organizations/v1/{org}/projects",
        ],
    ),
    row("orgs list", &["GET /organizations/v1"]),
    row("orgs create", &["POST /organizations/v1"]),
    row("orgs update", &[R, "PUT /organizations/v1/{org}"]),
    row("orgs leave", &[R, "POST /organizations/v1/{org}/leave"]),
    row(
        "orgs delete",
        &[
            R,
            "GET /organizations/v1/{org}/projects",
            "DELETE /organizations/v1/{org}",
        ],
    ),
    row(
        "orgs members list",
        &[R, "GET /organizations/v1/{org}/members"],
    ),
    row(
        "orgs members invite",
        &[R, "POST /organizations/v1/{org}/members/invite"],
    ),
    row(
        "orgs members remove",
        &[R, "DELETE /organizations/v1/{org}/members/{member}"],
    ),
    row(
        "orgs members role",
        &[R, "PUT /organizations/v1/{org}/members/{member}/role"],
    ),
    row(
        "projects list",
        &[R, "GET /organizations/v1/{org}/projects"],
    ),
    row("projects get", &["GET /projects/v1/{id}"]),
    row("projects update", &["PUT /projects/v1/{id}"]),
    row(
        "projects delete",
        &["? GET /projects/v1/{id}", "DELETE /projects/v1/{id}"],
    ),
    row(
        "projects transfer",
        &["? GET /projects/v1/{id}", "POST /projects/v1/{id}/transfer"],
    ),
    row("projects restore", &["POST /projects/v1/{id}/restore"]),
    row(
        "projects update-version",
        &[
            "GET /platform/insforge/latest-version",
            "GET /projects/v1/{id}",
            "? POST /projects/v1/{id}/restart",
        ],
    ),
    row(
        "projects upgrade-instance",
        &["POST /projects/v1/{id}/upgrade-instance"],
    ),
    row(
        "create",
        &[
            R,
            "POST /organizations/v1/{org}/projects",
            "GET /projects/v1/{id}",
            "GET /projects/v1/{id}/access-api-key",
        ],
    ),
    row(
        "link --project-id",
        &[
            "GET /projects/v1/{id}",
            "GET /projects/v1/{id}/access-api-key",
            "POST /tracking/v1/agent-connected",
        ],
    ),
    row(
        "link with other options",
        &[
            R,
            "GET /organizations/v1/{org}/projects",
            "GET /projects/v1/{id}",
            "GET /projects/v1/{id}/access-api-key",
            "POST /tracking/v1/agent-connected",
        ],
    ),
    row(
        "link --api-base-url --api-key",
        &["POST /tracking/v1/agent-connected"],
    ),
    row(
        "branch create",
        &[
            "POST /projects/v1/{parent}/branches",
            "GET /projects/v1/branches/{id}",
            "GET /projects/v1/{parent}/branches",
            "GET /projects/v1/{branch}/access-api-key",
        ],
    ),
    row("branch list", &["GET /projects/v1/{parent}/branches"]),
    row(
        "branch switch <name>",
        &[
            "GET /projects/v1/{parent}/branches",
            "GET /projects/v1/{branch}/access-api-key",
        ],
    ),
    row(
        "branch merge",
        &[
            "GET /projects/v1/{parent}/branches",
            "POST /projects/v1/branches/{id}/merge?dryRun=true",
            "? POST /projects/v1/branches/{id}/merge",
        ],
    ),
    row(
        "branch reset",
        &[
            "GET /projects/v1/{parent}/branches",
            "POST /projects/v1/branches/{id}/reset",
            "GET /projects/v1/branches/{id}",
        ],
    ),
    row(
        "branch delete",
        &[
            "GET /projects/v1/{parent}/branches",
            "DELETE /projects/v1/branches/{id}",
        ],
    ),
    row("backups list", &["GET /projects/v1/{id}/backups"]),
    row("backups latest", &["GET /projects/v1/{id}/backup/latest"]),
    row("backups create", &["POST /projects/v1/{id}/backup"]),
    row(
        "backups rename",
        &["PATCH /projects/v1/{id}/backups/{backup}"],
    ),
    row(
        "backups delete",
        &["DELETE /projects/v1/{id}/backups/{backup}"],
    ),
    row(
        "backups restore",
        &["POST /projects/v1/{id}/backups/{backup}/restore"],
    ),
    row(
        "billing status",
        &[R, "GET /organizations/v1/{org}/subscription-status"],
    ),
    row("billing credits", &[R, "GET /billing/v1/{org}/credits"]),
    row(
        "billing history",
        &[R, "GET /organizations/v1/{org}/payment-history"],
    ),
    row(
        "billing cycles",
        &[R, "GET /organizations/v1/{org}/billing-cycles"],
    ),
    row(
        "billing upgrade",
        &[R, "POST /billing/v1/stripe/checkout-session"],
    ),
    row(
        "billing manage",
        &[R, "POST /billing/v1/stripe/portal-session"],
    ),
    row("usage", &[R, "GET /usage/v1/organizations/{org}"]),
    row(
        "diagnose",
        &[
            "GET /projects/v1/{id}/metrics?range=1h",
            "? GET /projects/v1/{id}/advisor/latest",
        ],
    ),
    row(
        "diagnose --ai",
        &[
            "GET /projects/v1/{id}/metrics?range=1h",
            "? GET /projects/v1/{id}/advisor/latest",
            "POST /diagnostic/v1/analyze",
            "? POST /diagnostic/v1/sessions/{session}/rating",
        ],
    ),
    row("diagnose metrics", &["GET /projects/v1/{id}/metrics"]),
    row(
        "diagnose advisor",
        &[
            "? GET /projects/v1/{id}/advisor/latest",
            "GET /projects/v1/{id}/advisor/latest/issues",
        ],
    ),
    row(
        "diagnose incident",
        &["GET /projects/v1/{id}/diagnose/incident"],
    ),
    row(
        "posthog setup",
        &[
            "GET /integrations/posthog/v1/cli-start",
            "GET /integrations/posthog/v1/connection",
        ],
    ),
    row(
        "webscraper apify connect",
        &[
            "GET /integrations/apify/v1/cli-start",
            "GET /integrations/apify/v1/connection",
        ],
    ),
    // What makes no platform call. `metadata`, `db …`, `records …` and the like call the project's host alone.
    row("logout", &[]),
    row("current", &[]),
    row("link without options", &[]),
    row("branch switch --parent", &[]),
    row("diagnose db", &[]),
    row("diagnose logs", &[]),
    row("metadata", &[]),
    row("backups in a directly linked directory", &[]),
];

/// Section 1: so many calls are in the contract.
pub const CALLS: usize = 55;

pub fn find(command: &str) -> &'static Row {
    ROWS.iter()
        .find(|row| row.command == command)
        .unwrap_or_else(|| panic!("{command} is no row of the checklist"))
}

impl Row {
    /// The name of its test.
    pub fn test(&self) -> String {
        let words = self
            .command
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("_")
    }

    /// What was sent that the row does not have, or has and was not sent.
    pub fn misses(&self, sent: &[String]) -> Vec<String> {
        let (needed, all): (Vec<_>, Vec<_>) = self
            .calls
            .iter()
            .map(|call| match call.strip_prefix("? ") {
                Some(call) => (None, call),
                None => (Some(*call), *call),
            })
            .unzip();
        let strange = sent
            .iter()
            .filter(|sent| !all.iter().any(|call| is_call(call, sent)))
            .map(|sent| format!("{sent} is not of the row"));
        let left_out = needed
            .into_iter()
            .flatten()
            .filter(|call| !sent.iter().any(|sent| is_call(call, sent)))
            .map(|call| format!("{call} was not sent"));
        strange.chain(left_out).collect()
    }
}

/// Queries count where the checklist has them, but a dry run is never the merge.
fn is_call(call: &str, sent: &str) -> bool {
    let (path, query) = sent.split_once('?').unwrap_or((sent, ""));
    let (wanted, wanted_query) = call.split_once('?').unwrap_or((call, query));
    let is_dry_run = |query: &str| query.contains("dryRun");
    let (parts, wanted): (Vec<_>, Vec<_>) =
        (path.split('/').collect(), wanted.split('/').collect());
    let fits = |(part, wanted): (&&str, &&str)| {
        part == wanted || (wanted.starts_with('{') && !part.is_empty())
    };
    wanted_query == query
        && is_dry_run(call) == is_dry_run(query)
        && parts.len() == wanted.len()
        && parts.iter().zip(&wanted).all(fits)
}
