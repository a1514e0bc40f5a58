//! Where a webhook may be. Our worker sits in a network that strangers do not reach; whoever names
//! a URL must not reach into it through the worker (server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cp_model::service_url::{is_localhost, is_this_machine};
use cp_model::{FieldError, FieldResult};
use url::{Host, Url};

const LONGEST: usize = 2_000;

/// https, without credentials and fragment, and not at an address that is not public. With
/// `allow_private` it may be anywhere, and on this computer by http. What a name stands for is
/// looked at when it is used.
///
/// # Errors
/// Names `url` and the rule.
pub fn check_url(text: &str, allow_private: bool) -> FieldResult<Url> {
    let refuse = |rule: &str| Err(FieldError::new("url", rule));
    if text.len() > LONGEST {
        return refuse("must have at most 2000 characters");
    }
    let Ok(url) = Url::parse(text) else {
        return refuse("must be a URL like https://example.com/insforge-events");
    };
    let Some(host) = url.host() else {
        return refuse("must be a URL like https://example.com/insforge-events");
    };
    match url.scheme() {
        "https" => {}
        "http" if allow_private && is_this_machine(&host) => {}
        _ => return refuse("must be an https:// URL"),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user name or a password; requests are signed");
    }
    if url.fragment().is_some() {
        return refuse("must not have a fragment (#…)");
    }
    let may_be_reached = match &host {
        // RFC 6761 section 6.3: never anywhere else.
        Host::Domain(name) => !is_localhost(name),
        Host::Ipv4(address) => is_public((*address).into()),
        Host::Ipv6(address) => is_public((*address).into()),
    };
    if !may_be_reached && !allow_private {
        return refuse("must be at a public address");
    }
    Ok(url)
}

/// Whether the address is one of the Internet at large (IANA's special-purpose registries,
/// RFC 6890). Addresses that stand for another one are taken for what they stand for.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // "This network"; private; loopback; multicast, reserved and broadcast.
        (0 | 10 | 127 | 224.., _, _)
        // Shared by carriers (RFC 6598).
        | (100, 64..=127, _)
        // Link-local: cloud providers tell machines their credentials at 169.254.169.254.
        | (169, 254, _)
        | (172, 16..=31, _)
        | (192, 168, _)
        // Protocol assignments; documentation; 6to4 relays.
        | (192, 0, 0 | 2)
        | (192, 88, 99)
        // Benchmarks (RFC 2544); documentation.
        | (198, 18 | 19, _)
        | (198, 51, 100)
        | (203, 0, 113) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let s = address.segments();
    // NAT64 (RFC 6052): the last 32 bits are the address that is reached.
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let bytes = address.octets();
        return is_public_v4(Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]));
    }
    // Only 2000::/3 is given out. Unique-local, link-local, multicast and the rest lie outside.
    if s[0] & 0xe000 != 0x2000 {
        return false;
    }
    let is_special = match (s[0], s[1]) {
        // Protocol assignments (2001::/23, Teredo among them); documentation; 6to4, which could
        // carry any IPv4 address.
        (0x2001, 0..=0x01ff | 0x0db8) | (0x2002, _) => true,
        // Documentation (RFC 9637), 3fff::/20.
        (0x3fff, second) => second & 0xf000 == 0,
        _ => false,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn urls_are_public_https() {
        for good in [
            "https://example.com/hook",
            "https://example.com:8443/hook?x=1",
            "https://8.8.8.8/",
        ] {
            assert!(check_url(good, false).is_ok(), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "http://example.com/",
            "ftp://example.com/",
            "https://ada@example.com/",
            "https://:pw@example.com/",
            "https://example.com/#x",
            "https://localhost/",
            "https://a.localhost./",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "http://127.0.0.1:9/",
            "data:text/plain,x",
        ] {
            let error = check_url(bad, false).unwrap_err();
            assert_eq!(error.field, "url", "{bad}");
        }
        assert!(check_url(&format!("https://example.com/{}", "x".repeat(2000)), true).is_err());
    }

    #[test]
    fn dev_may_use_http_on_this_computer_alone() {
        for good in [
            "http://127.0.0.1:9/x",
            "http://localhost:9/",
            "http://[::1]/",
            "https://10.0.0.1/",
        ] {
            assert!(check_url(good, true).is_ok(), "{good}");
        }
        for bad in ["http://example.com/", "http://10.0.0.1/"] {
            assert!(check_url(bad, true).is_err(), "{bad}");
        }
    }
}
