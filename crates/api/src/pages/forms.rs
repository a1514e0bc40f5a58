//! Forms as the WCAG ask for them: each field has its label, its hint and its own error, tied to
//! it; above the form stands a summary of what is wrong, which takes the focus and leads to the
//! fields.

use cp_model::FieldError;
use maud::{Markup, html};

use super::csrf;
use super::return_to::ReturnTo;
use super::session::Visitor;

/// What is wrong with a form.
#[derive(Default)]
pub struct Errors(Vec<Wrong>);

struct Wrong {
    /// None: the form as a whole.
    field: Option<&'static str>,
    text: String,
}

impl Errors {
    pub fn none() -> Self {
        Self::default()
    }

    /// Of the form as a whole.
    pub fn whole(text: impl Into<String>) -> Self {
        Self(vec![Wrong {
            field: None,
            text: text.into(),
        }])
    }

    pub fn of(field: &'static str, text: impl Into<String>) -> Self {
        let mut errors = Self::none();
        errors.add(field, text);
        errors
    }

    /// A rule of the business that was broken. `labels` says under which name and label this form
    /// asks for the business's fields.
    pub fn broken(error: &FieldError, labels: &[(&str, &'static str, &str)]) -> Self {
        let mut errors = Self::none();
        errors.add_broken(error, labels);
        errors
    }

    /// One more of those.
    pub fn add_broken(&mut self, error: &FieldError, labels: &[(&str, &'static str, &str)]) {
        let known = labels.iter().find(|(field, ..)| *field == error.field);
        self.0.push(match known {
            Some((_, name, label)) => Wrong {
                field: Some(name),
                text: format!("{label} {}.", error.rule),
            },
            None => Wrong {
                field: None,
                text: format!("{error}."),
            },
        });
    }

    pub fn add(&mut self, field: &'static str, text: impl Into<String>) {
        self.0.push(Wrong {
            field: Some(field),
            text: text.into(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is wrong with one field.
    pub fn on(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|wrong| wrong.field == Some(field))
            .map(|wrong| wrong.text.as_str())
    }

    /// The page's title, which says first that something is wrong.
    pub fn title(&self, title: &str) -> String {
        if self.is_empty() {
            title.to_owned()
        } else {
            format!("Error: {title}")
        }
    }

    /// The summary.
    pub fn summary(&self) -> Markup {
        html! {
            @if !self.is_empty() {
                div.errors #errors role="alert" tabindex="-1" autofocus {
                    h2 { "Something is not right yet" }
                    ul {
                        @for wrong in &self.0 {
                            li {
                                @match wrong.field {
                                    Some(field) => a href={ "#" (field) } { (wrong.text) },
                                    None => (wrong.text),
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One line of text to type.
#[derive(Clone, Copy, Default)]
pub struct Field<'a> {
    pub name: &'a str,
    pub label: &'a str,
    /// `text` when empty.
    pub kind: &'a str,
    pub value: &'a str,
    pub hint: Option<&'a str>,
    pub autocomplete: Option<&'a str>,
    pub inputmode: Option<&'a str>,
    pub maxlength: Option<u16>,
    /// Where typing begins, unless there are errors: then their summary has the focus.
    pub first: bool,
    /// For codes: letters and digits of one width.
    pub is_code: bool,
}

impl Field<'_> {
    pub fn render(&self, errors: &Errors) -> Markup {
        let error = errors.on(self.name);
        let hint_id = format!("{}-hint", self.name);
        let error_id = format!("{}-error", self.name);
        let described: Vec<&str> = [
            error.map(|_| error_id.as_str()),
            self.hint.map(|_| hint_id.as_str()),
        ]
        .into_iter()
        .flatten()
        .collect();
        let described = (!described.is_empty()).then(|| described.join(" "));
        let kind = if self.kind.is_empty() {
            "text"
        } else {
            self.kind
        };
        let is_plain_text = !matches!(kind, "email" | "password") && !self.is_code;
        html! {
            div.field.wrong[error.is_some()] {
                label for=(self.name) { (self.label) }
                @if let Some(hint) = self.hint {
                    p.hint id=(hint_id) { (hint) }
                }
                @if let Some(error) = error {
                    p.error id=(error_id) { span.hidden { "Error: " } (error) }
                }
                input.code[self.is_code] id=(self.name) name=(self.name) type=(kind)
                    value=[(!self.value.is_empty()).then_some(self.value)]
                    autocomplete=[self.autocomplete]
                    inputmode=[self.inputmode]
                    maxlength=[self.maxlength]
                    aria-describedby=[described]
                    aria-invalid=[error.map(|_| "true")]
                    required
                    spellcheck=[(!is_plain_text).then_some("false")]
                    autocapitalize=[(!is_plain_text).then_some("none")]
                    autofocus[self.first && errors.is_empty()];
            }
        }
    }
}

/// A field that nobody sees.
pub fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

/// The proof that the form is ours.
pub fn csrf_field(visitor: &Visitor) -> Markup {
    hidden(csrf::FIELD, visitor.csrf_token())
}

/// Where to go afterwards.
pub fn return_field(to: &ReturnTo) -> Markup {
    html! {
        @if let Some(path) = to.as_str() { (hidden("return_to", path)) }
    }
}

/// A second step before something that cannot be taken back: the button opens a question, and the
/// form in it does what it says.
pub fn ask_first(button: &str, question: &str, form: &Markup) -> Markup {
    html! {
        details.ask {
            summary.button.quiet { (button) }
            div.question {
                p { (question) }
                (form)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_tied_to_its_field() {
        let errors = Errors::broken(
            &FieldError::new("password", "must have at least 8 characters"),
            &[("password", "new_password", "The password")],
        );
        let field = Field {
            name: "new_password",
            label: "New password",
            kind: "password",
            hint: Some("At least 8 characters."),
            first: true,
            ..Field::default()
        };
        let html = field.render(&errors).into_string();
        assert!(html.contains("aria-describedby=\"new_password-error new_password-hint\""));
        assert!(html.contains("aria-invalid=\"true\""));
        assert!(!html.contains("autofocus"), "the summary has the focus");
        let summary = errors.summary().into_string();
        assert!(summary.contains("href=\"#new_password\""));
        assert!(summary.contains("The password must have at least 8 characters."));
        assert_eq!(errors.title("Sign up"), "Error: Sign up");
    }

    #[test]
    fn what_people_typed_is_no_markup() {
        let field = Field {
            name: "name",
            value: "\"><script>",
            ..Field::default()
        };
        assert!(
            !field
                .render(&Errors::none())
                .into_string()
                .contains("<script")
        );
    }
}
