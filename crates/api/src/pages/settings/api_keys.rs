//! API keys: for programs that act as the person. A key is shown once, when it is made.

use axum::extract::State;
use axum::response::Response;
use cp_domain::people::{ApiKeySummary, NewApiKey};
use cp_domain::{DomainError, UserCaller};
use cp_model::{ApiKeyId, Scope, Scopes};
use http::StatusCode;
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};

use super::{Done, Holdings, Settings};
use crate::ApiState;
use crate::pages::csrf::Submitted;
use crate::pages::error_page::Failure;
use crate::pages::fields::Fields;
use crate::pages::forms::{Errors, Field, ask_first, csrf_field, hidden};
use crate::pages::layout::{self, day};
use crate::pages::redirects::see_other;
use crate::pages::session::Visitor;

/// How long a key may live, as the form offers it: word and days.
const LIVES: [(&str, Option<u32>, &str); 4] = [
    ("7", Some(7), "7 days"),
    ("30", Some(30), "30 days"),
    ("90", Some(90), "90 days"),
    ("none", None, "Until it is revoked"),
];
/// What the command-line client's document promises.
const USUAL_LIFE: &str = "90";

/// The form for a new key, as it was filled in.
pub struct Form<'a> {
    name: &'a str,
    life: &'a str,
    /// None: everything.
    scopes: Option<Scopes>,
    pub errors: Errors,
}

impl Default for Form<'_> {
    fn default() -> Self {
        Self {
            name: "",
            life: USUAL_LIFE,
            scopes: None,
            errors: Errors::none(),
        }
    }
}

impl<'a> Form<'a> {
    fn read(fields: &'a Fields) -> Self {
        let chosen = Scope::ALL
            .iter()
            .copied()
            .filter(|scope| fields.get(scope.as_str()).is_some());
        Self {
            name: fields.text("key_name").trim(),
            life: fields.some("life").unwrap_or(USUAL_LIFE),
            scopes: (fields.text("access") == "limited").then(|| chosen.collect()),
            errors: Errors::none(),
        }
    }
}

/// `POST /settings/api-keys`
pub async fn create(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    let mut form = Form::read(&fields);
    let life = LIVES.iter().find(|(word, ..)| *word == form.life);
    let Some((_, expires_in_days, _)) = life else {
        return Err(Failure::unreadable(StatusCode::BAD_REQUEST));
    };
    if form.name.is_empty() {
        form.errors.add("key_name", "Give the key a name.");
    }
    if form.scopes.as_ref().is_some_and(Scopes::is_empty) {
        form.errors.add(
            Scope::UserRead.as_str(),
            "Choose at least one thing that the key may do.",
        );
    }
    if form.errors.is_empty() {
        let new = NewApiKey {
            name: form.name.to_owned(),
            scopes: form.scopes.clone(),
            expires_in_days: *expires_in_days,
        };
        match state.control_plane.create_api_key(by, &new).await {
            Ok((key, secret)) => {
                let content = made(&key, &secret);
                return Ok(layout::page(
                    &visitor,
                    StatusCode::OK,
                    "Your new API key",
                    &content,
                ));
            }
            Err(DomainError::InvalidField(error)) => {
                form.errors = Errors::broken(&error, &[("name", "key_name", "The key's name")]);
            }
            Err(DomainError::Conflict(text)) => form.errors = Errors::whole(text),
            Err(error) => return Err(error.into()),
        }
    }
    let page = Settings {
        holdings: Holdings::of(&state.control_plane, by).await?,
        done: None,
        password_errors: Errors::none(),
        key_form: form,
    };
    Ok(page.answer(&visitor, by, StatusCode::BAD_REQUEST))
}

/// `POST /settings/api-keys/revoke`
pub async fn revoke(
    State(state): State<ApiState>,
    Submitted { visitor, fields }: Submitted,
) -> Result<Response, Failure> {
    let Some(by) = visitor.by() else {
        return Ok(see_other("/login"));
    };
    let id: ApiKeyId = fields
        .text("id")
        .parse()
        .map_err(|_| Failure::unreadable(StatusCode::BAD_REQUEST))?;
    state.control_plane.revoke_api_key(by, id).await?;
    Ok(Done::KeyRevoked.answer())
}

