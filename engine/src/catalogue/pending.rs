//! Keeps committed changes in memory until the worker has written them to the catalogue's tree. A
//! budget limits the memory that these pending changes use.
//!
//! Documents can be created faster than sled inserts entries, but writers should not wait for sled.
//! Therefore, if the budget is exceeded while no listing is waiting, queued puts are dropped
//! ("shed"), and later puts are not recorded until the worker starts to catch up. After puts are
//! shed, the catalogue lags behind the log. The worker catches up by searching the log for the shed
//! puts. Deletes are not shed, because compaction may remove a tombstone from the log before the
//! worker finds it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalogue::row::{CatalogueChange, CatalogueKey, key};
use crate::model::names::Names;

/// Approximate memory that a pending change uses in addition to its key, in bytes.
const CHANGE_BYTES: u64 = 128;
/// Time that must pass after the last shed put before the worker starts to catch up, unless a
/// listing is waiting. If the worker started earlier, more puts would probably be shed during the
/// catch-up, and the worker would have to start again.
const SHED_COOLDOWN: Duration = Duration::from_millis(200);

/// The pending changes of the catalogue.
pub(super) struct PendingChanges {
    max_bytes: u64,
    /// Changes that the worker has not yet started to write to the tree.
    queued: BTreeMap<CatalogueKey, CatalogueChange>,
    queued_bytes: u64,
    /// The revision of the first change that was queued since the queue was last empty. No queued
    /// change has a revision below `first_queued`, except changes that [`Self::abort_apply`]
    /// returned to the queue. After an abort, the catalogue is rebuilt from the entire log, so that
    /// no change is missed.
    first_queued: u64,
    /// Changes that the worker is writing to the tree.
    applying: Arc<BTreeMap<CatalogueKey, CatalogueChange>>,
    /// Describes the puts that are neither pending nor in the tree. `None` if no puts are missing.
    lag: Option<CatalogueLag>,
}

/// Describes the missing puts, which are in the log, but are neither pending nor in the tree.
#[derive(Clone, Copy)]
struct CatalogueLag {
    /// The revision of every missing put is higher than `after`.
    after: u64,
    /// The time at which a put was last shed. `None` while puts are recorded.
    last_shed: Option<Instant>,
}

impl PendingChanges {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            queued: BTreeMap::new(),
            queued_bytes: 0,
            first_queued: 0,
            applying: Arc::default(),
            lag: None,
        }
    }

    /// Records a change. Each call must pass a higher revision than the previous call.
    pub(super) fn record(&mut self, names: &Names, revision: u64, change: CatalogueChange) {
        if self.queued.is_empty() {
            if change.is_some() && self.is_shedding() {
                return self.note_shed();
            }
            self.first_queued = revision;
        }
        let key = key(&names.user, &names.client);
        let bytes = bytes(&key);
        if change.is_some() && self.is_shedding() {
            self.note_shed();
            // The put is shed. An older queued change of the same key is also dropped, because
            // applying it later would override the shed put, which the worker finds in the log.
            if self.queued.remove(&key).is_some() {
                self.queued_bytes -= bytes;
            }
        } else if self.queued.insert(key, change).is_none() {
            self.queued_bytes += bytes;
        }
    }

    /// Records that a put was shed, which restarts the cooldown.
    fn note_shed(&mut self) {
        if let Some(lag) = &mut self.lag {
            lag.last_shed = Some(Instant::now());
        }
    }

    /// Returns the approximate memory of the queued changes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Returns true if the queued changes exceed the budget.
    pub(super) fn is_over_budget(&self) -> bool {
        self.queued_bytes > self.max_bytes
    }

    /// Returns true if the queued changes use more than half of the budget.
    pub(super) fn is_under_pressure(&self) -> bool {
        self.queued_bytes > self.max_bytes / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Drops the queued puts, and stops recording puts until [`Self::begin_catch_up`] is called.
    pub(super) fn shed_puts(&mut self) {
        let after = self.first_queued.saturating_sub(1);
        self.lag = Some(CatalogueLag {
            after: self.lag.map_or(after, |lag| lag.after.min(after)),
            last_shed: Some(Instant::now()),
        });
        self.queued.retain(|_, change| change.is_none());
        self.queued_bytes = self.queued.keys().map(bytes).sum();
    }

    /// Marks all puts as missing, so that the worker searches the entire log.
    pub(super) fn require_full_scan(&mut self) {
        let last_shed = self.lag.and_then(|lag| lag.last_shed);
        self.lag = Some(CatalogueLag {
            after: 0,
            last_shed,
        });
    }

    /// Returns true if puts are missing and the worker must find them in the log.
    pub(super) fn is_lagging(&self) -> bool {
        self.lag.is_some()
    }

    /// Returns the time to wait before the worker should start to catch up.
    pub(super) fn cooldown(&self) -> Duration {
        self.lag
            .and_then(|lag| lag.last_shed)
            .map_or(Duration::ZERO, |at| {
                SHED_COOLDOWN.saturating_sub(at.elapsed())
            })
    }

    /// Starts to record puts again. Returns the revision after which the log must be searched for
    /// missing puts.
    pub(super) fn begin_catch_up(&mut self) -> u64 {
        self.lag.as_mut().map_or(u64::MAX, |lag| {
            lag.last_shed = None;
            lag.after
        })
    }

    /// Returns true if a put was shed after the last call to [`Self::begin_catch_up`].
    pub(super) fn is_shedding(&self) -> bool {
        self.lag.is_some_and(|lag| lag.last_shed.is_some())
    }

    /// Ends a catch-up that has written all puts after the revision `after` to the tree. Returns
    /// true if the catalogue is complete, and false if more puts were shed during the catch-up, or
    /// if a search of the entire log was required during it.
    pub(super) fn finish_catch_up(&mut self, after: u64) -> bool {
        self.lag
            .take_if(|lag| lag.last_shed.is_none() && lag.after >= after);
        self.lag.is_none()
    }

    /// Returns the changes to write to the tree. The changes stay pending until
    /// [`Self::finish_apply`] is called.
    pub(super) fn begin_apply(&mut self) -> Arc<BTreeMap<CatalogueKey, CatalogueChange>> {
        self.applying = Arc::new(std::mem::take(&mut self.queued));
        self.queued_bytes = 0;
        Arc::clone(&self.applying)
    }

    /// Drops the changes that were written to the tree.
    pub(super) fn finish_apply(&mut self) {
        self.applying = Arc::default();
    }

    /// Puts the changes that were being written to the tree back into the queue. Call this function
    /// if writing the changes has failed.
    pub(super) fn abort_apply(&mut self) {
        let mut restored = Arc::unwrap_or_clone(std::mem::take(&mut self.applying));
        restored.append(&mut self.queued);
        self.queued_bytes = restored.keys().map(bytes).sum();
        self.queued = restored;
    }

    /// Drops all changes.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max_bytes);
    }

    /// Returns the pending changes whose keys begin with `prefix`, starting at `first`. If a key
    /// has two pending changes, the newer change is returned.
    pub(super) fn range(
        &self,
        prefix: &[u8],
        first: &Bound<CatalogueKey>,
    ) -> BTreeMap<CatalogueKey, CatalogueChange> {
        let range = (first.as_ref(), Bound::Unbounded);
        [&*self.applying, &self.queued]
            .into_iter()
            .flat_map(|changes| {
                changes
                    .range::<CatalogueKey, _>(range)
                    .take_while(|(key, _)| key.starts_with(prefix))
            })
            .map(|(key, change)| (key.clone(), *change))
            .collect()
    }
}

