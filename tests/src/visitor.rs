//! A person with a browser that has no scripts: cookies, redirects, forms. What the pages need to
//! work for everybody is all that it can do; the real browser is in `it/real/browser.rs`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use html5gum::{Token, Tokenizer};
use reqwest::header::{COOKIE, HeaderMap, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::{Method, Url};

/// What a redirect may lead to before it is a loop.
const MOST_REDIRECTS: usize = 10;

pub struct Visitor {
    http: reqwest::Client,
    base: Url,
    cookies: Mutex<BTreeMap<String, String>>,
    /// Every `Set-Cookie` as it came, for scenarios about their attributes.
    pub set_cookies: Mutex<Vec<String>>,
}

/// Where the visitor has come to: a page of ours, or the address of somebody else's.
#[derive(Debug, Clone)]
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub headers: HeaderMap,
    pub html: String,
    /// Set when the way led off our site: nothing was fetched from there.
    pub is_elsewhere: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Form {
    pub method: String,
    pub action: String,
    /// Inputs that have a name, with the value that they would send; boxes that are not ticked and
    /// buttons are left out.
    pub fields: Vec<(String, String)>,
    /// Names and values of its submit buttons, with their text.
    pub buttons: Vec<Button>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Button {
    pub name: String,
    pub value: String,
    pub text: String,
}

impl Visitor {
    pub fn new(base_url: &str) -> Self {
        Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .expect("a client can be built"),
            base: Url::parse(base_url).expect("the base URL is one"),
            cookies: Mutex::default(),
            set_cookies: Mutex::default(),
        }
    }

    /// Opens a path or URL, and goes where it leads on our site.
    pub async fn open(&self, path: &str) -> Page {
        let url = self.base.join(path).expect("a path of ours");
        self.go(Method::GET, url, None, true).await
    }

    /// Opens a path or URL without following redirects.
    pub async fn look(&self, path: &str) -> Page {
        let url = self.base.join(path).expect("a path of ours");
        self.go(Method::GET, url, None, false).await
    }

    /// Fills in the page's form that goes to `action` and presses its first button.
    pub async fn submit(&self, page: &Page, action: &str, values: &[(&str, &str)]) -> Page {
        let form = page.form(action);
        self.send(page, &form, values, form.buttons.first()).await
    }

    /// The same with the button of this text.
    pub async fn press(
        &self,
        page: &Page,
        action: &str,
        button: &str,
        values: &[(&str, &str)],
    ) -> Page {
        let form = page.form(action);
        let button = form
            .buttons
            .iter()
            .find(|b| b.text.contains(button))
            .unwrap_or_else(|| panic!("no button {button:?} among {:?}", form.buttons))
            .clone();
        self.send(page, &form, values, Some(&button)).await
    }

    /// Sends a form as a browser does: its fields, `values` in place of or beside them, a button.
    pub async fn send(
        &self,
        page: &Page,
        form: &Form,
        values: &[(&str, &str)],
        button: Option<&Button>,
    ) -> Page {
        let mut fields: Vec<(String, String)> = form.fields.clone();
        for (name, value) in values {
            match fields.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => (*value).clone_into(known),
                None => fields.push(((*name).to_owned(), (*value).to_owned())),
            }
        }
        if let Some(button) = button.filter(|b| !b.name.is_empty()) {
            fields.push((button.name.clone(), button.value.clone()));
        }
        let action = page.url.join(&form.action).expect("an action is a URL");
        if form.method == "get" {
            let mut url = action;
            url.query_pairs_mut().clear().extend_pairs(&fields);
            return self.go(Method::GET, url, None, true).await;
        }
        self.go(Method::POST, action, Some(fields), true).await
    }

    /// A POST with these fields, as another site or program could send it.
    pub async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Page {
        let url = self.base.join(path).expect("a path of ours");
        let fields = fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.go(Method::POST, url, Some(fields), true).await
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        self.lock().get(name).cloned()
    }

    pub fn set_cookie(&self, name: &str, value: &str) {
        self.lock().insert(name.to_owned(), value.to_owned());
    }

    pub fn cookies(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.cookies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn go(
        &self,
        mut method: Method,
        mut url: Url,
        mut fields: Option<Vec<(String, String)>>,
        follow: bool,
    ) -> Page {
        for _ in 0..MOST_REDIRECTS {
            let mut request = self.http.request(method.clone(), url.clone());
            let cookies: Vec<String> = self
                .lock()
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            if !cookies.is_empty() {
                request = request.header(COOKIE, cookies.join("; "));
            }
            if let Some(fields) = fields.take() {
                let body = Url::parse_with_params("http://x/", &fields)
                    .expect("fields can be encoded")
                    .query()
                    .unwrap_or_default()
                    .to_owned();
                request = request
                    .header(ORIGIN, self.base.origin().ascii_serialization())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(body);
            }
            let response = request.send().await.expect("the site answers");
            self.keep_cookies(response.headers());
            let status = response.status().as_u16();
            let headers = response.headers().clone();
            let page = Page {
                url: url.clone(),
                status,
                headers: headers.clone(),
                html: response.text().await.expect("a page is text"),
                is_elsewhere: false,
            };
            let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) else {
                return page;
            };
            if !follow {
                return page;
            }
            let next = url.join(location).expect("a location is a URL");
            if next.origin() != self.base.origin() {
                return Page {
                    url: next,
                    is_elsewhere: true,
                    ..page
                };
            }
            url = next;
            method = Method::GET;
        }
        panic!("redirects without end at {url}");
    }

    fn keep_cookies(&self, headers: &HeaderMap) {
        for header in headers.get_all(SET_COOKIE) {
            let text = header.to_str().expect("a cookie is ASCII");
            self.set_cookies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text.to_owned());
            let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
            let (name, value) = pair.split_once('=').expect("a cookie has a value");
            let is_over = attributes
                .split(';')
                .any(|a| a.trim().eq_ignore_ascii_case("max-age=0"));
            if is_over || value.is_empty() {
                self.lock().remove(name);
            } else {
                self.lock().insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

impl Page {
    /// # Panics
    /// When the page has no form that goes there; shows which it has.
    #[track_caller]
    pub fn form(&self, action: &str) -> Form {
        let forms = self.forms();
        forms
            .iter()
            .find(|form| form.action.split('?').next() == Some(action))
            .unwrap_or_else(|| {
                let actions: Vec<&str> = forms.iter().map(|f| f.action.as_str()).collect();
                panic!(
                    "no form to {action} at {} ({}), only to {actions:?}:\n{}",
                    self.url, self.status, self.html
                )
            })
            .clone()
    }

    /// The token against foreign forms, as the form that goes there has it.
    ///
    /// # Panics
    /// When there is no such form.
    #[track_caller]
    pub fn csrf_token(&self, action: &str) -> String {
        let fields = self.form(action).fields;
        let token = fields.into_iter().find(|(name, _)| name == "csrf_token");
        token.expect("every form has a token").1
    }

    pub fn forms(&self) -> Vec<Form> {
        let mut forms: Vec<Form> = Vec::new();
        let mut open: Option<Form> = None;
        let mut in_button = false;
        for token in Tokenizer::new(&self.html).flatten() {
            match token {
                Token::StartTag(tag) => {
                    let get = |name: &str| {
                        tag.attributes
                            .get(name.as_bytes())
                            .map(|value| String::from_utf8_lossy(value).into_owned())
                    };
                    match (tag.name.as_slice(), &mut open) {
                        (b"form", _) => {
                            open = Some(Form {
                                method: get("method")
                                    .unwrap_or_else(|| "get".into())
                                    .to_lowercase(),
                                action: get("action").unwrap_or_default(),
                                ..Form::default()
                            });
                        }
                        (b"input" | b"select" | b"textarea", Some(form)) => {
                            let kind = get("type").unwrap_or_default();
                            let ticked = !matches!(kind.as_str(), "checkbox" | "radio")
                                || get("checked").is_some();
                            if let Some(name) = get("name").filter(|_| ticked && kind != "submit") {
                                form.fields.push((name, get("value").unwrap_or_default()));
                            }
                        }
                        (b"button", Some(form)) => {
                            in_button = true;
                            form.buttons.push(Button {
                                name: get("name").unwrap_or_default(),
                                value: get("value").unwrap_or_default(),
                                text: String::new(),
                            });
                        }
                        _ => {}
                    }
                }
                Token::String(text) if in_button => {
                    if let Some(button) = open.as_mut().and_then(|f| f.buttons.last_mut()) {
                        button.text.push_str(&String::from_utf8_lossy(&text));
                    }
                }
                Token::EndTag(tag) => match tag.name.as_slice() {
                    b"button" => in_button = false,
                    b"form" => forms.extend(open.take()),
                    _ => {}
                },
                _ => {}
            }
        }
        forms
    }

    /// The text that people read, in one line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for token in Tokenizer::new(&self.html).flatten() {
            if let Token::String(part) = token {
                text.push_str(&String::from_utf8_lossy(&part));
                text.push(' ');
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// One parameter of the address.
    pub fn param(&self, name: &str) -> Option<String> {
        self.url
            .query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// # Panics
    /// When the page does not say it; shows what it says.
    #[track_caller]
    pub fn expect_text(&self, part: &str) {
        let text = self.text();
        assert!(
            text.contains(part),
            "{part:?} is not on {}:\n{text}",
            self.url
        );
    }
}
