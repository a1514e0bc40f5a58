//! What an operator may set.

use std::collections::BTreeMap;

use cp_model::Plan;
use secrecy::SecretString;

use super::{config, url};
use crate::{Stripe, StripeConfig};

/// What is refused after a change: field and rule.
fn refusal(change: impl FnOnce(&mut StripeConfig)) -> String {
    let mut config = config();
    change(&mut config);
    Stripe::new(config).err().unwrap().to_string()
}

#[test]
fn a_good_one_is_taken() {
    config().check().unwrap();
    let stand_in = StripeConfig {
        secret_key: SecretString::from("rk_live_1"),
        webhook_secrets: vec![SecretString::from("whsec_1")],
        api_base: url("http://127.0.0.1:12111"),
        success_url: url("http://localhost:3000/paid"),
        cancel_url: url("http://localhost:3000/#plans"),
        return_url: url("http://[::1]:3000/"),
        ..config()
    };
    stand_in.check().unwrap();
    assert!(Stripe::new(stand_in).is_ok());
}

#[test]
fn refusals_name_the_field_and_the_rule_and_no_secret() {
    for (given, rule) in [
        (
            "",
            "must begin with sk_test_ or sk_live_ or rk_test_ or rk_live_",
        ),
        (
            "pk_live_hush",
            "must begin with sk_test_ or sk_live_ or rk_test_ or rk_live_",
        ),
        (
            "sk_live_",
            "must be letters, digits and underscores after its prefix; check that it was copied completely",
        ),
        (
            "sk_live_hush\n",
            "must be letters, digits and underscores after its prefix; check that it was copied completely",
        ),
    ] {
        let refused = refusal(|config| config.secret_key = SecretString::from(given));
        assert_eq!(refused, format!("secret_key {rule}"), "{given:?}");
    }
    let count = "webhook_secrets must be one secret, or two while they are rotated";
    assert_eq!(refusal(|config| config.webhook_secrets.clear()), count);
    assert_eq!(
        refusal(|config| config.webhook_secrets.push(SecretString::from("whsec_3"))),
        count
    );
    assert_eq!(
        refusal(|config| config.webhook_secrets[1] = SecretString::from("hush")),
        "webhook_secrets must begin with whsec_"
    );
}

#[test]
fn every_plan_that_is_paid_for_has_prices_and_no_other() {
    let prices = |prices: &[(Plan, &[&str])]| -> BTreeMap<Plan, Vec<String>> {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        prices
            .iter()
            .map(|(plan, ids)| (*plan, owned(ids)))
            .collect()
    };
    for (given, rule) in [
        (prices(&[]), "must have a price for the plan pro"),
        (
            prices(&[(Plan::Pro, &[])]),
            "must have a price for the plan pro",
        ),
        (
            prices(&[(Plan::Pro, &["price_1"]), (Plan::Free, &["price_0"])]),
            "must have none for the plan free: nobody buys it",
        ),
        (
            prices(&[(Plan::Pro, &["price_1"]), (Plan::Partner, &["price_2"])]),
            "must have none for the plan partner: nobody buys it",
        ),
        (
            prices(&[(Plan::Pro, &["prod_1"])]),
            "must hold ids of prices, like price_1Abc; \"prod_1\" is none",
        ),
        (
            prices(&[(Plan::Pro, &["price_1", "price_1 "])]),
            "must hold ids of prices, like price_1Abc; \"price_1 \" is none",
        ),
        (
            prices(&[(Plan::Pro, &["price_1", "price_2", "price_1"])]),
            "must name each price once; price_1 is twice",
        ),
    ] {
        assert_eq!(
            refusal(|config| config.prices = given),
            format!("prices {rule}")
        );
    }
}

#[test]
fn addresses_are_https_or_of_this_machine() {
    let scheme = "must be an https:// URL, or an http:// URL of this machine";
    for text in [
        "http://insforge.example/",
        "http://127.0.0.1.example.com/",
        "http://192.168.0.1/",
        "ftp://localhost/",
        "data:text/plain,x",
    ] {
        let bad = url(text);
        assert_eq!(
            refusal(|it| it.api_base = bad.clone()),
            format!("api_base {scheme}")
        );
        assert_eq!(
            refusal(|it| it.success_url = bad.clone()),
            format!("success_url {scheme}")
        );
        assert_eq!(
            refusal(|it| it.cancel_url = bad.clone()),
            format!("cancel_url {scheme}")
        );
        assert_eq!(
            refusal(|it| it.return_url = bad.clone()),
            format!("return_url {scheme}")
        );
    }
    assert_eq!(
        refusal(|it| it.api_base = url("https://ada:hush@api.stripe.com/")),
        "api_base must not hold a user name or a password"
    );
    for text in ["https://api.stripe.com/?a=b", "https://api.stripe.com/#a"] {
        assert_eq!(
            refusal(|it| it.api_base = url(text)),
            "api_base must have neither a query (?…) nor a fragment (#…)"
        );
    }
}
