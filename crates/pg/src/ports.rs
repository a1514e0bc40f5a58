//! Free loopback ports, for clusters and for the harness.

use std::{
    collections::HashSet,
    hash::BuildHasher,
    io,
    net::{Ipv4Addr, TcpListener},
};

/// Attempts before giving up when the kernel keeps handing out ports that are spoken for.
const ATTEMPTS: usize = 64;

/// A port on which nobody listens at this moment. Another process may take it before the caller
/// does, so a caller that fails to bind should ask again.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// Like [`free_port`], but none of `taken`: ports promised to clusters that are stopped now.
pub fn free_port_excluding<S: BuildHasher>(taken: &HashSet<u16, S>) -> io::Result<u16> {
    // Refused ports stay bound until the end, so that the kernel offers another one each time.
    let mut refused = Vec::new();
    for _ in 0..ATTEMPTS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        if !taken.contains(&port) {
            return Ok(port);
        }
        refused.push(listener);
    }
    Err(io::Error::new(
        io::ErrorKind::AddrNotAvailable,
        "no free port outside the reserved ones",
    ))
}
