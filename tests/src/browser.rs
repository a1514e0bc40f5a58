//! A real browser: Chromium without a window, led by chromedriver. A scenario does with it what a
//! person does: opens, fills in, presses, reads; and has each page looked at by [`Browser::look`].

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use thirtyfour::cdp::domains::emulation::{
    MediaFeature, SetDeviceMetricsOverride, SetEmulatedMedia,
};
use thirtyfour::{
    By, ChromiumLikeCapabilities as _, DesiredCapabilities, Key, TypingData, WebDriver, WebElement,
    WindowHandle,
};
use tokio::process::{Child, Command};

use crate::eventually;
use crate::programs::{Home, quiet_port};

/// A page is there, or a window is open, within this.
const SOON: Duration = Duration::from_secs(10);

/// `wcag` rules that [`Browser::look`] holds pages to: axe's own grades.
const AXE: &str = "
    const done = arguments[arguments.length - 1];
    const tell = (violation) => `${violation.impact}: ${violation.help} (${violation.id})\\n` +
        violation.nodes.map((node) => `    ${node.html}\\n    ${node.failureSummary}`).join('\\n');
    const isBad = (violation) => ['serious', 'critical'].includes(violation.impact);
    axe.run(document, { resultTypes: ['violations'], ...arguments[0] }).then(
        (found) => done(found.violations.filter(isBad).map(tell)),
        (error) => done([`axe failed: ${error}`]),
    );";

/// What stands out of the page to the right, if anything does.
const TOO_WIDE: &str = "
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= 320 && innerWidth <= 320) return null;
    const out = [...document.querySelectorAll('body *')]
        .filter((element) => element.getBoundingClientRect().right > width);
    return [document.documentElement.scrollWidth, ...out.map((element) => element.outerHTML.slice(0, 200))];";

/// How far what was painted first has moved since; zero in a page without jumps (W3C Layout
/// Instability). Once per page: what a person opens there, and another size, may move things.
const JUMPS: &str = "
    const done = arguments[arguments.length - 1];
    if (window.wasLookedAt) return done(0);
    window.wasLookedAt = true;
    let sum = 0;
    new PerformanceObserver((seen) => seen.getEntries().forEach((jump) => { sum += jump.value; }))
        .observe({ type: 'layout-shift', buffered: true });
    setTimeout(() => done(sum), 50);";

/// The element with the focus, as a keyboard's user finds it.
const FOCUSED: &str = "
    const element = document.activeElement;
    const style = getComputedStyle(element);
    return {
        what: element.tagName.toLowerCase(),
        name: element.getAttribute('name') ?? '',
        text: (element.innerText || element.value || '').trim(),
        isSeen: style.outlineStyle !== 'none' || style.boxShadow !== 'none',
    };";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scripts {
    On,
    /// As for people who switched them off. Scripts of the driver still run.
    Off,
}

#[derive(Debug, Clone, Copy)]
enum Colours {
    Light,
    Dark,
}

/// Width and height in CSS pixels.
#[derive(Debug, Clone, Copy)]
struct Size {
    width: u32,
    height: u32,
    is_phone: bool,
}

const DESK: Size = Size {
    width: 1280,
    height: 800,
    is_phone: false,
};
const PHONE: Size = Size {
    width: 390,
    height: 844,
    is_phone: true,
};
/// A page of 1280 pixels at 400 % (WCAG 2.1, success criterion 1.4.10).
const NARROWEST: Size = Size {
    width: 320,
    height: 640,
    is_phone: false,
};

/// Dropped, its driver is killed; Chromium itself is found in its home then, see [`Home`].
pub struct Browser {
    driver: WebDriver,
    _chromedriver: Child,
}

