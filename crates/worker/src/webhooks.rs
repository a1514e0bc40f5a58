//! Tells partners' webhooks what is queued for them, and looks at usage limits every minute.
//!
//! Receivers are strangers: each has few places among many, so that one that is slow delays only
//! itself; and none can make the worker reach into our own network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cp_domain::DomainResult;
use cp_domain::webhooks::{Delivery, Outcome, check_url, is_public};
use cp_model::PartnerId;
use futures::stream::{FuturesUnordered, StreamExt as _};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::CONTENT_TYPE;
use tokio_util::sync::CancellationToken;

use crate::Worker;
use crate::jobs::{Ticks, log_failure};

/// From looking up the name to the answer's status.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Events told at once.
const AT_ONCE: usize = 64;
/// Events of one partner told at once.
const PER_PARTNER: usize = 4;
/// Events are looked for whose next attempt has come once in so many sweeps.
const SWEEPS: u32 = 5;
/// Bytes of a refusal that are read.
const LONGEST_REFUSAL: usize = 2_000;

/// Looks at limits on usage: what grows with time reaches them without any event.
pub(crate) async fn check_limits(worker: Worker, shutdown: CancellationToken) {
    let mut ticks = Ticks::every(Duration::from_mins(1), shutdown.clone());
    while ticks.next().await {
        let look = worker.control_plane().check_all_usage_limits();
        tokio::select! {
            result = look => log_failure("check_usage_limits", result.map(drop)),
            () = shutdown.cancelled() => return,
        }
    }
}

/// Tells events: each as soon as it is queued, and again, when its receiver did not take it, after
/// a pause.
pub(crate) async fn deliver(worker: Worker, shutdown: CancellationToken) {
    let is_private_allowed = worker.control_plane().settings().allow_http_webhooks;
    let http = client(is_private_allowed);
    let mut queued = worker.control_plane().subscribe_webhooks();
    let mut sweep = Ticks::every(worker.config().sweep_every * SWEEPS, shutdown);
    let mut running = FuturesUnordered::new();
    let mut busy = Busy::default();
    loop {
        tokio::select! {
            biased;
            goes_on = sweep.next() => if !goes_on {
                break;
            },
            Some(partner) = running.next() => if !busy.release(&partner) {
                // There was room before: nothing waits for this place.
                continue;
            },
            Ok(()) = queued.changed() => {}
        }
        match worker.take_deliveries(&busy).await {
            Ok(due) => {
                for delivery in due {
                    busy.take(&delivery.partner);
                    let partner = delivery.partner.clone();
                    let (worker, http) = (worker.clone(), http.clone());
                    let attempt = tokio::spawn(async move {
                        let result = worker
                            .deliver_one(&http, &delivery, is_private_allowed)
                            .await;
                        log_failure("deliver_webhooks", result);
                    });
                    running.push(async move {
                        // A panic is told by its hook; the place must be free again all the same.
                        let _ = attempt.await;
                        partner
                    });
                }
            }
            Err(error) => log_failure("deliver_webhooks", Err(error)),
        }
    }
    // What is cut off after that is told again, under the same id.
    let rest = running.for_each(|_| std::future::ready(()));
    let _ = tokio::time::timeout(worker.config().grace, rest).await;
}

/// Which places are taken.
#[derive(Default)]
struct Busy {
    of: BTreeMap<PartnerId, usize>,
    all: usize,
}

impl Busy {
    fn take(&mut self, partner: &PartnerId) {
        *self.of.entry(partner.clone()).or_default() += 1;
        self.all += 1;
    }

    /// Whether somebody may have waited for the place.
    fn release(&mut self, partner: &PartnerId) -> bool {
        let was_full = self.all >= AT_ONCE || self.of.get(partner) >= Some(&PER_PARTNER);
        if let Some(count) = self.of.get_mut(partner) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(partner);
            }
        }
        self.all = self.all.saturating_sub(1);
        was_full
    }
}

impl Worker {
    async fn take_deliveries(&self, busy: &Busy) -> DomainResult<Vec<Delivery>> {
        let free = AT_ONCE.saturating_sub(busy.all);
        if free == 0 {
            return Ok(Vec::new());
        }
        let counts: Vec<(PartnerId, i64)> = busy
            .of
            .iter()
            .map(|(partner, count)| (partner.clone(), i64::try_from(*count).unwrap_or(i64::MAX)))
            .collect();
        self.control_plane()
            .take_due_deliveries(free, PER_PARTNER, &counts)
            .await
    }

