//! Counters that any thread may add to: what has happened, and how many there are now.
//!
//! **Architecture Invariant:** this is the ground floor. It imports nothing from the
//! rest of the crate.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that only grows.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many there are of something now.
#[derive(Default)]
pub(crate) struct Gauge(AtomicU64);

/// One of those that a [`Gauge`] counts, until it is dropped.
pub(crate) struct Counted<'a>(&'a Gauge);

impl Gauge {
    pub(crate) fn count(&self) -> Counted<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
