//! The interface between the engine and the system clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// A source of the current time.
///
/// The time may be wrong, may stand still, and may go backwards. Tests set
/// [`crate::Config::clock`] to a clock that they control.
pub trait Clock: Send + Sync {
    /// Returns the current time in milliseconds since 1970-01-01 UTC. Never blocks.
    fn now_ms(&self) -> u64;
}

/// The clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            })
    }
}
