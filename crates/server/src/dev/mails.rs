//! Mails of a `dev` go into a folder. Whoever develops wants their link or code at once, so it is
//! printed. Only here: anywhere else such a line would sign in whoever reads the log.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use cp_domain::people::Mail;
use cp_worker::mail::Announce;

pub(super) fn announce() -> Announce {
    Arc::new(|mail: &Mail, file: &Path| {
        let mut out = std::io::stdout().lock();
        // Nobody may be reading any more; that is no reason to end.
        let _ = writeln!(out, "{}", line(mail, file));
        let _ = out.flush();
    })
}

/// `mail to ada@example.com: Confirm your address, code 123456, http://… (.insforge/mail/….eml)`
fn line(mail: &Mail, file: &Path) -> String {
    // People chose parts of it: nothing of that may reach the terminal's own language.
    let plain = |text: &str| text.replace(char::is_control, " ");
    let mut line = format!("mail to {}: {}", plain(&mail.to), plain(&mail.subject));
    if let Some(code) = code(&mail.text) {
        line = format!("{line}, code {code}");
    }
    if let Some(link) = link(&mail.text) {
        line = format!("{line}, {}", plain(link));
    }
    format!("{line} ({})", file.display())
}

/// The first link of a text.
fn link(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(['<', '>', '(', ')', ',']))
        .find(|word| word.starts_with("http://") || word.starts_with("https://"))
}

/// The first word of six digits, those within links aside.
fn code(text: &str) -> Option<&str> {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| c.is_ascii_punctuation()))
        .find(|word| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(subject: &str, text: &str) -> Mail {
        Mail {
            to: "ada@example.com".to_owned(),
            subject: subject.to_owned(),
            text: text.to_owned(),
            html: String::new(),
            envelope: cp_domain::people::Envelope::default(),
        }
    }

    #[test]
    fn a_developer_sees_code_and_link() {
        let text = "Hello Ada,\n\nyour code is 042917.\n\nOr follow this link:\n\
                    http://127.0.0.1:8080/verify-email?token=imt_123456\n\nIt is good for 15 minutes.\n";
        assert_eq!(
            line(&mail("Confirm your address", text), Path::new("m/1.eml")),
            "mail to ada@example.com: Confirm your address, code 042917, \
             http://127.0.0.1:8080/verify-email?token=imt_123456 (m/1.eml)"
        );
    }

    #[test]
    fn a_mail_without_either_is_announced_all_the_same() {
        assert_eq!(
            line(
                &mail("A \u{1b}[2Jnotice", "Nothing to do."),
                Path::new("m/1.eml")
            ),
            "mail to ada@example.com: A  [2Jnotice (m/1.eml)"
        );
    }
}
