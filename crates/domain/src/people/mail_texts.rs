//! What we write to people: what happened, and what to do next. Each mail is text and simple HTML
//! of the same parts.
//!
//! No mail to an address that may be a stranger's quotes what somebody chose (a name, say):
//! otherwise anybody could send their own words to anybody in our name. No subject does.

use std::fmt::Write as _;

/// A mail, but for whom.
pub(crate) struct MailText {
    /// For operators.
    pub(super) kind: &'static str,
    pub(super) subject: String,
    /// Empty: the HTML speaks for itself.
    pub(super) text: String,
    pub(super) html: String,
}

/// Of mails that projects have written themselves.
const OWN: &str = "project_own";

impl MailText {
    /// What a project has written itself.
    pub(crate) fn own(subject: &str, html: &str) -> Self {
        Self {
            kind: OWN,
            subject: subject.to_owned(),
            text: String::new(),
            html: html.to_owned(),
        }
    }

    pub(crate) fn is_own(&self) -> bool {
        self.kind == OWN
    }
}

/// A mailed code is good for this long, in words.
const CODE_LIFE: &str = "15 minutes";

pub(super) enum Part<'a> {
    Say(String),
    Code(&'a str),
    Link { label: &'a str, url: String },
}

use Part::{Code, Link, Say};

fn say(text: impl Into<String>) -> Part<'static> {
    Say(text.into())
}

/// To somebody who has signed up, or signed in with an address that is not proven.
pub(super) fn verify_email(code: Option<&str>, token: &str, base_url: &str) -> MailText {
    let mut parts = vec![say(
        "Welcome to InsForge. Please confirm that this is your e-mail address.",
    )];
    if let Some(code) = code {
        parts.push(say("Enter this code on the page where you signed up:"));
        parts.push(Code(code));
        parts.push(say("Or open this link and sign in:"));
    } else {
        parts.push(say("Open this link and sign in:"));
    }
    parts.push(Link {
        label: "Confirm the address",
        url: format!("{base_url}/verify-email?token={token}"),
    });
    parts.push(say(format!(
        "This works once, within {CODE_LIFE}. After that, sign in and ask for a new one."
    )));
    parts.push(say(
        "You did not sign up? Then somebody used your address by mistake. Do not pass on the code, and ignore this mail: the account stays unconfirmed.",
    ));
    compose("verify_email", "Confirm your e-mail address", &parts)
}

/// To somebody who signs in by mail. `ends_password`: what was set up before stops working.
pub(super) fn first_login(
    code: Option<&str>,
    token: &str,
    ends_password: bool,
    base_url: &str,
) -> MailText {
    let mut parts = vec![say(
        "Somebody wants to sign in to InsForge with this e-mail address.",
    )];
    if let Some(code) = code {
        parts.push(say(
            "If it is you, enter this code on the page where you asked for it:",
        ));
        parts.push(Code(code));
        parts.push(say("Or open this link:"));
    } else {
        parts.push(say("If it is you, open this link:"));
    }
    parts.push(Link {
        label: "Sign in",
        url: format!("{base_url}/verify-email?token={token}"),
    });
    if ends_password {
        parts.push(say(
            "There is an account with this address that nobody has confirmed. Signing in confirms it as yours; a password that was set before will not work any more.",
        ));
    }
    parts.push(say(format!(
        "This works once, within {CODE_LIFE}. After that, ask for a new one."
    )));
    parts.push(say(
        "It was not you? Do not pass on the code, and ignore this mail: nobody can sign in without it.",
    ));
    compose("first_login", "Sign in to InsForge", &parts)
}

/// To the owner of an address with which somebody signs up again.
pub(super) fn account_exists(base_url: &str) -> MailText {
    let parts = [
        say(
            "Somebody asked for an InsForge account with this e-mail address. You have one already, so nothing was changed.",
        ),
        say("If it was you, sign in:"),
        Link {
            label: "Sign in",
            url: format!("{base_url}/login"),
        },
        say("If you do not know the password, set a new one:"),
        Link {
            label: "Set a new password",
            url: format!("{base_url}/forgot-password"),
        },
        say("It was not you? Then there is nothing to do."),
    ];
    compose(
        "account_exists",
        "You already have an InsForge account",
        &parts,
    )
}

/// To somebody whom an administrator wants in their organization. Its name is not told: whoever makes up organizations
/// would have words of theirs mailed in our name.
pub(crate) fn invitation(inviter_email: &str, token: &str, base_url: &str) -> MailText {
    let parts = [
        say(format!(
            "{inviter_email} invites you to work in an organization on InsForge."
        )),
        say("Open this link to see which one, and to accept or decline:"),
        Link {
            label: "See the invitation",
            url: format!("{base_url}/invitation?token={token}"),
        },
        say(
            "You need an InsForge account with this e-mail address; you can make one on the way. The invitation ends in seven days.",
        ),
        say("You do not know the sender? Ignore this mail: nothing happens unless you accept."),
    ];
    compose("invitation", "You are invited to an organization", &parts)
}

