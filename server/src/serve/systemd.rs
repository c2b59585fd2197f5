//! What the service manager is told, where one has started this process
//! (`sd_notify(3)`); nothing anywhere else.

use std::time::Duration;

use sd_notify::{NotifyState, notify};

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = notify(state) {
        tracing::warn!(%error, "the service manager cannot be told how things are");
    }
}

/// Requests are answered.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Files are read anew; [`ready`] ends it.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// What is in flight ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Says that tasks are still carried on, as often as the service manager wants to hear it.
pub(super) async fn keep_watched() {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut turn = tokio::time::interval((patience / 3).max(Duration::from_millis(1)));
    loop {
        turn.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}
