//! The pages with sample data, written to a folder so that somebody can look at them:
//! `INSFORGE_PREVIEW=/some/folder cargo test -p cp-api preview -- --ignored`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use cp_domain::oauth::{AuthorizationRequest, ConnectedApp, DeviceRequest, Prompt};
use cp_domain::people::{ApiKeySummary, BrowserSessionSummary};
use cp_domain::usage::{DayUsage, OpenedReport, ProjectTotal, UsedProject};
use cp_domain::{Caller, Credential, DomainError, Profile, ShownInvitation, UserCaller};
use cp_model::{
    Amounts, ApiKeyId, BrowserSessionId, ClientId, ClientKind, FieldError, MemberRole, Metric,
    OAuthClient, OrganizationId, Partner, PartnerId, ProjectId, ProjectStatus, RequestId, Scope,
    Scopes, UsagePeriod, UserId,
};
use maud::Markup;
use secrecy::SecretString;
use serde_json::json;

use super::error_page::Failure;
use super::fields::Fields;
use super::forms::Errors;
use super::layout::{Layout, Width};
use super::return_to::ReturnTo;
use super::session::Visitor;
use super::settings::{Done, Holdings, Settings, api_keys};
use super::{
    assets, billing, branch_diff, consent, device, forgot_password, invitation, login,
    reset_password, signup, usage_report, verify_email,
};

fn ada() -> UserCaller {
    UserCaller {
        user: Profile {
            id: UserId::generate(),
            email: "ada.moreno@example.com".into(),
            name: "Ada Moreno".into(),
            avatar_url: None,
            email_verified: true,
            created_at: Utc::now() - TimeDelta::days(90),
        },
        credential: Credential::Browser(BrowserSessionId::generate()),
        caller: Caller {
            request_id: RequestId::generate(),
            address: None,
        },
    }
}

fn app() -> Arc<OAuthClient> {
    Arc::new(OAuthClient {
        id: ClientId::generate(),
        name: "Harbour Notes".into(),
        kind: ClientKind::Confidential,
        redirect_uris: vec![],
        scopes: Scopes::all(),
        first_party: false,
        device_grant: true,
        rate_limit: 50,
        logo_url: None,
        color: Some("#f2b705".into()),
        homepage_url: Some("https://harbour.example/".into()),
        disabled_at: None,
        created_at: Utc::now(),
    })
}

fn request(client: &Arc<OAuthClient>) -> AuthorizationRequest {
    AuthorizationRequest {
        client: Arc::clone(client),
        redirect_uri: "https://app.harbour.example/callback".into(),
        scopes: [
            Scope::UserRead,
            Scope::OrganizationsRead,
            Scope::ProjectsWrite,
        ]
        .into_iter()
        .collect(),
        state: "s".into(),
        code_challenge: "c".into(),
        prompt: Prompt {
            login: false,
            consent: false,
            none: false,
        },
    }
}

/// A report of so many days, on which things were used, corrected, and not used.
fn used(count: u32) -> Markup {
    let today = Utc::now().date_naive();
    let period = UsagePeriod::new(today - TimeDelta::days(i64::from(count) - 1), today).unwrap();
    let amounts = |day: i64| {
        let mut amounts = Amounts::default();
        let wave = 50 + (day * 37 + day * day * 11) % 101;
        amounts[Metric::DatabaseBytes] = 1_200_000_000 + day * 9_000_000;
        amounts[Metric::StorageBytes] = if day % 9 == 0 { 0 } else { wave << 20 };
        amounts[Metric::AiTokens] = if day % 13 == 7 { -wave } else { wave * 3 } * 1_000;
        amounts[Metric::McpCalls] = i64::from(day == 4);
        amounts[Metric::AiCredits] = wave * 12_345;
        amounts[Metric::FunctionCalls] = wave * wave * wave;
        amounts[Metric::Ec2Compute] = wave * 700;
        amounts
    };
    let days: Vec<DayUsage> = (0..)
        .zip(period.days())
        .map(|(index, day)| DayUsage {
            day,
            amounts: amounts(index),
        })
        .collect();
    let project = |name: &str, day| ProjectTotal {
        project: UsedProject {
            id: ProjectId::generate(),
            name: name.into(),
            status: if day == 2 {
                ProjectStatus::Deleted
            } else {
                ProjectStatus::Active
            },
            last_activity_at: None,
            created_at: Utc::now(),
            deleted_at: None,
        },
        total: amounts(day),
    };
    let opened = OpenedReport {
        partner: Partner {
            id: PartnerId::generate(),
            name: "Harbour Apps".into(),
            organization_id: OrganizationId::generate(),
            co_branded: true,
            white_label: true,
            rate_limit: 600,
            trusted: false,
            suspended_at: None,
            created_at: Utc::now(),
        },
        expires_at: Utc::now() + TimeDelta::minutes(10),
    };
    let report = usage_report::Report {
        opened: &opened,
        asked: &usage_report::Asked {
            token: "t",
            first: period.first().to_string(),
            last: period.last().to_string(),
        },
        period,
        days: &days,
        projects: &[
            project("harbour-notes", 1),
            project("a-shop-with-a-long-name-that-goes-on", 2),
        ],
    };
    report.render().unwrap()
}