pub(super) fn reset_password(token: &str, base_url: &str) -> MailText {
    let parts = [
        say("Somebody asked to set a new password for your InsForge account."),
        say("If it was you, open this link and choose one:"),
        Link {
            label: "Choose a new password",
            url: format!("{base_url}/reset-password?token={token}"),
        },
        say(
            "The link works once, within an hour. A new password signs you out everywhere and ends your API keys, so that nobody else stays in.",
        ),
        say("It was not you? Ignore this mail: your password stays as it is."),
    ];
    compose("reset_password", "Set a new InsForge password", &parts)
}

/// `name` only where the address was proven before.
pub(super) fn password_changed(name: Option<&str>, base_url: &str) -> MailText {
    let parts = [
        hello(name),
        say(
            "The password of your InsForge account was changed just now. If it was you, there is nothing to do.",
        ),
        say(
            "If it was not you, somebody else is in your account. Set a new password at once, which signs everybody out:",
        ),
        Link {
            label: "Set a new password",
            url: format!("{base_url}/forgot-password"),
        },
    ];
    compose(
        "password_changed",
        "Your InsForge password was changed",
        &parts,
    )
}

pub(super) fn api_key_created(name: &str, key_name: &str, base_url: &str) -> MailText {
    let parts = [
        hello(Some(name)),
        say(format!(
            "A new API key was made for your InsForge account: {key_name}. If it was you, there is nothing to do."
        )),
        say("If it was not you, revoke it in your settings, and set a new password:"),
        Link {
            label: "Settings",
            url: format!("{base_url}/settings"),
        },
    ];
    compose("api_key_created", "A new InsForge API key", &parts)
}

fn hello(name: Option<&str>) -> Part<'static> {
    match name {
        Some(name) => Say(format!("Hello {name},")),
        None => say("Hello,"),
    }
}

fn compose(kind: &'static str, subject: &'static str, parts: &[Part<'_>]) -> MailText {
    compose_as(kind, subject, parts, "InsForge")
}

/// Signed with this name.
pub(super) fn compose_as(
    kind: &'static str,
    subject: &str,
    parts: &[Part<'_>],
    signature: &str,
) -> MailText {
    let mut text = String::new();
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{subject}</title></head>\n\
         <body style=\"font-family: sans-serif; font-size: 16px; line-height: 1.5; max-width: 36em; margin: 1em auto; padding: 0 1em\">\n"
    );
    for part in parts {
        // Writing to a String cannot fail.
        let _ = match part {
            Say(words) => {
                let _ = writeln!(text, "{words}\n");
                writeln!(html, "<p>{}</p>", escape(words))
            }
            Code(code) => {
                let _ = writeln!(text, "    {code}\n");
                writeln!(
                    html,
                    "<p style=\"font-size: 28px; font-weight: bold; letter-spacing: 4px\">{}</p>",
                    escape(code)
                )
            }
            Link { label, url } => {
                let _ = writeln!(text, "{url}\n");
                writeln!(
                    html,
                    "<p><a href=\"{}\" rel=\"noreferrer\">{}</a></p>",
                    escape(url),
                    escape(label)
                )
            }
        };
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{signature}");
    let _ = writeln!(html, "<p>{}</p>\n</body>\n</html>", escape(signature));
    MailText {
        kind,
        subject: subject.to_owned(),
        text,
        html,
    }
}

/// For HTML text and for attributes in double quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "https://example.com";

    fn all() -> Vec<MailText> {
        vec![
            verify_email(Some("012345"), "imt_x", BASE),
            verify_email(None, "imt_x", BASE),
            first_login(Some("012345"), "imt_x", true, BASE),
            first_login(None, "imt_x", false, BASE),
            account_exists(BASE),
            reset_password("imt_x", BASE),
            password_changed(Some("Ada"), BASE),
            password_changed(None, BASE),
            api_key_created("Ada", "build", BASE),
        ]
    }

    #[test]
    fn both_forms_of_a_mail_say_the_same() {
        for mail in all() {
            for line in mail.text.lines().map(str::trim).filter(|l| !l.is_empty()) {
                assert!(mail.html.contains(&escape(line)), "{}: {line}", mail.kind);
            }
            assert!(mail.subject.len() < 60 && mail.subject.is_ascii());
            // The client ends a sign-in silently at this word (platform-api.md section 3.2).
            assert!(!mail.text.contains("cancelled"));
        }
    }

    #[test]
    fn the_code_is_the_only_run_of_six_digits() {
        let mail = verify_email(Some("012345"), "imt_x", BASE);
        let runs: Vec<&str> = mail
            .text
            .split(|c: char| !c.is_ascii_digit())
            .filter(|run| run.len() == 6)
            .collect();
        assert_eq!(runs, ["012345"]);
        assert!(
            mail.text
                .contains("\nhttps://example.com/verify-email?token=imt_x\n")
        );
    }

    proptest! {
        #[test]
        fn names_cannot_bring_markup(name in "[ -~<>&\"']{0,60}", key in "[ -~<>&\"']{0,60}") {
            let plain = api_key_created("", "", BASE);
            let mail = api_key_created(&name, &key, BASE);
            for c in ['<', '>', '"'] {
                prop_assert_eq!(mail.html.matches(c).count(), plain.html.matches(c).count());
            }
        }

        #[test]
        fn escaped_text_holds_nothing_that_html_reads(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            let back = escaped
                .replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"")
                .replace("&#39;", "'").replace("&amp;", "&");
            prop_assert_eq!(back, text);
        }
    }
}
