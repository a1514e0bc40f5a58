//! Who is calling, by address: what failed authentications are counted by.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;

/// The client's address: the socket's peer, or, behind `trusted_proxies` proxies of ours, the
/// entry of `X-Forwarded-For` that the outermost of them appended. Entries further left were
/// written by the client and prove nothing.
pub fn client_address(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    trusted_proxies: usize,
) -> Option<IpAddr> {
    let peer = peer.map(|peer| peer.ip().to_canonical());
    if trusted_proxies == 0 {
        return peer;
    }
    let entries: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    // Fewer entries than proxies: the request came in behind the outermost one.
    entries
        .get(entries.len().saturating_sub(trusted_proxies))
        .and_then(|entry| parse(entry))
        .or(peer)
}

/// Some proxies write the port as well.
fn parse(entry: &str) -> Option<IpAddr> {
    let address = entry
        .parse::<IpAddr>()
        .or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(forwarded: &[&str], trusted_proxies: usize) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let peer = "10.0.0.9:4711".parse().ok();
        client_address(peer, &headers, trusted_proxies)
            .unwrap()
            .to_string()
    }

    #[test]
    fn a_forged_header_is_ignored() {
        assert_eq!(address(&["6.6.6.6"], 0), "10.0.0.9");
        assert_eq!(address(&["6.6.6.6, 203.0.113.7"], 1), "203.0.113.7");
        assert_eq!(
            address(&["6.6.6.6", "203.0.113.7, 10.0.0.1"], 2),
            "203.0.113.7"
        );
    }

    #[test]
    fn ports_and_nonsense_are_read_as_well_as_they_can_be() {
        assert_eq!(address(&["203.0.113.7:80"], 1), "203.0.113.7");
        assert_eq!(address(&["[2001:db8::1]:80"], 1), "2001:db8::1");
        assert_eq!(address(&["unknown"], 1), "10.0.0.9");
        assert_eq!(address(&[], 3), "10.0.0.9");
    }
}
