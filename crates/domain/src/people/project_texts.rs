//! What projects' users are written to in the project's name. Nothing of ours shows: many never heard of us.

use cp_model::MailTemplate;

use super::mail_texts::{MailText, Part, compose_as};
use Part::{Code, Link, Say};

/// `value`: the code, or the link.
pub(crate) fn of_template(template: MailTemplate, value: &str, project: &str) -> MailText {
    let say = |text: &str| Say(text.to_owned());
    let link = |label| Link {
        label,
        url: value.to_owned(),
    };
    let ignore = say("You did not ask for this? Then ignore this mail, and pass nothing on.");
    let (kind, subject, parts) = match template {
        MailTemplate::EmailVerificationCode => (
            "project_verify_code",
            "Confirm your e-mail address",
            vec![
                say("Enter this code to confirm your e-mail address:"),
                Code(value),
                ignore,
            ],
        ),
        MailTemplate::EmailVerificationLink => (
            "project_verify_link",
            "Confirm your e-mail address",
            vec![
                say("Open this link to confirm your e-mail address:"),
                link("Confirm the address"),
                ignore,
            ],
        ),
        MailTemplate::ResetPasswordCode => (
            "project_reset_code",
            "Choose a new password",
            vec![
                say("Enter this code to choose a new password:"),
                Code(value),
                ignore,
            ],
        ),
        MailTemplate::ResetPasswordLink => (
            "project_reset_link",
            "Choose a new password",
            vec![
                say("Open this link to choose a new password:"),
                link("Choose a password"),
                ignore,
            ],
        ),
        MailTemplate::RequestOtp => (
            "project_otp",
            "Your code to sign in",
            vec![say("Enter this code to sign in:"), Code(value), ignore],
        ),
    };
    compose_as(kind, subject, &parts, project)
}
