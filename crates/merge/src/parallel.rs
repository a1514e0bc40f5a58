//! Work on two cores at once. A plan reads four large catalogs several times over, and nobody waits for anything then.

/// Both results. The first one's thread is a new one.
///
/// # Panics
/// When one of them does.
pub(crate) fn both<A: Send, B>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B,
) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        match one.join() {
            Ok(one) => (one, other),
            Err(panicked) => std::panic::resume_unwind(panicked),
        }
    })
}
