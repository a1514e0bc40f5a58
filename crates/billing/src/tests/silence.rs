//! Secrets are never printed.

use std::fmt::{Debug, Display};

/// Compiles only while the type implements neither `Debug` nor `Display`: with one of them, two implementations of
/// `Silent` fit and the compiler refuses to choose.
macro_rules! assert_silent {
    ($($type:ty),+ $(,)?) => {$({
        trait Silent<Marker> {
            fn is_silent() -> bool {
                true
            }
        }
        struct IfDebug;
        struct IfDisplay;
        impl<T: ?Sized> Silent<()> for T {}
        impl<T: ?Sized + Debug> Silent<IfDebug> for T {}
        impl<T: ?Sized + Display> Silent<IfDisplay> for T {}
        let _ = (IfDebug, IfDisplay);
        assert!(<$type as Silent<_>>::is_silent());
    })+};
}

#[test]
fn nothing_that_holds_a_secret_can_be_printed() {
    assert_silent!(crate::StripeConfig, crate::Stripe, crate::http::Http);
}
