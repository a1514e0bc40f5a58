//! "Sign in with InsForge": refreshes and introspections against node's oidc-provider, profiles
//! against what Postgres can do, and whether logins stand in the way of other requests.
//!
//! Both OAuth servers run on this machine and on the same Postgres server, and are asked in turn:
//! as many sign-ins of one person, the same requests, the same load. Access tokens are of each
//! server's own kind: ours are signed, and their sign-in is looked up at each use; theirs are opaque
//! and looked up with their grant.

mod load;
mod logins;
mod ours;
mod theirs;

use cp_tests::programs::Dev;
use load::{Caller, Family, Introspector, per_second};
use theirs::OidcProvider;

use crate::at_least;
use crate::load::{pgbench_selects, prepare_pgbench, wrk_with};
use crate::report::Row;

/// Newest access tokens of each family that are introspected in turn.
const INTROSPECTED: usize = 100;
/// Those whose profile is asked for: many, since each may ask 100 times a minute only.
const PROFILED: usize = 300;

pub async fn measure(dev: &Dev) -> Vec<Row> {
    let ours = ours::families(dev).await;
    let (oidc_provider, theirs) = OidcProvider::start(dev).await;
    let (refreshes, ours, theirs) = in_turn(ours, theirs).await;
    let introspectors = (introspectors(&ours), introspectors(&theirs));
    let (introspections, ..) = in_turn(introspectors.0, introspectors.1).await;
    let node = oidc_provider.stop().await;

    let tokens = newest(&ours, PROFILED);
    vec![
        refreshes.row("refresh grants / node oidc-provider", &node),
        introspections.row("introspection / node oidc-provider", &node),
        profile(dev, &tokens),
        logins::profile_meanwhile(dev, &tokens).await,
    ]
}

/// Requests per second.
struct Rates {
    ours: f64,
    theirs: f64,
}

impl Rates {
    fn row(&self, name: &str, node: &str) -> Row {
        let Self { ours, theirs } = self;
        let detail = format!("{ours:.0}/s against {theirs:.0}/s (node {node})");
        at_least(name, ours / theirs, "x", 4.0, 4.0, detail)
    }
}

/// Ours, theirs, ours again: what happens to the machine meanwhile happens to both.
async fn in_turn<C: Caller>(ours: Vec<C>, theirs: Vec<C>) -> (Rates, Vec<C>, Vec<C>) {
    let (first, ours) = per_second(ours).await;
    let (their_rate, theirs) = per_second(theirs).await;
    let (second, ours) = per_second(ours).await;
    let rates = Rates {
        ours: f64::midpoint(first, second),
        theirs: their_rate,
    };
    (rates, ours, theirs)
}

fn introspectors(families: &[Family]) -> Vec<Introspector> {
    let one = |family: &Family| Introspector {
        server: family.server.clone(),
        access_tokens: newest(std::slice::from_ref(family), INTROSPECTED),
        asked: 0,
    };
    families.iter().map(one).collect()
}

/// The newest access tokens, at most so many of each family.
fn newest(families: &[Family], most: usize) -> Vec<String> {
    families
        .iter()
        .flat_map(|family| family.access_tokens.iter().rev().take(most).cloned())
        .collect()
}

/// `GET /auth/v1/profile` against `pgbench -S` on the same Postgres.
fn profile(dev: &Dev, tokens: &[String]) -> Row {
    let file = dev.home().path().join("access-tokens");
    std::fs::write(&file, tokens.join("\n")).expect("tokens can be written down");
    let script = format!(
        r#"
        local requests, sent = {{}}, 0
        function init()
          for token in io.lines("{}") do
            requests[#requests + 1] = wrk.format("GET", nil, {{ Authorization = "Bearer " .. token }})
          end
        end
        function request()
          sent = sent + 1
          return requests[sent % #requests + 1]
        end
        "#,
        file.display()
    );
    let database = dev.database_url();
    prepare_pgbench(&database);
    let ours = wrk_with(dev, &script, "/auth/v1/profile");
    let base = pgbench_selects(&database);
    let again = wrk_with(dev, &script, "/auth/v1/profile");
    let ours = f64::midpoint(ours, again);
    let detail = format!("{ours:.0}/s against {base:.0} transactions/s");
    let name = "profile / pgbench -S prepared";
    at_least(name, ours / base, "x", 0.15, 0.15, detail)
}
