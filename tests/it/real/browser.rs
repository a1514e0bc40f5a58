//! People at our pages with a real browser. Every page that they come to is looked at
//! ([`Browser::look`]): at 320 pixels, in light and dark, by axe, and for jumps while it loads.

use cp_tests::programs::{Dev, NO_POOL, SampleApp};
use cp_tests::{BACK, Browser, Callback, RelyingParty, Returned, Scripts};
use serde_json::{Value, json};

const CONSENT: &str = "Allow Acme Notes to use your InsForge account?";

/// The command-line client, which may use the device flow.
const CLI: &str = "clf_NK8cMUs41gm8ZcfdtSguVw";

#[tokio::test]
async fn a_person_signs_up_signs_in_and_takes_it_back() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let browser = Browser::start(dev.home(), Scripts::On).await;
    let app = Application::register(&dev).await;
    let mut ada = Account {
        name: "Ada Moreno",
        email: "ada@example.com",
        password: "correct horse battery",
    };
    signs_up_on_the_way_to_an_application(&dev, &browser, &app, &ada).await;
    is_asked_once_and_denies(&browser, &app).await;
    connects_devices(&dev, &browser).await;
    looks_after_their_settings(&dev, &browser).await;
    forgets_the_password(&dev, &browser, &mut ada).await;
    confirms_an_address_by_its_link(&dev, &browser).await;
    uses_the_sample_app(&dev, &browser, &ada).await;
    browser.quit().await;
}

#[tokio::test]
async fn the_pages_need_neither_scripts_nor_a_mouse() {
    let dev = Dev::start_with(&[NO_POOL]).await;
    let browser = Browser::start(dev.home(), Scripts::Off).await;
    let app = Application::register(&dev).await;
    signs_in_by_keyboard(&dev, &browser, &app).await;
    connects_a_device_by_keyboard(&dev, &browser).await;
    browser.forget().await;
    signs_up_without_scripts(&dev, &browser, &app).await;
    browser.quit().await;
}

struct Account {
    name: &'static str,
    email: &'static str,
    password: &'static str,
}

/// An application that listens on this computer.
struct Application {
    callback: Callback,
    party: RelyingParty,
}

impl Application {
    async fn register(dev: &Dev) -> Self {
        let callback = Callback::listen().await;
        let options = [
            "--confidential",
            "--color",
            "#7a1fa2",
            "--homepage-url",
            "https://notes.example/",
        ];
        let party = dev.relying_party(&callback.url, &options).await;
        Self { callback, party }
    }

    /// A person is back, at its own page, with what it expects.
    async fn welcomes(&self, browser: &Browser) -> Returned {
        browser.reads(BACK).await;
        let returned = self.callback.next().await;
        assert_eq!(returned["state"], self.party.state);
        assert_eq!(returned["iss"], self.party.base_url);
        returned
    }
}

async fn signs_up_on_the_way_to_an_application(
    dev: &Dev,
    browser: &Browser,
    app: &Application,
    ada: &Account,
) {
    browser.open(&app.party.authorize_url()).await;
    browser.reads("to continue to Acme Notes").await;
    browser.look("login").await;
    browser.press("Create an account").await;
    browser.look("signup").await;
    browser.press("Create account").await;
    browser.reads("Something is not right yet").await;
    browser.look("signup-errors").await;
    fill_in(browser, ada).await;
    browser.press("Create account").await;

    browser.reads("Confirm your address").await;
    browser.look("verify-email").await;
    let code = dev.mail(ada.email, "Confirm your").await.code();
    let wrong = if code == "123456" { "654321" } else { "123456" };
    browser.fill("code", wrong).await;
    browser.press("Confirm").await;
    browser.reads("The code is wrong or has expired").await;
    browser.fill("code", &code).await;
    browser.press("Confirm").await;

    browser.reads(CONSENT).await;
    browser
        .reads("See your name, e-mail address and picture")
        .await;
    browser.reads(ada.email).await;
    browser.look("consent").await;
    browser.press("Allow").await;

    let returned = app.welcomes(browser).await;
    let tokens = app.party.exchange(&returned["code"]).await.expect(200);
    let text = |name: &str| tokens[name].as_str().expect("a token").to_owned();
    let profile = app.party.profile(&text("access_token")).await.expect(200);
    assert_eq!(profile["user"]["email"], ada.email);
    assert_eq!(profile["user"]["profile"]["name"], ada.name);
    assert_eq!(profile["user"]["email_verified"], true);
    let fresh = app.party.refresh(&text("refresh_token")).await.expect(200);
    let access_token = fresh["access_token"].as_str().expect("a token");
    app.party.profile(access_token).await.expect(200);
    let successor = fresh["refresh_token"].as_str().expect("a token");
    app.party.revoke(successor).await.expect(200);
    app.party.profile(access_token).await.expect(401);
}

