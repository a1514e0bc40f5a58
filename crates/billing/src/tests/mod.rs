//! Against a real HTTP server that plays Stripe ([`stand_in`]).

mod config;
mod customers;
mod faults;
mod reads;
mod sessions;
mod silence;
mod webhooks;

use std::collections::BTreeMap;
use std::time::Duration;

use cp_model::Plan;
use secrecy::SecretString;
use url::Url;

use crate::http::Times;
use crate::stand_in::{KEY, StandIn};
use crate::{CustomerId, Stripe, StripeConfig};

const SECRET: &str = "whsec_current";
const OLD_SECRET: &str = "whsec_former";

fn url(text: &str) -> Url {
    text.parse().unwrap()
}

fn config() -> StripeConfig {
    StripeConfig {
        secret_key: SecretString::from(KEY),
        webhook_secrets: vec![SecretString::from(SECRET), SecretString::from(OLD_SECRET)],
        prices: BTreeMap::from([(
            Plan::Pro,
            vec!["price_pro".to_owned(), "price_pro_2024".to_owned()],
        )]),
        api_base: url(StripeConfig::API_BASE),
        success_url: url("https://insforge.example/billing?paid={CHECKOUT_SESSION_ID}"),
        cancel_url: url("https://insforge.example/billing"),
        return_url: url("https://insforge.example/settings"),
    }
}

/// As in production, but that no test waits for a pause.
fn times() -> Times {
    Times {
        pause: Duration::from_millis(1),
        ..Times::default()
    }
}

fn stripe(stand_in: &StandIn) -> Stripe {
    stripe_with(stand_in, times())
}

fn stripe_with(stand_in: &StandIn, times: Times) -> Stripe {
    let config = StripeConfig {
        api_base: stand_in.url.clone(),
        ..config()
    };
    Stripe::with_times(config, times).unwrap()
}

fn customer(id: &str) -> CustomerId {
    id.parse().unwrap()
}