/// The one time that the key is shown.
pub fn made(key: &ApiKeySummary, secret: &SecretString) -> Markup {
    html! {
        h1 { "Your new API key" }
        p.warning { strong { "Copy it now." } " We keep no copy and cannot show it again." }
        div.field {
            label for="key" { "Key “" (key.name) "”" }
            textarea.code #key rows="2" readonly autocomplete="off" spellcheck="false" autofocus
                aria-describedby="key-hint" { (secret.expose_secret()) }
            p.hint #key-hint {
                "It is "
                @match key.expires_at {
                    Some(time) => { "good until " (day(time)) },
                    None => "good until you revoke it",
                }
                ". Whoever has it can "
                @if key.scopes.is_some() { "do what you chose" } @else { "do everything that you can" }
                " here, so keep it like a password."
            }
        }
        p { a.button href="/settings#api-keys" { "I have copied it" } }
    }
}

pub fn section(
    visitor: &Visitor,
    by: &UserCaller,
    keys: &[ApiKeySummary],
    form: &Form<'_>,
) -> Markup {
    html! {
        section aria-labelledby="api-keys" {
            h2 #api-keys { "API keys" }
            @if keys.is_empty() {
                p { "None. Programs of your own, such as scripts, can act as you with an API key." }
            } @else {
                ul.things {
                    @for key in keys { (one(visitor, key)) }
                }
            }
            @if by.user.email_verified {
                h3 { "Make an API key" }
                (form.errors.summary())
                (new_key(visitor, form))
            }
        }
    }
}

fn one(visitor: &Visitor, key: &ApiKeySummary) -> Markup {
    html! {
        li {
            div.what {
                h3 { (key.name) }
                p.fine {
                    code { "uak_…" (key.hint) }
                    " · made " (day(key.created_at))
                    @match key.expires_at {
                        Some(time) => { " · good until " (day(time)) },
                        None => " · good until revoked",
                    }
                    @match key.last_used_at {
                        Some(time) => { " · last used " (day(time)) },
                        None => " · not used yet",
                    }
                }
                @match &key.scopes {
                    Some(scopes) => ul.fine { @for scope in scopes.iter() { li { (scope.in_plain_words()) } } },
                    None => p.fine { "May do everything that you can do" },
                }
            }
            (ask_first("Revoke", "Programs that use this key stop working at once.", &html! {
                form method="post" action="/settings/api-keys/revoke" {
                    (csrf_field(visitor))
                    (hidden("id", &key.id.to_string()))
                    button.button.danger type="submit" { "Yes, revoke it" }
                }
            }))
        }
    }
}

fn new_key(visitor: &Visitor, form: &Form<'_>) -> Markup {
    html! {
        form.column method="post" action="/settings/api-keys" novalidate {
            (csrf_field(visitor))
            (Field {
                name: "key_name",
                label: "Name",
                value: form.name,
                hint: Some("What it is for, such as “backup script”."),
                autocomplete: Some("off"),
                maxlength: Some(100),
                ..Field::default()
            }.render(&form.errors))
            div.field {
                label for="life" { "Good for" }
                select #life name="life" {
                    @for (word, _, label) in LIVES {
                        option value=(word) selected[word == form.life] { (label) }
                    }
                }
            }
            fieldset {
                legend { "What it may do" }
                label.choice-line {
                    input type="radio" name="access" value="everything" checked[form.scopes.is_none()];
                    span { "Everything that you can do" }
                }
                label.choice-line {
                    input type="radio" name="access" value="limited" checked[form.scopes.is_some()];
                    span { "Only what is chosen here:" }
                }
                @let wrong = form.errors.on(Scope::UserRead.as_str());
                @if let Some(text) = wrong {
                    p.error #scopes-error { span.hidden { "Error: " } (text) }
                }
                div.inset role="group" aria-label="What the key may do"
                    aria-describedby=[wrong.map(|_| "scopes-error")] {
                    @for scope in Scope::ALL {
                        @let checked = form.scopes.as_ref().is_some_and(|scopes| scopes.contains(*scope));
                        label.choice-line {
                            input id=(scope.as_str()) type="checkbox" name=(scope.as_str()) value="yes" checked[checked];
                            span { (scope.in_plain_words()) }
                        }
                    }
                }
            }
            button.button type="submit" { "Make the key" }
        }
    }
}
