//! Reports in the log that the store has stopped writing.

use std::time::Duration;

use crate::store::{Store, cause};

/// Time between two checks. A check only reads a flag in memory.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a failure has stopped all writes to the store, and logs the failure. Without this,
/// the failure would be logged only when a client writes.
pub(super) async fn report_stop(store: Store) {
    loop {
        if let Err(error) = store.ready() {
            tracing::error!(
                error = format!("{error}{}", cause(&error)),
                "store no longer accepts writes: fix the cause in the field error, and restart prefd"
            );
            return;
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}
