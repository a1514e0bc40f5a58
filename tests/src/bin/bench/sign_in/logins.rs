//! A login is 20 ms of arithmetic. Two hundred at once should not be felt by anybody else.

use std::time::Duration;

use cp_tests::Answer;
use cp_tests::programs::Dev;
use reqwest::Client;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ours::demo_user;
use crate::at_most;
use crate::report::Row;

const LOGINS: usize = 200;
/// As often, so that there are enough profiles for a percentile.
const ROUNDS: usize = 3;
const BETWEEN_PROFILES: Duration = Duration::from_millis(10);

/// How long profiles take that are asked for a hundred times a second while the logins run.
pub async fn profile_meanwhile(dev: &Dev, tokens: &[String]) -> Row {
    // Profiles do not come through the connections on which logins wait.
    let (for_logins, for_profiles) = (client(), client());
    let url = format!("{}/auth/v1/profile", dev.partner.base_url);
    let mut tokens = tokens.iter().cycle();
    let mut times = Vec::new();
    let mut slowest_round = Duration::ZERO;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let logins = tokio::spawn(all_at_once(dev, &for_logins));
        let mut profiles = JoinSet::new();
        let mut clock = tokio::time::interval(BETWEEN_PROFILES);
        while !logins.is_finished() {
            let due = clock.tick().await;
            let token = tokens.next().expect("there are access tokens");
            let request = for_profiles.get(&url).bearer_auth(token);
            profiles.spawn(async move {
                Answer::to(request).await.expect(200);
                // From when it was due: what holds this program up counts too.
                due.elapsed().as_secs_f64() * 1000.0
            });
        }
        logins.await.expect("all people can log in");
        slowest_round = slowest_round.max(began.elapsed());
        times.extend(profiles.join_all().await);
    }
    times.sort_by(f64::total_cmp);
    let percentile = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
    let detail = format!(
        "median {:.1} ms, worst {:.1} ms of {}; {LOGINS} logins took {:.1} s",
        percentile(50),
        percentile(100),
        times.len(),
        slowest_round.as_secs_f64()
    );
    let name = format!("profile p99 during {LOGINS} logins");
    at_most(&name, percentile(99), "ms", 50.0, 50.0, detail)
}

fn client() -> Client {
    Client::builder()
        .no_proxy()
        .build()
        .expect("a client can be built")
}

/// The demo user logs in on two hundred devices.
fn all_at_once(dev: &Dev, client: &Client) -> impl Future<Output = ()> + Send + use<> {
    let user = demo_user(dev);
    let body = json!({ "email": user.email, "password": user.password });
    let request = client
        .post(format!("{}/auth/v1/login", dev.partner.base_url))
        .json(&body);
    async move {
        let mut logins = JoinSet::new();
        for _ in 0..LOGINS {
            let request = request.try_clone().expect("its body is bytes");
            logins.spawn(async move {
                Answer::to(request).await.expect(200);
            });
        }
        logins.join_all().await;
    }
}
