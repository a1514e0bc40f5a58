//! Names of things at Stripe.

use std::fmt;
use std::str::FromStr;

use cp_model::{FieldError, FieldResult};
use serde::{Deserialize, Serialize};

/// 1 to 255 letters, digits, `_` and `-`. Ids become parts of paths: nothing that means something there gets through.
/// Their prefixes are not looked at; Stripe promises nothing about them.
pub(crate) fn check(field: &'static str, id: &str) -> FieldResult<()> {
    let is_of_an_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if (1..=255).contains(&id.len()) && id.bytes().all(is_of_an_id) {
        Ok(())
    } else {
        let rule = "must be an id of Stripe's: 1 to 255 letters, digits, _ and -";
        Err(FieldError::new(field, rule))
    }
}

macro_rules! stripe_id {
    ($(#[$meta:meta])* $name:ident ($field:literal)) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl TryFrom<String> for $name {
            type Error = FieldError;
            fn try_from(id: String) -> FieldResult<Self> { check($field, &id).map(|()| Self(id)) }
        }
        impl FromStr for $name {
            type Err = FieldError;
            fn from_str(id: &str) -> FieldResult<Self> { id.to_owned().try_into() }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
    };
}

stripe_id!(
    /// `cus_…`: who pays. One for each organization that ever began to.
    CustomerId ("customer")
);
stripe_id!(
    /// `sub_…`: what a customer pays for again and again.
    SubscriptionId ("subscription")
);
