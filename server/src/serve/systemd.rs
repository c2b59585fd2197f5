//! Sends notifications to the service manager with the protocol of `sd_notify(3)`. If the
//! environment variable NOTIFY_SOCKET is not set, no notification is sent.

use std::time::Duration;

use sd_notify::{NotifyState, notify};

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Reports that the server is ready for requests.
pub(crate) fn ready() {
    send(&[NotifyState::Ready]);
}

/// Reports that the server is reloading files. Call [`ready`] after the reload.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// Reports that the server is stopping.
pub(crate) fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Sends watchdog notifications three times per watchdog interval. Returns immediately if the
/// service manager has not enabled a watchdog for the process. The notifications prove that the
/// async runtime still runs tasks.
pub(super) async fn run_watchdog() {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut interval = tokio::time::interval((timeout / 3).max(Duration::from_millis(1)));
    loop {
        interval.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}
