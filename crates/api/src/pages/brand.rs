//! An application as people see it: its name, logo and colour. All three were chosen by others,
//! so they are shown and never trusted: the logo only over https, the colour only as a surface
//! whose writing is chosen to be readable on it.

use cp_model::OAuthClient;
use maud::{Markup, html};

/// A colour of sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Color {
    red: u8,
    green: u8,
    blue: u8,
}

impl Color {
    /// `#rrggbb` and nothing else.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if digits.len() != 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let part = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
        Some(Self {
            red: part(0)?,
            green: part(2)?,
            blue: part(4)?,
        })
    }

    /// WCAG 2.2, "relative luminance": 0 (black) to 1 (white).
    fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// Black or white, whichever reads better on it. One of them always has a contrast of at
    /// least 4.58 (WCAG AA asks for 4.5).
    fn ink(self) -> &'static str {
        let luminance = self.luminance();
        let on_white = 1.05 / (luminance + 0.05);
        let on_black = (luminance + 0.05) / 0.05;
        if on_white >= on_black {
            "#ffffff"
        } else {
            "#000000"
        }
    }

    fn text(self) -> String {
        format!("#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// What stands for applications that brought no colour.
const NO_COLOR: Color = Color {
    red: 0x45,
    green: 0x52,
    blue: 0x4c,
};

/// The logo, or the first letter of the name on the colour. Beside it always stands the name, so
/// it says nothing to screen readers. The colour is an SVG attribute: our policy allows no styles
/// in a page.
pub fn mark(client: &OAuthClient) -> Markup {
    let color = color(client).unwrap_or(NO_COLOR);
    let initial: String = client
        .name
        .chars()
        .find(|c| c.is_alphanumeric())
        .map(|c| c.to_uppercase().collect())
        .unwrap_or_default();
    html! {
        @if let Some(logo) = logo(client) {
            img.mark src=(logo) alt="" width="56" height="56" loading="lazy" decoding="async"
                referrerpolicy="no-referrer";
        } @else {
            svg.mark viewBox="0 0 56 56" width="56" height="56" aria-hidden="true" focusable="false" {
                rect width="56" height="56" rx="14" fill=(color.text()) {}
                text x="28" y="38" text-anchor="middle" font-size="28" font-weight="600" fill=(color.ink()) { (initial) }
            }
        }
    }
}

/// A strip of the application's colour.
pub fn strip(client: &OAuthClient) -> Markup {
    html! {
        @if let Some(color) = color(client) {
            svg.strip viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true" focusable="false" {
                rect width="1" height="1" fill=(color.text()) {}
            }
        }
    }
}

/// For whom a person signs in, above a form.
pub fn for_application(client: Option<&OAuthClient>) -> Markup {
    html! {
        @if let Some(client) = client {
            div.for-application {
                (mark(client))
                p { "to continue to " strong { (client.name) } }
            }
        }
    }
}

fn color(client: &OAuthClient) -> Option<Color> {
    client.color.as_deref().and_then(Color::parse)
}

fn logo(client: &OAuthClient) -> Option<&str> {
    client
        .logo_url
        .as_deref()
        .filter(|url| url.starts_with("https://"))
}

/// Host and port of a web address; of an application's own scheme, the scheme.
pub fn place_of(uri: &str) -> &str {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return uri;
    };
    if !matches!(scheme, "http" | "https") {
        return scheme;
    }
    let rest = rest.trim_start_matches('/');
    rest.split(['/', '?', '#']).next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_plain_colour_is_one() {
        assert_eq!(Color::parse("#0b6B4f").unwrap().text(), "#0b6b4f");
        for bad in [
            "",
            "#fff",
            "red",
            "#12345g",
            "#+1+2+3",
            "#0b6b4f;x",
            "0b6b4f",
            "#ü1234",
        ] {
            assert!(Color::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn luminance_is_the_standards() {
        let of = |text| Color::parse(text).unwrap().luminance();
        assert!((of("#ffffff") - 1.0).abs() < 1e-9);
        assert!(of("#000000").abs() < 1e-9);
        assert!((of("#808080") - 0.215_860).abs() < 1e-5);
        assert_eq!(Color::parse("#ffff00").unwrap().ink(), "#000000");
        assert_eq!(Color::parse("#0000ff").unwrap().ink(), "#ffffff");
    }

    #[test]
    fn a_person_reads_where_they_will_be_sent() {
        assert_eq!(
            place_of("https://app.example:8443/cb?x=1"),
            "app.example:8443"
        );
        assert_eq!(place_of("http://127.0.0.1:4711/callback"), "127.0.0.1:4711");
        assert_eq!(place_of("http://[::1]:4711/callback"), "[::1]:4711");
        assert_eq!(place_of("com.example.app:/cb"), "com.example.app");
    }

    proptest! {
        #[test]
        fn writing_on_any_colour_can_be_read(red: u8, green: u8, blue: u8) {
            let color = Color { red, green, blue };
            let ink = Color::parse(color.ink()).unwrap();
            let (a, b) = (color.luminance() + 0.05, ink.luminance() + 0.05);
            prop_assert!(a.max(b) / a.min(b) >= 4.5);
        }
    }
}