async fn fill_in(browser: &Browser, account: &Account) {
    browser.fill("name", account.name).await;
    browser.fill("email", account.email).await;
    browser.fill("password", account.password).await;
}

async fn is_asked_once_and_denies(browser: &Browser, app: &Application) {
    browser.open(&app.party.authorize_url()).await;
    let returned = app.welcomes(browser).await;
    app.party.exchange(&returned["code"]).await.expect(200);

    let asked = app.party.authorize_url_with(&[("prompt", "consent")]);
    browser.open(&asked).await;
    browser.reads(CONSENT).await;
    browser.press("Do not allow").await;
    let returned = app.welcomes(browser).await;
    assert_eq!(returned["error"], "access_denied");
    assert!(!returned.contains_key("code"));

    // Nobody is sent to an address that was not registered.
    let astray = [("redirect_uri", "https://evil.example/callback")];
    browser.open(&app.party.authorize_url_with(&astray)).await;
    browser.reads("This sign-in link does not work").await;
    assert!(
        browser
            .url()
            .await
            .as_str()
            .starts_with(&app.party.base_url)
    );
    browser.look("error").await;
}

async fn connects_devices(dev: &Dev, browser: &Browser) {
    let device = begin_device(dev).await;
    browser.open(&device.link).await;
    browser.reads("Connect a device").await;
    browser.look("device").await;
    browser.press("Continue").await;
    browser
        .reads("Connect InsForge CLI to your InsForge account?")
        .await;
    browser.reads(&device.user_code).await;
    browser.reads("127.0.0.1").await;
    browser.look("device-consent").await;
    browser.press("Allow").await;
    browser.reads("The device is connected").await;
    browser.look("device-connected").await;
    let tokens = device.poll(dev).await.expect(200);
    assert!(tokens["refresh_token"].is_string());

    // Typed in by hand, small and without the dash.
    let device = begin_device(dev).await;
    browser.open(&format!("{}/device", dev.base_url())).await;
    browser.fill("user_code", "BBBB-BBBB").await;
    browser.press("Continue").await;
    browser.reads("No device waits with this code").await;
    let typed = device.user_code.to_lowercase().replace('-', "");
    browser.fill("user_code", &typed).await;
    browser.press("Continue").await;
    browser.press("Do not allow").await;
    browser.reads("The device is not connected").await;
    let refused = device.poll(dev).await.expect(400);
    assert_eq!(refused["error"], "access_denied");
}

/// A device that waits.
struct Waiting {
    device_code: String,
    user_code: String,
    link: String,
}

async fn begin_device(dev: &Dev) -> Waiting {
    let body = json!({ "client_id": CLI, "scope": "user:read projects:write" });
    let begun = post(dev, "/api/oauth/v1/device_authorization", &body)
        .await
        .expect(200);
    let text = |name: &str| begun[name].as_str().expect("a text").to_owned();
    Waiting {
        device_code: text("device_code"),
        user_code: text("user_code"),
        link: text("verification_uri_complete"),
    }
}

