//! Values that may come as text: the environment has nothing else. Texts, numbers and booleans of
//! the file are read through `FromStr`, too, so that both have one form and one error.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::str::FromStr;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

pub(super) fn scalar<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    deserializer.deserialize_any(Scalar(PhantomData))
}

pub(super) fn optional_scalar<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: Display,
{
    scalar(deserializer).map(Some)
}

/// Cannot fail on a scalar, so no error can repeat a secret.
pub(super) fn optional_secret<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretString>, D::Error> {
    let text: String = scalar(deserializer)?;
    Ok(Some(text.into()))
}

pub(super) fn secrets<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SecretString>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)
        .map_err(|_| D::Error::custom("must be a list of texts"))?;
    Ok(texts.into_iter().map(SecretString::from).collect())
}

struct Scalar<T>(PhantomData<T>);

impl<T> Visitor<'_> for Scalar<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, true or false")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(if value { "true" } else { "false" })
    }
}