/// Returns the approximate memory of a pending change, in bytes.
fn bytes(key: &CatalogueKey) -> u64 {
    key.len() as u64 + CHANGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::row::CatalogueValue;
    use crate::model::limits::Usage;

    fn names(client: &str) -> Names {
        Names::new("u", client).unwrap()
    }

    fn put(pending: &mut PendingChanges, client: &str, revision: u64) {
        let value = CatalogueValue {
            revision,
            modified_ms: 0,
            usage: Usage::default(),
        };
        pending.record(&names(client), revision, Some(value));
    }

    /// Returns the clients of all pending changes.
    fn clients(pending: &PendingChanges) -> String {
        let all = pending.range(b"", &Bound::Unbounded);
        let client = |key: &CatalogueKey| key.last().copied().map(char::from);
        all.keys().filter_map(client).collect()
    }

    fn pending() -> PendingChanges {
        let mut pending = PendingChanges::new(1000);
        put(&mut pending, "a", 5);
        pending.record(&names("b"), 6, None);
        put(&mut pending, "c", 7);
        pending
    }

    #[test]
    fn over_budget_puts_are_shed_and_deletes_kept() {
        let mut pending = pending();
        pending.shed_puts();
        put(&mut pending, "d", 8);
        pending.record(&names("e"), 9, None);
        assert_eq!(clients(&pending), "be");
        assert!(pending.is_lagging());
        // The first shed put has revision 5, so every missing put has a revision above 4.
        assert_eq!(pending.begin_catch_up(), 4);
        put(&mut pending, "f", 10);
        assert_eq!(clients(&pending), "bef");
        assert!(pending.finish_catch_up(4));
    }

    #[test]
    fn shed_put_drops_the_queued_delete_of_the_same_key() {
        let mut pending = pending();
        pending.shed_puts();
        put(&mut pending, "b", 8);
        assert_eq!(clients(&pending), "");
        assert_eq!(pending.queued_bytes, 0);
    }

    #[test]
    fn puts_shed_during_catch_up_need_another_catch_up() {
        let mut pending = pending();
        pending.shed_puts();
        assert_eq!(pending.begin_catch_up(), 4);
        pending.begin_apply();
        pending.finish_apply();
        put(&mut pending, "g", 20);
        pending.shed_puts();
        assert!(!pending.finish_catch_up(4));
        // The first attempt to catch up did not complete, so the second attempt starts at the same
        // revision.
        assert_eq!(pending.begin_catch_up(), 4);
        assert!(pending.finish_catch_up(4));
    }

    #[test]
    fn full_scan_required_during_catch_up_is_not_lost() {
        let mut pending = pending();
        pending.shed_puts();
        assert_eq!(pending.begin_catch_up(), 4);
        pending.require_full_scan();
        assert!(!pending.finish_catch_up(4));
        assert_eq!(pending.begin_catch_up(), 0);
        assert!(pending.finish_catch_up(0));
    }
}