impl Waiting {
    async fn poll(&self, dev: &Dev) -> cp_tests::Answer {
        let grant_type = "urn:ietf:params:oauth:grant-type:device_code";
        let body =
            json!({ "client_id": CLI, "device_code": self.device_code, "grant_type": grant_type });
        post(dev, "/api/oauth/v1/token", &body).await
    }
}

async fn post(dev: &Dev, path: &str, body: &Value) -> cp_tests::Answer {
    let request = dev.partner.http.post(format!("{}{path}", dev.base_url()));
    cp_tests::Answer::to(request.json(body)).await
}

async fn looks_after_their_settings(dev: &Dev, browser: &Browser) {
    let settings = format!("{}/settings", dev.base_url());
    browser.open(&settings).await;
    browser.fill("key_name", "backup script").await;
    browser.press("Make the key").await;
    browser.reads("Copy it now.").await;
    browser.look("api-key").await;
    let key = browser.element("#key").await.value().await;
    let key = key.expect("a field has a value").expect("the key is shown");
    let profile = dev
        .partner
        .http
        .get(format!("{}/auth/v1/profile", dev.base_url()));
    let profile = profile.bearer_auth(key);
    let status = async || profile.try_clone().unwrap().send().await.unwrap().status();
    assert_eq!(status().await, 200);

    browser.press("I have copied it").await;
    for part in [
        "backup script",
        "Acme Notes",
        "InsForge CLI",
        "this browser",
    ] {
        browser.reads(part).await;
    }
    browser.look("settings").await;
    browser.click("Revoke").await;
    browser
        .reads("Programs that use this key stop working at once.")
        .await;
    browser.look("settings-question").await;
    browser.press("Yes, revoke it").await;
    browser.reads("The API key is revoked.").await;
    assert_eq!(status().await, 401);

    browser.click("Disconnect").await;
    browser.press("Yes, disconnect it").await;
    browser.reads("The application is disconnected.").await;

    browser.open(&format!("{}/logout", dev.base_url())).await;
    browser.reads("Sign out?").await;
    browser.look("logout").await;
    browser.press("Sign out").await;
    browser.reads("You are signed out.").await;
    browser.open(&settings).await;
    assert_eq!(browser.url().await.path(), "/login");
}

async fn forgets_the_password(dev: &Dev, browser: &Browser, ada: &mut Account) {
    log_in(browser, ada.email, "wrong horse battery").await;
    browser
        .reads("The e-mail address or the password is wrong.")
        .await;
    browser.look("login-error").await;
    browser.press("Forgot your password?").await;
    browser.look("forgot-password").await;
    browser.fill("email", ada.email).await;
    browser.press("Mail me a link").await;
    browser.reads("Look at your mail").await;
    browser.look("forgot-password-sent").await;

    let link = dev.mail(ada.email, "new InsForge password").await.link();
    browser.open(&link).await;
    browser.reads("Choose a new password").await;
    browser.look("reset-password").await;
    browser.fill("password", "12345678").await;
    browser.press("Save the password").await;
    browser.reads("Something is not right yet").await;
    let old = std::mem::replace(&mut ada.password, "staple of fresh paper");
    browser.fill("password", ada.password).await;
    browser.press("Save the password").await;
    browser
        .reads("Your password is changed. Sign in with the new one.")
        .await;
    browser.open(&link).await;
    browser.reads("This link does not work any more").await;

    browser.open(&format!("{}/login", dev.base_url())).await;
    log_in(browser, ada.email, old).await;
    browser
        .reads("The e-mail address or the password is wrong.")
        .await;
    log_in(browser, ada.email, ada.password).await;
    assert_eq!(browser.url().await.path(), "/settings");
}

/// From the page where the form is.
async fn log_in(browser: &Browser, email: &str, password: &str) {
    browser.fill("email", email).await;
    browser.fill("password", password).await;
    browser.press("Sign in").await;
}