impl Browser {
    /// # Panics
    /// When chromedriver or Chromium is not installed, or does not start.
    pub async fn start(home: &Home, scripts: Scripts) -> Self {
        let port = quiet_port();
        let chromedriver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver is installed (scripts/setup --test)");
        let address = ("127.0.0.1", port);
        eventually("chromedriver listens", SOON, async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client can be built");
        let driver =
            WebDriver::builder(format!("http://127.0.0.1:{port}"), chromium(home, scripts))
                .client(client)
                .await
                .expect("Chromium starts");
        let browser = Self {
            driver,
            _chromedriver: chromedriver,
        };
        browser.show(DESK, Colours::Light).await;
        browser
    }

    /// # Panics
    /// When it does not end.
    pub async fn quit(self) {
        let driver = self.driver.clone();
        driver.quit().await.expect("Chromium ends");
    }

    pub async fn open(&self, url: &str) {
        self.driver.goto(url).await.expect("the page opens");
    }

    pub async fn url(&self) -> reqwest::Url {
        self.driver.current_url().await.expect("it is somewhere")
    }

    /// What can be read on the page now.
    pub async fn text(&self) -> String {
        let body = self.driver.find(By::Tag("body")).await;
        let body = body.expect("a page has a body");
        body.text().await.expect("a page has a text")
    }

    /// # Panics
    /// When the page does not say it soon; shows what it says.
    pub async fn reads(&self, part: &str) {
        let mut said = String::new();
        let found = async {
            loop {
                said = self.text().await;
                if said.contains(part) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(SOON, found).await.is_err() {
            let url = self.url().await;
            panic!("{part:?} is not on {url}:\n{said}");
        }
    }

    /// Types into the field of this name, in place of what is there.
    pub async fn fill(&self, name: &str, value: &str) {
        let field = self
            .element(&format!("input[name={name:?}]:not([type=hidden])"))
            .await;
        field.clear().await.expect("a field can be emptied");
        field.send_keys(value).await.expect("a field takes text");
    }

    /// Presses the button or link of this text and waits for the page that comes of it.
    pub async fn press(&self, text: &str) {
        let page = self.element("html").await;
        self.click(text).await;
        eventually(&format!("{text:?} leads on"), SOON, async || {
            // An element of a page that is gone is gone.
            page.tag_name().await.is_err().then_some(())
        })
        .await;
    }

    /// Presses what stays on the page: what opens a part of it, or another window.
    pub async fn click(&self, text: &str) {
        // Buttons first: a page's button may be called like a link in its header.
        for tag in ["button", "a", "summary", "label"] {
            let path = format!("//{tag}[normalize-space(.) = {}]", quoted(text));
            for element in self
                .driver
                .find_all(By::XPath(path))
                .await
                .unwrap_or_default()
            {
                if element.is_displayed().await.unwrap_or(false) {
                    element.click().await.expect("what is shown can be pressed");
                    return;
                }
            }
        }
        let (url, said) = (self.url().await, self.text().await);
        panic!("nothing to press says {text:?} on {url}:\n{said}");
    }

    /// # Panics
    /// When there is no such element.
    pub async fn element(&self, css: &str) -> WebElement {
        if let Ok(element) = self.driver.find(By::Css(css)).await {
            return element;
        }
        panic!("no {css} on {}:\n{}", self.url().await, self.text().await)
    }

    /// What a script of ours returns.
    pub async fn ask(&self, script: &str) -> Value {
        let answer = self.driver.execute(script, Vec::new()).await;
        answer.expect("a script runs").json().clone()
    }

    /// Comes to the element of this `name`, or with this text, by the key Tab alone.
    ///
    /// # Panics
    /// When it is not reached, or an element on the way does not show that it has the focus.
    pub async fn tab_to(&self, name_or_text: &str) {
        let mut passed = Vec::new();
        for _ in 0..40 {
            self.keys(Key::Tab).await;
            let focused = self.ask(FOCUSED).await;
            if focused["what"] == "body" {
                continue;
            }
            assert_eq!(
                focused["isSeen"], true,
                "the focus is not seen on {focused}"
            );
            let is = |field: &str| focused[field].as_str() == Some(name_or_text);
            if is("name") || is("text") {
                return;
            }
            passed.push(focused.to_string());
        }
        panic!(
            "Tab does not reach {name_or_text:?}, only:\n{}",
            passed.join("\n")
        );
    }

    /// Types where the focus is.
    pub async fn keys(&self, keys: impl Into<TypingData>) {
        let typing = self.driver.action_chain().send_keys(keys.into());
        typing.perform().await.expect("keys can be pressed");
    }

    /// Presses Enter and waits for the page that comes of it.
    pub async fn enter(&self) {
        let page = self.element("html").await;
        self.keys(Key::Enter).await;
        eventually("Enter leads on", SOON, async || {
            page.tag_name().await.is_err().then_some(())
        })
        .await;
    }

    /// Turns to the window that was opened beside this one; gives this one, for the way back.
    pub async fn to_other_window(&self) -> WindowHandle {
        let this = self.driver.window().await.expect("there is a window");
        let other = eventually("another window", SOON, async || {
            let windows = self.driver.windows().await.ok()?;
            windows.into_iter().find(|window| *window != this)
        })
        .await;
        self.to_window(other).await;
        this
    }

    pub async fn to_window(&self, window: WindowHandle) {
        let turned = self.driver.switch_to_window(window).await;
        turned.expect("an open window can be turned to");
    }

    /// # Panics
    /// When the windows do not become so many.
    pub async fn has_windows(&self, number: usize) {
        eventually(&format!("{number} windows"), SOON, async || {
            let windows = self.driver.windows().await.ok()?;
            (windows.len() == number).then_some(())
        })
        .await;
    }

    /// Forgets all cookies of the page's site.
    pub async fn forget(&self) {
        let forgotten = self.driver.delete_all_cookies().await;
        forgotten.expect("cookies can be deleted");
    }

    /// Looks at the page as people do: on a narrow screen, in light and dark, with axe's eyes. With
    /// `INSFORGE_SCREENSHOTS=1` it also writes docs/screenshots/`name`-….png.
    ///
    /// # Panics
    /// When it jumped while it was loaded, something stands out of 320 pixels, or axe finds
    /// something serious.
    pub async fn look(&self, name: &str) {
        let jumps = self.driver.execute_async(JUMPS, Vec::new()).await;
        let jumps = jumps.expect("a script runs").json().clone();
        assert_eq!(jumps.as_f64(), Some(0.0), "{name} jumps while it loads");
        self.show(NARROWEST, Colours::Light).await;
        let too_wide = self.ask(TOO_WIDE).await;
        assert_eq!(too_wide, Value::Null, "{name} is wider than 320 pixels");
        let wants_pictures = std::env::var("INSFORGE_SCREENSHOTS").is_ok_and(|set| set == "1");
        if wants_pictures {
            self.show(PHONE, Colours::Light).await;
            self.take_picture(&format!("{name}-phone"), PHONE, Colours::Light)
                .await;
        }
        let axe = clients().join("node_modules/axe-core/axe.min.js");
        let axe = std::fs::read_to_string(axe).expect("axe is installed (scripts/setup --test)");
        let there = self.driver.execute(axe, Vec::new()).await;
        there.expect("axe is a script");
        // In the dark only colours are others.
        for (colours, label, options) in [
            (
                Colours::Dark,
                "dark",
                json!({ "runOnly": ["color-contrast"] }),
            ),
            (Colours::Light, "light", json!({})),
        ] {
            self.show(DESK, colours).await;
            let found = self.driver.execute_async(AXE, vec![options]).await;
            let found: Vec<String> = found.and_then(|f| f.convert()).expect("axe answers");
            assert!(found.is_empty(), "{name} ({label}):\n{}", found.join("\n"));
            if wants_pictures {
                self.take_picture(&format!("{name}-{label}"), DESK, colours)
                    .await;
            }
        }
    }

    /// The whole page, also what is below the screen's end.
    async fn take_picture(&self, name: &str, size: Size, colours: Colours) {
        let height = self
            .ask("return document.documentElement.scrollHeight")
            .await;
        let height = height.as_u64().and_then(|h| u32::try_from(h).ok());
        let whole = Size {
            height: height.unwrap_or(size.height).clamp(size.height, 4000),
            ..size
        };
        self.show(whole, colours).await;
        let picture = self.driver.screenshot_as_png().await;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screenshots");
        std::fs::create_dir_all(&folder).expect("docs can be written to");
        std::fs::write(
            folder.join(format!("{name}.png")),
            picture.expect("a picture"),
        )
        .expect("docs can be written to");
        self.show(size, colours).await;
    }

    async fn show(&self, size: Size, colours: Colours) {
        let cdp = self.driver.cdp();
        let size = SetDeviceMetricsOverride {
            width: size.width,
            height: size.height,
            device_scale_factor: 1.0,
            mobile: size.is_phone,
            scale: None,
            screen_orientation: None,
        };
        cdp.send(size).await.expect("sizes can be set");
        let value = match colours {
            Colours::Light => "light",
            Colours::Dark => "dark",
        };
        let feature = |name: &str, value: &str| MediaFeature {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let media = SetEmulatedMedia {
            media: None,
            // Without motion: axe measures colours at once.
            features: Some(vec![
                feature("prefers-color-scheme", value),
                feature("prefers-reduced-motion", "reduce"),
            ]),
        };
        cdp.send(media).await.expect("colours can be set");
    }
}

impl Drop for Browser {
    /// In a scenario that fails, the driver's own end would wait for a runtime that waits for it.
    fn drop(&mut self) {
        let _ = self.driver.clone().leak();
    }
}

fn chromium(home: &Home, scripts: Scripts) -> thirtyfour::ChromeCapabilities {
    let mut chromium = DesiredCapabilities::chrome();
    let profile = format!("--user-data-dir={}", home.path().join("chromium").display());
    for arg in [
        "--headless=new",
        // Tests may run as root and in containers with little shared memory.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-proxy-server",
        "--no-first-run",
        &profile,
    ] {
        chromium.add_arg(arg).expect("an argument is text");
    }
    if scripts == Scripts::Off {
        let off = json!({ "profile.managed_default_content_settings.javascript": 2 });
        let set = chromium.add_experimental_option("prefs", off);
        set.expect("preferences are JSON");
    }
    chromium
}

/// An XPath text. It has no escapes, so a text must not hold both kinds of quotes.
fn quoted(text: &str) -> String {
    if text.contains('\'') {
        format!("\"{text}\"")
    } else {
        format!("'{text}'")
    }
}

/// tests/clients: programs of others, in other languages.
pub(crate) fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}