fn branch_diff() -> Markup {
    let diff: branch_diff::Diff = serde_json::from_value(json!({
        "rendered_sql": "-- 2 changes\nCREATE TABLE public.coupons (\n    id bigint NOT NULL\n);\n",
        "changes": [
            { "schema": "public", "object": "coupons", "type": "table", "action": "add", "definitions": {
                "base": null, "parent": null,
                "branch": "CREATE TABLE public.coupons (\n    id bigint NOT NULL,\n    percent integer NOT NULL\n)" } },
            { "schema": "public", "object": "total(integer)", "type": "function", "action": "modify", "definitions": {
                "base": null,
                "parent": "CREATE FUNCTION public.total(n integer)\n RETURNS integer\n LANGUAGE sql\nAS $$ SELECT n $$",
                "branch": "CREATE FUNCTION public.total(n integer)\n RETURNS integer\n LANGUAGE sql\n STABLE\nAS $$ SELECT n + 1 $$" } },
        ],
        "conflicts": [
            { "schema": "public", "object": "users.name", "type": "column",
                "hint": "the parent changed the default of public.users.name, and so did the branch",
                "definitions": { "base": "name text", "parent": "name text DEFAULT 'someone'", "branch": "name text DEFAULT 'nobody'" } },
        ],
        "needs_migration": [
            { "schema": "public", "object": "users.phone", "type": "column", "hint": "3 rows have no value in public.users.phone",
                "definitions": { "base": "phone text", "parent": "phone text", "branch": "phone text NOT NULL" } },
        ],
        "renames": [{ "type": "column", "schema": "public", "from": "users.mail", "to": "email" }],
        "warnings": [{ "schema": "public", "object": "orders.total", "type": "column", "text": "dropping it loses its values" }],
    }))
    .unwrap();
    diff.render("feat-coupons")
}

fn holdings(client: &Arc<OAuthClient>) -> Holdings {
    let now = Utc::now();
    let session = |user_agent: &str, is_this_one| BrowserSessionSummary {
        id: BrowserSessionId::generate(),
        address: Some("203.0.113.7".into()),
        user_agent: Some(user_agent.into()),
        created_at: now - TimeDelta::days(3),
        last_seen_at: now,
        is_this_one,
    };
    let key = |name: &str, scopes| ApiKeySummary {
        id: ApiKeyId::generate(),
        name: name.into(),
        hint: "x7Qa".into(),
        scopes,
        created_at: now - TimeDelta::days(9),
        expires_at: Some(now + TimeDelta::days(81)),
        last_used_at: None,
    };
    Holdings {
        has_password: true,
        sessions: vec![
            session("Mozilla/5.0 (X11; Linux) Firefox/140.0", true),
            session("Mozilla/5.0 (iPhone) Version/18.0 Safari/604.1", false),
        ],
        apps: vec![ConnectedApp {
            client: (**client).clone(),
            scopes: [Scope::UserRead].into_iter().collect(),
            since: now,
            last_used_at: Some(now),
        }],
        keys: vec![
            key("backup script", None),
            key(
                "dashboard",
                Some([Scope::ProjectsRead].into_iter().collect()),
            ),
        ],
    }
}