/// A stranger who signs up with somebody's address gets nothing by that person's click: the link
/// works for who knows the password.
async fn confirms_an_address_by_its_link(dev: &Dev, browser: &Browser) {
    browser.forget().await;
    let bo = Account {
        name: "Bo",
        email: "bo@example.com",
        password: "nine lives of a cat",
    };
    browser.open(&format!("{}/signup", dev.base_url())).await;
    fill_in(browser, &bo).await;
    browser.press("Create account").await;
    let link = dev.mail(bo.email, "Confirm your").await.link();
    browser.open(&link).await;
    browser.reads("Sign in to confirm your address").await;
    browser.look("verify-email-sign-in").await;
    browser.press("Sign in").await;
    log_in(browser, bo.email, bo.password).await;
    browser.open(&link).await;
    browser.reads("Confirm your address").await;
    browser.look("verify-email-link").await;
    browser.press("Confirm my address").await;
    browser.reads("Your e-mail address is confirmed.").await;
}

async fn uses_the_sample_app(dev: &Dev, browser: &Browser, ada: &Account) {
    let sample = SampleApp::start(dev).await;
    browser.forget().await;

    // In a window of its own, as for single-page applications.
    browser.open(&sample.url).await;
    browser.click("Sign in in a popup window").await;
    let app = browser.to_other_window().await;
    browser.reads("to continue to Acme Notes").await;
    log_in(browser, ada.email, ada.password).await;
    browser.reads(CONSENT).await;
    browser.click("Allow").await;
    browser.has_windows(1).await;
    browser.to_window(app).await;
    browser.reads(&format!("Hello {}", ada.name)).await;
    browser.reads(ada.email).await;
    browser.press("Sign out").await;

    // The whole page, and back.
    browser.press("Sign in with InsForge").await;
    browser.reads(&format!("Hello {}", ada.name)).await;
}

async fn signs_in_by_keyboard(dev: &Dev, browser: &Browser, app: &Application) {
    let (email, password) = dev.demo_user();
    browser.open(&app.party.authorize_url()).await;
    browser.reads("to continue to Acme Notes").await;
    // Typing begins in the first field.
    browser.keys(email).await;
    browser.tab_to("password").await;
    browser.keys(password).await;
    browser.enter().await;
    browser.reads(CONSENT).await;
    browser.tab_to("Allow").await;
    browser.enter().await;
    let returned = app.welcomes(browser).await;
    app.party.exchange(&returned["code"]).await.expect(200);
}

async fn connects_a_device_by_keyboard(dev: &Dev, browser: &Browser) {
    let device = begin_device(dev).await;
    browser.open(&format!("{}/device", dev.base_url())).await;
    browser.keys(device.user_code.as_str()).await;
    browser.enter().await;
    browser
        .reads("Connect InsForge CLI to your InsForge account?")
        .await;
    browser.tab_to("Do not allow").await;
    browser.enter().await;
    browser.reads("The device is not connected").await;
    assert_eq!(device.poll(dev).await.expect(400)["error"], "access_denied");
}

async fn signs_up_without_scripts(dev: &Dev, browser: &Browser, app: &Application) {
    let cy = Account {
        name: "Cy",
        email: "cy@example.com",
        password: "seven small wonders",
    };
    browser.open(&app.party.authorize_url()).await;
    browser.press("Create an account").await;
    fill_in(browser, &cy).await;
    browser.press("Create account").await;
    let code = dev.mail(cy.email, "Confirm your").await.code();
    browser.fill("code", &code).await;
    browser.press("Confirm").await;
    browser.reads(CONSENT).await;
    browser.press("Allow").await;
    let returned = app.welcomes(browser).await;
    app.party.exchange(&returned["code"]).await.expect(200);

    // A question that opens without a script, too.
    browser.open(&format!("{}/settings", dev.base_url())).await;
    browser.click("Disconnect").await;
    browser.press("Yes, disconnect it").await;
    browser.reads("The application is disconnected.").await;
}
