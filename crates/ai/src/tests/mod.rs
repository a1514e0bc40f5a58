mod analysis;
mod openrouter;
mod server;

use secrecy::SecretString;

use crate::OpenRouterConfig;
use server::Server;

const KEY: &str = "sk-or-v1-provisioning-0123456789";

fn config(server: &Server) -> OpenRouterConfig {
    OpenRouterConfig {
        provisioning_key: SecretString::from(KEY),
        api_base: format!("{}/api/v1", server.url).parse().unwrap(),
    }
}

/// Autoref: the method of the trait is taken only where there is no inherent one, so this compiles for both.
#[test]
fn what_holds_a_secret_cannot_be_written_out() {
    struct Probe<T>(std::marker::PhantomData<T>);
    trait Unwritable {
        fn is_written(&self) -> bool {
            false
        }
    }
    impl<T> Unwritable for Probe<T> {}
    impl<T: std::fmt::Debug> Probe<T> {
        #[allow(clippy::unused_self, reason = "the same shape as the trait's")]
        fn is_written(&self) -> bool {
            true
        }
    }
    use std::marker::PhantomData;
    assert!(Probe::<String>(PhantomData).is_written());
    assert!(!Probe::<OpenRouterConfig>(PhantomData).is_written());
    assert!(!Probe::<crate::OpenRouter>(PhantomData).is_written());
    assert!(!Probe::<crate::MadeKey>(PhantomData).is_written());
    assert!(!Probe::<crate::AnalystConfig>(PhantomData).is_written());
    assert!(!Probe::<crate::Analyst>(PhantomData).is_written());
}
