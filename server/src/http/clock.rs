//! The wall clock, which tests can replace.

use std::time::SystemTime;

/// The source of the current time for the responses of a listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(fn() -> SystemTime);

impl Clock {
    /// The clock of the operating system.
    pub(crate) const SYSTEM: Self = Self(SystemTime::now);

    #[cfg(feature = "fuzzing")]
    pub(crate) const fn new(now: fn() -> SystemTime) -> Self {
        Self(now)
    }

    pub(crate) fn now(self) -> SystemTime {
        (self.0)()
    }
}
