use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use cp_domain::people::Envelope;

use super::*;

fn sender() -> Sender {
    "InsForge <no-reply@example.com>".parse().unwrap()
}

fn mail() -> Mail {
    Mail {
        to: "ada@example.org".to_owned(),
        subject: "Your code for InsForge".to_owned(),
        text: "Your code is 123456.\n".to_owned(),
        html: "<p>Your code is <b>123456</b>.</p>\n".to_owned(),
        envelope: Envelope::default(),
    }
}

fn written(mail: &Mail) -> String {
    let now = DateTime::from_timestamp(1_795_243_769, 0).unwrap();
    let message = compose(&sender(), MailId::generate(), mail, now)
        .ok()
        .unwrap();
    String::from_utf8(message.formatted()).unwrap()
}

/// The names of the headers, folded lines joined to theirs.
fn headers(message: &str) -> Vec<String> {
    let (head, _) = message.split_once("\r\n\r\n").unwrap();
    head.split("\r\n")
        .filter(|line| !line.starts_with([' ', '\t']))
        .map(|line| line.split(':').next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_mail_has_both_forms_and_the_headers_that_it_needs() {
    let message = written(&mail());
    let head = message.split_once("\r\n\r\n").unwrap().0;
    for part in [
        "From: InsForge <no-reply@example.com>",
        "To: ada@example.org",
        "Subject: Your code for InsForge",
        "Date: ",
        "@example.com>",
        "Auto-Submitted: auto-generated",
        "multipart/alternative",
    ] {
        assert!(head.contains(part), "{part} not in\n{head}");
    }
    let plain = message.find("text/plain").unwrap();
    assert!(
        message.find("text/html").unwrap() > plain,
        "the last is the preferred one"
    );
}

#[test]
fn sent_again_a_mail_has_the_same_message_id_and_the_same_file() {
    let id = MailId::generate();
    let message_id = |now| {
        let message = compose(&sender(), id, &mail(), now).ok().unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        let line = text.lines().find(|line| line.starts_with("Message-ID:"));
        line.unwrap().trim().to_owned()
    };
    let (first, later) = (Utc::now(), Utc::now() + chrono::TimeDelta::hours(1));
    assert_eq!(message_id(first), format!("Message-ID: <{id}@example.com>"));
    assert_eq!(message_id(first), message_id(later));
    assert_eq!(file_name(id, first), file_name(id, later));
}

#[test]
fn no_field_can_begin_a_header_of_its_own() {
    let honest = headers(&written(&mail()));
    for attack in [
        "Welcome\r\nBcc: all@example.net",
        "Welcome\nBcc: all@example.net",
        "Welcome\rBcc: all@example.net",
        "Welcome\r\n\r\n<script>",
        "Welcome\u{2028}Bcc: all@example.net",
        "Zo\u{eb}\r\nBcc: all@example.net",
        "Welcome\0\u{b}\u{85}Bcc: all@example.net",
    ] {
        let message = written(&Mail {
            subject: attack.to_owned(),
            ..mail()
        });
        assert_eq!(headers(&message), honest, "{attack:?}:\n{message}");
    }
    for attack in [
        "ada@example.org\r\nBcc: all@example.net",
        "ada@example.org, all@example.net",
        "\"Ada\r\nBcc: all@example.net\" <ada@example.org>",
        "ada@example.org>\r\nRCPT TO:<all@example.net",
        "",
    ] {
        let mail = Mail {
            to: attack.to_owned(),
            ..mail()
        };
        let outcome = compose(&sender(), MailId::generate(), &mail, Utc::now());
        assert!(
            matches!(outcome, Err(MailError::BadRecipient)),
            "{attack:?}"
        );
    }
    for attack in [
        "InsForge\r\nBcc: x@example.net <a@example.com>",
        "InsForge <a@example.com>\n",
        "no address",
    ] {
        assert!(attack.parse::<Sender>().is_err(), "{attack:?}");
    }
}

#[test]
fn a_projects_mail_is_from_it_and_for_all_that_it_names() {
    let message = written(&Mail {
        envelope: Envelope {
            from_name: Some("Shop\r\nBcc: all@example.net".to_owned()),
            reply_to: Some("help@shop.example".to_owned()),
            more_to: vec!["bob@example.org".to_owned()],
            cc: vec!["eve@example.org".to_owned()],
            bcc: vec!["hidden@example.org".to_owned()],
        },
        text: String::new(),
        ..mail()
    });
    let head = message.split_once("\r\n\r\n").unwrap().0;
    for line in [
        // "Shop Bcc: all@example.net", on one line.
        "From: =?utf-8?b?U2hvcCBCY2M6IGFsbEBleGFtcGxlLm5ldA==?= <no-reply@example.com>",
        "Reply-To: help@shop.example",
        "To: ada@example.org, bob@example.org",
        "Cc: eve@example.org",
        "Content-Type: text/html; charset=utf-8",
    ] {
        assert!(head.lines().any(|there| there == line), "{line}: {head}");
    }
    assert!(!message.contains("hidden@"), "{message}");
    let attack = Mail {
        envelope: Envelope {
            cc: vec!["a@example.org\r\nBcc: all@example.net".to_owned()],
            ..Envelope::default()
        },
        ..mail()
    };
    let outcome = compose(&sender(), MailId::generate(), &attack, Utc::now());
    assert!(matches!(outcome, Err(MailError::BadRecipient)));
}

#[test]
fn a_subject_beyond_ascii_is_encoded() {
    let message = written(&Mail {
        subject: "Zo\u{eb} invites you to \u{8a2d}\u{8a08}".to_owned(),
        ..mail()
    });
    let head = message.split_once("\r\n\r\n").unwrap().0;
    assert!(head.is_ascii() && head.contains("=?utf-8?"), "{head}");
}

#[test]
fn only_sane_servers_are_taken_and_errors_repeat_no_password() {
    let attempt = |url: &str| Mailer::smtp(sender(), &url.into());
    for good in [
        "smtps://user:pass@mail.example.com",
        "smtps://user:p%40ss@mail.example.com:4650",
        "smtp://user:pass@mail.example.com:587",
        "smtp://127.0.0.1:2525",
        "smtp://[::1]:2525",
        "smtp://localhost",
    ] {
        assert!(attempt(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "mail.example.com",
        "https://user:hunter2@mail.example.com",
        "smtps://user:hunter2@mail.example.com/inbox",
        "smtp://user:hunter2@mail.example.com:587?tls=none",
        "smtps://",
    ] {
        let error = attempt(bad).err().unwrap().to_string();
        assert!(
            error.starts_with("must ") && !error.contains("hunter2"),
            "{bad}: {error}"
        );
    }
}

#[tokio::test]
async fn a_folder_gets_whole_files_that_only_we_may_read() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mail");
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let teller = told.clone();
    let announce: Announce = Arc::new(move |mail, path| {
        teller
            .lock()
            .unwrap()
            .push((mail.to.clone(), path.to_owned()));
    });
    let mailer = Mailer::folder(sender(), folder.clone(), Some(announce));
    assert!(mailer.check().await.is_ok());
    let id = MailId::generate();
    for _ in 0..2 {
        mailer.send(id, &mail(), Utc::now()).await.unwrap();
    }
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert!(name.ends_with(&format!("-{id}.eml")), "{name}");
    assert_eq!(
        files[0].metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        std::fs::read_to_string(&files[0])
            .unwrap()
            .contains("123456")
    );
    assert_eq!(
        told.lock().unwrap()[0],
        ("ada@example.org".to_owned(), files[0].clone())
    );
    assert!(mailer.check().await.is_ok());
}

/// A mail server that answers a message with `verdict`, and what it was told.
async fn server(verdict: &'static str) -> (SecretString, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap()).into();
    let told = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut told = Vec::new();
        write.write_all(b"220 test\r\n").await.unwrap();
        let mut in_message = false;
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.as_str() {
                "." => verdict,
                _ if in_message => "",
                "DATA" => "354 go on\r\n",
                "QUIT" => break,
                _ => "250 fine\r\n",
            };
            in_message = (in_message || line == "DATA") && line != ".";
            write.write_all(answer.as_bytes()).await.unwrap();
            told.push(line);
        }
        told
    });
    (url, told)
}

