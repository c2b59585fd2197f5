//! Blocking threads, for calls that access the disk.

/// Runs `work` on a blocking thread. If `work` panics, the panic continues in the calling task,
/// where it is logged and gets a response like any other panic.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task is never cancelled. A runtime that is shutting down does not start
            // new tasks, but it also drops this future.
            Err(_) => std::future::pending().await,
        },
    }
}
