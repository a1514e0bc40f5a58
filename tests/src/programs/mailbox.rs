//! The mails of a `dev`: `.eml` files in its folder.

use std::path::Path;

use mailparse::{MailHeaderMap as _, ParsedMail};

use crate::ReceivedMail;

/// All mails to this address, oldest first.
pub(super) fn mails(folder: &Path, to: &str) -> Vec<ReceivedMail> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "eml"))
        .filter_map(|path| {
            let written = path.metadata().ok()?.modified().ok()?;
            Some((written, read(&path)))
        })
        .filter(|(_, mail)| mail.to == to)
        .collect();
    found.sort_by_key(|(written, _)| *written);
    found.into_iter().map(|(_, mail)| mail).collect()
}

fn read(path: &Path) -> ReceivedMail {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mail = mailparse::parse_mail(&bytes).expect("a mail is a mail");
    let header = |name: &str| mail.headers.get_first_value(name).unwrap_or_default();
    ReceivedMail {
        to: header("To"),
        subject: header("Subject"),
        text: plain_text(&mail).unwrap_or_else(|| panic!("no plain text: {}", path.display())),
    }
}

/// Of the mail, or of the first of its parts that has one.
fn plain_text(mail: &ParsedMail<'_>) -> Option<String> {
    if mail.ctype.mimetype == "text/plain" {
        return mail.get_body().ok();
    }
    mail.subparts.iter().find_map(plain_text)
}