#[tokio::test]
async fn a_server_takes_a_mail() {
    let (url, told) = server("250 2.0.0 taken\r\n").await;
    let mailer = Mailer::smtp(sender(), &url).unwrap();
    mailer
        .send(MailId::generate(), &mail(), Utc::now())
        .await
        .unwrap();
    drop(mailer);
    let told = told.await.unwrap();
    assert_eq!(told[0], "EHLO example.com");
    assert!(
        told.contains(&"RCPT TO:<ada@example.org>".to_owned()),
        "{told:?}"
    );
    assert!(told.iter().any(|line| line.contains("123456")), "{told:?}");
}

#[tokio::test]
async fn a_refusal_is_told_in_numbers_without_what_the_server_quotes() {
    let (url, _told) = server("554 5.7.1 no links like https://x/verify?token=imt_1\r\n").await;
    let mailer = Mailer::smtp(sender(), &url).unwrap();
    let error = mailer.send(MailId::generate(), &mail(), Utc::now()).await;
    let error = error.unwrap_err().to_string();
    assert_eq!(error, "the mail server refused: 554 5.7.1");
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_and_not_a_panic() {
    let mailer = Mailer::smtp(sender(), &"smtp://127.0.0.1:1".into()).unwrap();
    let error = mailer.send(MailId::generate(), &mail(), Utc::now()).await;
    assert!(matches!(error, Err(MailError::Server(_))), "{error:?}");
    assert!(mailer.check().await.is_err());
}
