//! What a browser calls itself, in words that a person knows it by. Only for lists: anybody can
//! write anything there.

/// In this order, because later ones also name earlier ones: Edge calls itself Chrome, and Chrome
/// calls itself Safari.
const PROGRAMS: [(&str, &str); 11] = [
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("insforge", "InsForge command line"),
    ("node", "Node.js"),
];

const SYSTEMS: [(&str, &str); 7] = [
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
];

const SHOWN: usize = 60;

/// Such as "Firefox on Linux".
pub fn describe(user_agent: Option<&str>) -> String {
    let Some(text) = user_agent.filter(|text| !text.is_empty()) else {
        return "Unknown program".into();
    };
    let of = |known: &[(&str, &'static str)]| {
        let found = known.iter().find(|(part, _)| text.contains(part));
        found.map(|(_, name)| *name)
    };
    match (of(&PROGRAMS), of(&SYSTEMS)) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(program), None) => program.into(),
        (None, Some(system)) => format!("A program on {system}"),
        (None, None) => text.chars().take(SHOWN).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_told_apart() {
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(describe(Some(chrome)), "Chrome on Linux");
        let edge =
            format!("{chrome} Edg/140.0.0.0").replace("X11; Linux x86_64", "Windows NT 10.0");
        assert_eq!(describe(Some(&edge)), "Edge on Windows");
        let iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1";
        assert_eq!(describe(Some(iphone)), "Safari on iPhone");
        assert_eq!(describe(Some("curl/8.5.0")), "curl");
        assert_eq!(describe(Some(&"x".repeat(200))).len(), SHOWN);
        assert_eq!(describe(None), "Unknown program");
    }
}
