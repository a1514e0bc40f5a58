//! Amounts for people.

/// Currencies without a smaller unit, and those with three digits of it
/// (<https://docs.stripe.com/currencies#zero-decimal>). Stripe counts `isk` and `ugx` in hundredths, although nobody
/// pays in them.
const NO_DIGITS: [&str; 15] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf",
    "xof", "xpf",
];
const THREE_DIGITS: [&str; 5] = ["bhd", "jod", "kwd", "omr", "tnd"];

const SIGNS: [(&str, &str); 8] = [
    ("usd", "$"),
    ("eur", "€"),
    ("gbp", "£"),
    ("jpy", "¥"),
    ("krw", "₩"),
    ("inr", "₹"),
    ("cad", "CA$"),
    ("aud", "A$"),
];

/// `$25.00` of 2500 and `usd`; `¥2500` of 2500 and `jpy`; `25.00 XYZ` where we know no sign; `-$5.00` of -500.
///
/// `cents` is in the currency's smallest unit, as Stripe counts it; `currency` is ISO 4217 in either case.
pub fn fmt_amount(cents: i64, currency: &str) -> String {
    let currency = currency.to_ascii_lowercase();
    let digits = if NO_DIGITS.contains(&currency.as_str()) {
        0
    } else if THREE_DIGITS.contains(&currency.as_str()) {
        3
    } else {
        2
    };
    let minus = if cents < 0 { "-" } else { "" };
    let unit = 10_u64.pow(digits);
    let (whole, rest) = (cents.unsigned_abs() / unit, cents.unsigned_abs() % unit);
    let number = match digits {
        0 => whole.to_string(),
        digits => format!("{whole}.{rest:0width$}", width = digits as usize),
    };
    match SIGNS.iter().find(|(code, _)| *code == currency) {
        Some((_, sign)) => format!("{minus}{sign}{number}"),
        None => format!("{minus}{number} {}", currency.to_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_as_people_write_them() {
        for (cents, currency, expected) in [
            (2500, "usd", "$25.00"),
            (2500, "USD", "$25.00"),
            (0, "usd", "$0.00"),
            (5, "usd", "$0.05"),
            (-500, "usd", "-$5.00"),
            (-1, "eur", "-€0.01"),
            (123_456_789, "gbp", "£1234567.89"),
            (2500, "jpy", "¥2500"),
            (25000, "krw", "₩25000"),
            (-7, "jpy", "-¥7"),
            (300, "clp", "300 CLP"),
            (500, "ugx", "5.00 UGX"),
            (5120, "kwd", "5.120 KWD"),
            (2500, "xyz", "25.00 XYZ"),
            (-2500, "xyz", "-25.00 XYZ"),
            (i64::MIN, "usd", "-$92233720368547758.08"),
            (i64::MAX, "jpy", "¥9223372036854775807"),
        ] {
            assert_eq!(fmt_amount(cents, currency), expected);
        }
    }
}
