//! URLs of services that operators name: what we send keys to, and where people are sent back to.

use url::{Host, Url};

use crate::{FieldError, FieldResult};

/// Refuses what a key may not be sent to: it must be https, or http on this machine, without a user name or a password.
/// A client for the latter must take no proxy.
pub fn check_service_url(field: &'static str, url: &Url) -> FieldResult<()> {
    if !url.username().is_empty() || url.password().is_some() {
        let rule = "must not hold a user name or a password";
        return Err(FieldError::new(field, rule));
    }
    let is_kept = match url.host() {
        None => false,
        Some(_) if url.scheme() == "https" => true,
        // Of names only this one: a resolver may ask others for what is below it.
        Some(Host::Domain(name)) => url.scheme() == "http" && name == "localhost",
        Some(address) => url.scheme() == "http" && is_this_machine(&address),
    };
    if is_kept {
        return Ok(());
    }
    let rule = "must be an https:// URL, or an http:// URL of this machine";
    Err(FieldError::new(field, rule))
}

/// RFC 6761 section 6.3: never anywhere else.
pub fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

pub fn is_this_machine(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => is_localhost(name),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_over_https_or_stays_on_this_machine() {
        let check = |text: &str| check_service_url("url", &text.parse().unwrap());
        for good in [
            "https://api.example.com/v1",
            "http://127.0.0.1:8080",
            "http://[::1]/",
            "http://localhost/",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "http://api.example.com/",
            "http://localhost.example.com/",
            "http://api.localhost/",
            "http://10.0.0.1/",
            "ftp://localhost/",
            "https://user@api.example.com/",
            "https://user:password@api.example.com/",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
