//! Who asks: what every verb wants to know about its caller.

use std::net::IpAddr;
use std::sync::Arc;

use cp_model::{Partner, RequestId};
use cp_tokens::secret::hash_bytes;

/// One request from outside.
#[derive(Debug, Clone)]
pub struct Caller {
    pub request_id: RequestId,
    pub address: Option<IpAddr>,
}

/// A request of an authenticated partner.
#[derive(Debug, Clone)]
pub struct PartnerCaller {
    pub partner: Arc<Partner>,
    pub caller: Caller,
}

impl PartnerCaller {
    /// How the audit log and operations name it.
    pub fn actor(&self) -> String {
        format!("partner:{}", self.partner.id)
    }
}

/// A request that carries an `Idempotency-Key`.
#[derive(Debug, Clone)]
pub struct IdempotentRequest {
    pub key: String,
    pub fingerprint: [u8; 32],
}

/// What makes two requests the same: SHA-256 over method, path and body, each with its length, so
/// that no two different triples join to the same bytes.
pub fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut joined = Vec::with_capacity(method.len() + path.len() + body.len() + 24);
    for part in [method.as_bytes(), path.as_bytes(), body] {
        joined.extend_from_slice(&(part.len() as u64).to_be_bytes());
        joined.extend_from_slice(part);
    }
    hash_bytes(&joined)
}