#[test]
#[ignore = "writes files to look at"]
fn preview() {
    let folder = std::env::var_os("INSFORGE_PREVIEW").map_or_else(
        || std::env::temp_dir().join("insforge-pages"),
        PathBuf::from,
    );
    fs::create_dir_all(folder.join("assets")).unwrap();
    fs::write(
        folder.join(&assets::STYLE_PATH[1..]),
        include_str!("style.css"),
    )
    .unwrap();
    fs::write(
        folder.join(&assets::ICON_PATH[1..]),
        include_str!("icon.svg"),
    )
    .unwrap();

    let stranger = Visitor::sample(None);
    let by = ada();
    let person = Visitor::sample(Some(by.clone()));
    let client = app();
    let wrong = || Errors::whole("The e-mail address or the password is wrong. Check both.");
    let show = |name: &str, visitor: &Visitor, width: Width, content: &Markup| {
        let layout = Layout {
            title: name,
            visitor: Some(visitor),
            width,
        };
        // Opened from the disk, paths begin at the page.
        let page = layout
            .document(content)
            .into_string()
            .replace("\"/assets/", "\"assets/");
        fs::write(folder.join(format!("{name}.html")), page).unwrap();
    };
    let narrow = |name: &str, visitor: &Visitor, content: &Markup| {
        show(name, visitor, Width::Narrow, content);
    };

    let login = |email, errors, notice| login::Form {
        to: ReturnTo::default(),
        email,
        notice,
        errors,
    };
    narrow(
        "login",
        &stranger,
        &login("", Errors::none(), None).render(&stranger, Some(&client)),
    );
    narrow(
        "login-wrong",
        &stranger,
        &login("ada@example.com", wrong(), None).render(&stranger, None),
    );
    let taken = FieldError::new("password", "must have at least 8 characters, has 3");
    let signup = signup::Form {
        to: ReturnTo::default(),
        name: "Ada Moreno",
        email: "ada@example.com",
        errors: Errors::broken(&taken, &[("password", "password", "The password")]),
    };
    narrow("signup-wrong", &stranger, &signup.render(&stranger, None));
    let code = verify_email::CodeForm {
        to: ReturnTo::default(),
        challenge: "x",
        errors: Errors::none(),
    };
    narrow("verify-email", &stranger, &code.render(&stranger));
    narrow(
        "verify-email-link",
        &stranger,
        &verify_email::link_content(&stranger, "x", "ada@example.com"),
    );
    narrow(
        "forgot-password",
        &stranger,
        &forgot_password::form(&stranger, &ReturnTo::default(), "", &Errors::none()),
    );
    narrow(
        "forgot-password-sent",
        &stranger,
        &forgot_password::sent(&stranger, &ReturnTo::default()),
    );
    narrow(
        "reset-password",
        &stranger,
        &reset_password::form(&stranger, "x", &Errors::none()),
    );
    narrow(
        "consent",
        &person,
        &consent::question(&person, &by, &request(&client), &Fields::default()),
    );
    narrow(
        "device",
        &person,
        &device::form(&person, "BCDF-GHJK", &Errors::none()),
    );
    let waiting = DeviceRequest {
        client: Arc::clone(&client),
        scopes: Scopes::all(),
        address: Some("203.0.113.7".into()),
        user_agent: Some("insforge-cli/0.2.8 node/22 Linux".into()),
        created_at: Utc::now(),
        user_code: "BCDF-GHJK".into(),
    };
    narrow(
        "device-question",
        &person,
        &device::question(&person, &waiting, &by.user.email),
    );
    narrow("device-done", &person, &device::decided(true).1);
    narrow("billing-paid", &person, &billing::PAID.content());
    narrow("billing-not-paid", &person, &billing::NOT_PAID.content());
    let invited = ShownInvitation {
        organization: "Moreno Labs".into(),
        role: MemberRole::Developer,
        email: by.user.email.clone(),
        inviter_name: "Lin Zhou".into(),
        inviter_email: "lin@example.com".into(),
    };
    let content = invitation::question(&person, &by, &invited, "x");
    narrow("invitation", &person, &content);
    narrow(
        "invitation-done",
        &person,
        &invitation::answered(&invited, true).1,
    );
    let settings = Settings {
        holdings: holdings(&client),
        done: Some(Done::EmailVerified),
        password_errors: Errors::none(),
        key_form: api_keys::Form::default(),
    };
    show(
        "settings",
        &person,
        Width::Wide,
        &settings.render(&person, &by),
    );
    show("branch-diff", &person, Width::Full, &branch_diff());
    let key = holdings(&client).keys.remove(0);
    let secret = SecretString::from("uak_sample0000000000000000000000000000000000x7Qa");
    narrow("api-key-made", &person, &api_keys::made(&key, &secret));
    for (name, count) in [("usage-report", 30), ("usage-report-year", 366)] {
        show(name, &stranger, Width::Wide, &used(count));
    }
    let id = RequestId::generate();
    let failure = Failure::from(DomainError::Unavailable);
    narrow("error", &stranger, &failure.content(Some(&id)));
    println!("written to {}", folder.display());
}