    async fn deliver_one(
        &self,
        http: &reqwest::Client,
        delivery: &Delivery,
        is_private_allowed: bool,
    ) -> DomainResult<()> {
        let outcome = self.tell(http, delivery, is_private_allowed).await;
        let result = match &outcome {
            Outcome::Delivered(_) => "delivered",
            Outcome::Failed { status, error } => {
                tracing::info!(
                    event = %delivery.id, partner = %delivery.partner, status, error,
                    "a webhook did not take an event"
                );
                "failed"
            }
        };
        metrics::counter!("webhook_attempts_total", "outcome" => result).increment(1);
        self.control_plane()
            .record_delivery(delivery, &outcome)
            .await
    }

    async fn tell(
        &self,
        http: &reqwest::Client,
        delivery: &Delivery,
        is_private_allowed: bool,
    ) -> Outcome {
        let refuse = |error: String| Outcome::Failed {
            status: None,
            error,
        };
        // Again, since the rules may have changed; and addresses in URLs never meet the resolver.
        let url = match check_url(&delivery.url, is_private_allowed) {
            Ok(url) => url,
            Err(error) => return refuse(error.to_string()),
        };
        let now = self.control_plane().clock().now();
        let request = http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("X-InsForge-Event-Id", delivery.id.to_string())
            .header("X-InsForge-Event-Type", delivery.kind.as_str())
            .header("X-InsForge-Signature", delivery.signature(now))
            .body(delivery.body.clone());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return refuse(reason(error)),
        };
        let status = answer.status();
        if status.is_success() {
            return Outcome::Delivered(status.as_u16());
        }
        let error = if status.is_redirection() {
            format!("status {status}; redirects are not followed")
        } else {
            format!("status {status}: {}", beginning(answer).await)
        };
        Outcome::Failed {
            status: Some(status.as_u16()),
            error,
        }
    }
}

/// What a receiver says about why it refuses, for its operator.
async fn beginning(mut answer: reqwest::Response) -> String {
    let mut text = Vec::new();
    while text.len() < LONGEST_REFUSAL {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                let room = LONGEST_REFUSAL - text.len();
                text.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Ok(None) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Why there was no answer: the innermost cause says most. Without the URL.
fn reason(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} seconds", TIMEOUT.as_secs());
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    format!("no answer: {cause}")
}

fn client(is_private_allowed: bool) -> reqwest::Client {
    reqwest::Client::builder()
        .timeout(TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would look up names in our place.
        .no_proxy()
        .https_only(!is_private_allowed)
        .pool_max_idle_per_host(PER_PARTNER)
        .pool_idle_timeout(Duration::from_secs(30))
        .dns_resolver(Arc::new(PublicNames { is_private_allowed }))
        .user_agent(concat!("InsForge-Webhooks/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("a client with constant settings can be built")
}

/// Looks up names, and forgets addresses that are not public: what is checked here is what is
/// connected to, whatever the name stands for a moment later.
struct PublicNames {
    is_private_allowed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("the name stands for no public address")]
struct NotPublic;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        let is_private_allowed = self.is_private_allowed;
        Box::pin(async move {
            // The port is the URL's; it is put in later.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found
                .filter(|address| is_private_allowed || is_public(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_this_computer_are_not_connected_to() {
        let ask = |is_private_allowed| {
            PublicNames { is_private_allowed }.resolve("localhost".parse().unwrap())
        };
        let refused = ask(false).await.err().unwrap();
        assert!(refused.is::<NotPublic>(), "{refused}");
        assert!(
            ask(true)
                .await
                .is_ok_and(|mut found| found.next().is_some())
        );
    }

    #[test]
    fn places_are_counted() {
        let (one, other) = (PartnerId::generate(), PartnerId::generate());
        let mut busy = Busy::default();
        for _ in 0..PER_PARTNER {
            busy.take(&one);
        }
        busy.take(&other);
        assert!(!busy.release(&other), "there was room");
        assert!(busy.release(&one), "its places were all taken");
        assert!(!busy.release(&one));
        assert_eq!(busy.all, PER_PARTNER - 2);
        assert!(!busy.of.contains_key(&other));
    }
}
