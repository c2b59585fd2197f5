//! Blocking threads, for calls that access the disk.

/// Runs `work` on a blocking thread. If `work` panics, the panic is resumed in the calling task,
/// which handles it like its own panics.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A blocking task is cancelled only if it has not started when the runtime shuts down.
            // The shutdown also drops this future.
            Err(_) => std::future::pending().await,
        },
    }
}
