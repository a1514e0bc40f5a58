//! Which form of an answer a caller would rather have (RFC 9110 section 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// Whether it asks for HTML rather than for JSON. Whoever takes anything gets JSON: programs do.
pub fn prefers_html(headers: &HeaderMap) -> bool {
    let ranges = || {
        let values = headers.get_all(ACCEPT).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(media_range)
    };
    // The most specific range that matches counts.
    let quality = |kind: &str, whole: &str| {
        [kind, whole, "*/*"]
            .iter()
            .find_map(|wanted| ranges().find(|(range, _)| range.eq_ignore_ascii_case(wanted)))
            .map_or(0.0, |(_, quality)| quality)
    };
    quality("text/html", "text/*") > quality("application/json", "application/*")
}

/// A range and its quality, 0 to 1.
fn media_range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let range = parts.next().filter(|range| !range.is_empty())?;
    let quality = parts
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("q"))
        .map_or(Some(1.0), |(_, value)| value.parse().ok())?;
    Some((range, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_html_and_programs_json() {
        let asks = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            prefers_html(&headers)
        };
        assert!(!prefers_html(&HeaderMap::new()));
        for json in [
            "*/*",
            "application/json",
            "application/json, text/html;q=0.9",
            "text/html;q=0",
            "text/html;q=x",
            "",
        ] {
            assert!(!asks(json), "{json}");
        }
        for html in [
            "text/html",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=0.5, TEXT/HTML",
            "text/*",
        ] {
            assert!(asks(html), "{html}");
        }
    }
}
