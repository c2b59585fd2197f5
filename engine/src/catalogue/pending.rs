//! Changes that were acknowledged and are not in the tree yet, in a budget of memory.
//!
//! New documents can come faster than the tree takes them in. Writers do not wait for
//! that: puts are let go, and looked for in the log once there is time, as all are after
//! a crash. Deletes are kept, since compaction may take theirs out of the log before.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::catalogue::row::{CatalogueChange, CatalogueKey, key};
use crate::model::names::Names;

/// Memory that a pending change takes besides its key, roughly.
const CHANGE_BYTES: u64 = 128;
/// So long no put may have been let go before those that were are looked for: sooner, and
/// the next ones would be let go again.
const CALM: Duration = Duration::from_millis(200);

pub(super) struct PendingChanges {
    max_bytes: u64,
    /// Acknowledged, and not yet taken by the thread.
    queued: BTreeMap<CatalogueKey, CatalogueChange>,
    queued_bytes: u64,
    /// What is queued has this revision, or a higher one.
    first_queued: u64,
    /// Being put into the tree.
    applying: Arc<BTreeMap<CatalogueKey, CatalogueChange>>,
    behind: Option<CatalogueLag>,
}

/// Puts are in the log only.
#[derive(Clone, Copy)]
struct CatalogueLag {
    /// None that has this revision, or a lower one.
    after: u64,
    /// When one was let go last, while they are.
    let_go: Option<Instant>,
}

impl PendingChanges {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            queued: BTreeMap::new(),
            queued_bytes: 0,
            first_queued: 0,
            applying: Arc::default(),
            behind: None,
        }
    }

    /// Takes up a change; their revisions grow.
    pub(super) fn record(&mut self, names: &Names, revision: u64, change: CatalogueChange) {
        if self.queued.is_empty() {
            if change.is_some() && self.has_let_go() {
                return self.note_let_go();
            }
            self.first_queued = revision;
        }
        let key = key(&names.user, &names.client);
        let bytes = bytes(&key);
        if change.is_some() && self.has_let_go() {
            self.note_let_go();
            // The put is in the log, and what it replaces must not outlive it here.
            if self.queued.remove(&key).is_some() {
                self.queued_bytes -= bytes;
            }
        } else if self.queued.insert(key, change).is_none() {
            self.queued_bytes += bytes;
        }
    }

    fn note_let_go(&mut self) {
        if let Some(behind) = &mut self.behind {
            behind.let_go = Some(Instant::now());
        }
    }

    /// Memory that is taken by what was not handed to the thread yet.
    pub(super) fn bytes(&self) -> u64 {
        self.queued_bytes
    }

    pub(super) fn is_over_budget(&self) -> bool {
        self.queued_bytes > self.max_bytes
    }

    /// Whether it may soon be.
    pub(super) fn is_pressed(&self) -> bool {
        self.queued_bytes > self.max_bytes / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Lets the puts go, from now on too.
    pub(super) fn let_go(&mut self) {
        let after = self.first_queued.saturating_sub(1);
        self.behind = Some(CatalogueLag {
            after: self.behind.map_or(after, |behind| behind.after.min(after)),
            let_go: Some(Instant::now()),
        });
        self.queued.retain(|_, change| change.is_none());
        self.queued_bytes = self.queued.keys().map(bytes).sum();
    }

    /// All puts must be looked for: there is a new tree.
    pub(super) fn restart(&mut self) {
        let let_go = self.behind.and_then(|behind| behind.let_go);
        self.behind = Some(CatalogueLag { after: 0, let_go });
    }

    /// Whether puts must be looked for in the log.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// How long to wait before that makes sense.
    pub(super) fn calm_in(&self) -> Duration {
        self.behind
            .and_then(|behind| behind.let_go)
            .map_or(Duration::ZERO, |at| CALM.saturating_sub(at.elapsed()))
    }

    /// Keeps puts again, and says after which revision they must be looked for.
    pub(super) fn catch_up(&mut self) -> u64 {
        self.behind.as_mut().map_or(u64::MAX, |behind| {
            behind.let_go = None;
            behind.after
        })
    }

    /// Whether a put was let go since [`Self::catch_up`].
    pub(super) fn has_let_go(&self) -> bool {
        self.behind.is_some_and(|behind| behind.let_go.is_some())
    }

    /// All that were looked for are in the tree. Whether none was let go meanwhile.
    pub(super) fn caught_up(&mut self) -> bool {
        if !self.has_let_go() {
            self.behind = None;
        }
        self.behind.is_none()
    }

    /// What is to be put into the tree. It stays pending until [`Self::applied`].
    pub(super) fn take(&mut self) -> Arc<BTreeMap<CatalogueKey, CatalogueChange>> {
        self.applying = Arc::new(std::mem::take(&mut self.queued));
        self.queued_bytes = 0;
        Arc::clone(&self.applying)
    }

    pub(super) fn applied(&mut self) {
        self.applying = Arc::default();
    }

    /// What was being put into the tree is pending as before.
    pub(super) fn put_back(&mut self) {
        let mut restored = Arc::unwrap_or_clone(std::mem::take(&mut self.applying));
        restored.append(&mut self.queued);
        self.queued_bytes = restored.keys().map(bytes).sum();
        self.queued = restored;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.max_bytes);
    }

    /// The changes of keys with this prefix, from `first` on; where there are two of a
    /// key, the newer.
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

    /// The clients of what is pending.
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
    fn puts_are_let_go_and_deletes_are_kept() {
        let mut pending = pending();
        pending.let_go();
        put(&mut pending, "d", 8);
        pending.record(&names("e"), 9, None);
        assert_eq!(clients(&pending), "be");
        assert!(pending.is_behind());
        // The first that was let go had revision 5.
        assert_eq!(pending.catch_up(), 4);
        put(&mut pending, "f", 10);
        assert_eq!(clients(&pending), "bef");
        assert!(pending.caught_up());
    }

    #[test]
    fn a_put_that_is_let_go_takes_the_delete_before_it_along() {
        let mut pending = pending();
        pending.let_go();
        put(&mut pending, "b", 8);
        assert_eq!(clients(&pending), "");
        assert_eq!(pending.queued_bytes, 0);
    }

    #[test]
    fn puts_that_are_let_go_while_others_are_looked_for_are_looked_for_next() {
        let mut pending = pending();
        pending.let_go();
        assert_eq!(pending.catch_up(), 4);
        pending.take();
        pending.applied();
        put(&mut pending, "g", 20);
        pending.let_go();
        assert!(!pending.caught_up());
        // What was looked for is not known to be in the tree.
        assert_eq!(pending.catch_up(), 4);
        assert!(pending.caught_up());
    }
}
