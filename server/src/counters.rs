//! Counters and gauges that any thread may update without a lock.
//!
//! **Architecture Invariant:** this is one of the lowest layers. This layer imports nothing from
//! the rest of the crate.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number of events. It only grows.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The current number of something, such as open connections.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

/// A guard that counts as one in a [`Gauge`] until the guard is dropped.
pub(crate) struct GaugeGuard<'a>(&'a Gauge);

impl Gauge {
    /// Adds one to the gauge. Dropping the guard subtracts one.
    pub(crate) fn enter(&self) -> GaugeGuard<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        GaugeGuard(self)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
