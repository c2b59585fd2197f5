//! Blocking threads, for what touches the disk.

/// Runs `work` on a blocking thread. A panic there goes on here, where it is answered and
/// logged like any other.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task is never cancelled; only a runtime that is going away
            // does not start one, and this future goes away with it.
            Err(_) => std::future::pending().await,
        },
    }
}
