//! People who use the service: an account, and a browser in which they are signed in.

use cp_model::UserId;
use secrecy::SecretString;

use crate::{App, Page, Visitor};

pub const PASSWORD: &str = "correct horse battery";

pub struct Person {
    pub id: UserId,
    pub email: String,
    pub password: String,
    pub visitor: Visitor,
}

/// A mail as it would arrive.
#[derive(Debug, Clone)]
pub struct ReceivedMail {
    pub to: String,
    pub subject: String,
    pub text: String,
}

impl ReceivedMail {
    /// The first link in it.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn link(&self) -> String {
        let start = self
            .text
            .find("http")
            .unwrap_or_else(|| panic!("no link in:\n{}", self.text));
        self.text[start..]
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// The six digits in it.
    ///
    /// # Panics
    /// When there are none.
    #[track_caller]
    pub fn code(&self) -> String {
        self.text
            .split(|c: char| !c.is_ascii_digit())
            .find(|run| run.len() == 6)
            .unwrap_or_else(|| panic!("no code in:\n{}", self.text))
            .to_owned()
    }
}

impl App {
    pub fn visitor(&self) -> Visitor {
        Visitor::new(&self.base_url)
    }

    /// Somebody with a verified address, signed in.
    pub async fn person(&self, name: &str) -> Person {
        let person = self.stranger(name).await;
        let page = person.log_in().await;
        assert_eq!(page.status, 200, "{}", page.html);
        person
    }

    /// Somebody with a verified address, not signed in yet.
    pub async fn stranger(&self, name: &str) -> Person {
        let email = format!("{}@example.com", name.to_lowercase());
        let password = SecretString::from(PASSWORD);
        let id = self
            .control_plane
            .create_user(name, &email, &password)
            .await
            .expect("an account can be made");
        Person {
            id,
            email,
            password: PASSWORD.into(),
            visitor: self.visitor(),
        }
    }

    /// All mails that have not been fetched yet, oldest first.
    pub async fn mails(&self) -> Vec<ReceivedMail> {
        let due = self
            .control_plane
            .take_due_mails(1000)
            .await
            .expect("mails can be read");
        let mut mails = Vec::new();
        for (id, mail) in due {
            self.control_plane
                .mark_mail_sent(id)
                .await
                .expect("a mail can be marked");
            mails.push(ReceivedMail {
                to: mail.to,
                subject: mail.subject,
                text: mail.text,
            });
        }
        mails
    }

    /// The newest mail to this address.
    ///
    /// # Panics
    /// When there is none.
    pub async fn newest_mail(&self, to: &str) -> ReceivedMail {
        self.mails()
            .await
            .into_iter()
            .rfind(|mail| mail.to == to)
            .unwrap_or_else(|| panic!("no mail to {to}"))
    }
}

impl Person {
    /// Fills in the login page in their browser.
    pub async fn log_in(&self) -> Page {
        self.log_in_with(&self.password).await
    }

    pub async fn log_in_with(&self, password: &str) -> Page {
        self.visitor.log_in(&self.email, password).await
    }
}

/// What somebody who is not signed in does on our pages.
impl Visitor {
    pub async fn sign_up(&self, name: &str, email: &str, password: &str) -> Page {
        let page = self.open("/signup").await;
        let to = [("name", name), ("email", email), ("password", password)];
        self.submit(&page, "/signup", &to).await
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Page {
        let page = self.open("/login").await;
        let to = [("email", email), ("password", password)];
        self.submit(&page, "/login", &to).await
    }

    /// Asks for a code in place of a password.
    pub async fn ask_for_code(&self, email: &str) -> Page {
        let page = self.open("/login").await;
        let token = page.csrf_token("/login");
        self.post("/login/code", &[("csrf_token", &token), ("email", email)])
            .await
    }

    /// Asks for a link that sets a new password.
    pub async fn forget_password(&self, email: &str) -> Page {
        let page = self.open("/forgot-password").await;
        self.submit(&page, "/forgot-password", &[("email", email)])
            .await
    }

    /// Opens that link and sets it.
    pub async fn reset_password(&self, link: &str, password: &str) -> Page {
        let page = self.open(link).await;
        self.submit(&page, "/reset-password", &[("password", password)])
            .await
    }
}
