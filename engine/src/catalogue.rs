//! The catalogue: what belongs to a user, in order, with its sizes.
//!
//! It is derived from the log and written behind the acknowledgement: a change is
//! pending until the catalogue's thread has put it into the tree, and pending changes
//! override what that says, so that a listing sees every acknowledged write. sled
//! never decides anything: where it fails, panics, or is not exactly what the last
//! clean close left, it is thrown away and built again, and listings wait for that.

pub(crate) mod audit;
pub(crate) mod marker;
mod pending;
pub(crate) mod row;
pub(crate) mod state;
mod throttle;
mod tree;
mod worker;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::row::{CatalogueChange, CatalogueKey, CatalogueValue, key, parts, text};
use crate::catalogue::state::{
    CatalogueClose, CatalogueCore, CataloguePhase, CatalogueState, DocumentSource,
};
use crate::catalogue::tree::TreeError;
use crate::catalogue::worker::CatalogueWorker;
use crate::model::error::{Error, Result};
use crate::model::names::Names;
use crate::model::stat::Stat;

/// A namespace of a user, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The namespace's client.
    pub client: String,
    /// The document's revision, time and size.
    pub stat: Stat,
}

/// What all documents of a user take together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserUsage {
    /// Namespaces that hold a document.
    pub namespaces: u64,
    /// Members of all of them.
    pub keys: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

pub(crate) struct Catalogue {
    core: Arc<CatalogueCore>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Catalogue {
    /// None: listings fail, and nothing is recorded. In the folder may be what an earlier
    /// life left.
    pub(crate) fn none(dir: &Path) -> Self {
        let phase = CataloguePhase::Failed("it is switched off".to_owned());
        Self {
            core: Arc::new(CatalogueCore::new(dir, 0, 0, phase)),
            thread: Mutex::default(),
        }
    }

    /// Opens it in the background. `identity` is what it must stand for, as its last
    /// clean close wrote it down; otherwise it is rebuilt from `source`.
    pub(crate) fn open(
        dir: &Path,
        cache_bytes: u64,
        max_pending_bytes: u64,
        identity: CatalogueIdentity,
        source: DocumentSource,
    ) -> Result<Self> {
        let core = CatalogueCore::new(
            dir,
            cache_bytes,
            max_pending_bytes,
            CataloguePhase::Building,
        );
        let core = Arc::new(core);
        let keeper = CatalogueWorker {
            core: Arc::clone(&core),
            source,
        };
        let thread = std::thread::Builder::new()
            .name("prefd-catalogue".to_owned())
            .spawn(move || {
                let core = Arc::clone(&keeper.core);
                // Were it to end by a panic, listings would wait for it for ever.
                if catch_unwind(AssertUnwindSafe(|| keeper.run(identity))).is_err() {
                    core.give_up("its thread panicked".to_owned());
                }
            })
            .map_err(|error| Error::io("start a thread for", dir, error))?;
        Ok(Self {
            core,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes up changes that are about to be acknowledged, with their revisions. Never
    /// waits for sled; whether the next ones should.
    pub(crate) fn record<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Names, u64, CatalogueChange)>,
    ) -> bool {
        let mut state = self.core.lock();
        if matches!(state.phase, CataloguePhase::Failed(_)) {
            return false;
        }
        let was_empty = state.pending.is_empty();
        let was_behind = state.pending.is_behind();
        for (names, revision, change) in changes {
            state.pending.record(names, revision, change);
        }
        // Where a listing waits, writers do: otherwise it might for ever.
        if state.pending.is_over_budget() && state.listings == 0 {
            state.pending.let_go();
            if matches!(state.phase, CataloguePhase::Ready) {
                state.phase = CataloguePhase::Building;
            }
        }
        let is_over_budget = state.pending.is_over_budget();
        let is_news = was_empty != state.pending.is_empty()
            || was_behind != state.pending.is_behind()
            || is_over_budget;
        drop(state);
        // A wake-up takes longer than a write that need not be synced.
        if is_news {
            self.core.changed.notify_all();
        }
        is_over_budget
    }

    /// Memory that pending changes take.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.core.lock().pending.bytes()
    }

    /// Waits until the pending changes are within their budget: where puts are let go,
    /// there are too many deletes, or a listing waits.
    pub(crate) fn wait_for_room(&self) {
        let state = self.core.lock();
        drop(self.core.wait_while(state, |state| {
            state.pending.is_over_budget()
                && !matches!(state.phase, CataloguePhase::Failed(_))
                && state.closing.is_none()
        }));
    }

    /// Up to `limit` namespaces of `user` that come after the client `after`, in the
    /// order of the clients' bytes. Waits for a rebuild.
    pub(crate) fn list(
        &self,
        user: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CatalogueEntry>> {
        let mut entries = Vec::new();
        if limit > 0 {
            self.scan_user(user, after, |entry| {
                entries.push(entry);
                entries.len() < limit
            })?;
        }
        Ok(entries)
    }

    /// Up to `limit` namespaces that come after the namespace `after`, in the order of the
    /// users' bytes, then the clients'. Waits for a rebuild.
    pub(crate) fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        let mut entries = Vec::new();
        if limit > 0 {
            let first = match after {
                Some((user, client)) => Bound::Excluded(key(user, client)),
                None => Bound::Included(CatalogueKey::new()),
            };
            self.scan(&[], first, |key, value| {
                let (user, client) = parts(key);
                entries.push((text(user), entry(client, value)));
                entries.len() < limit
            })?;
        }
        Ok(entries)
    }

    /// The sums over all namespaces of `user`. Waits for a rebuild.
    pub(crate) fn usage(&self, user: &str) -> Result<UserUsage> {
        let mut sum = UserUsage::default();
        self.scan_user(user, None, |CatalogueEntry { stat, .. }| {
            sum.namespaces += 1;
            sum.keys += u64::from(stat.usage.keys);
            sum.bytes += stat.usage.bytes;
            true
        })?;
        Ok(sum)
    }

    /// Visits a user's namespaces in order until `visit` says that it has enough.
    fn scan_user(
        &self,
        user: &str,
        after: Option<&str>,
        mut visit: impl FnMut(CatalogueEntry) -> bool,
    ) -> Result<()> {
        let prefix = key(user, "");
        let first = match after {
            Some(client) => Bound::Excluded(key(user, client)),
            None => Bound::Included(prefix.clone()),
        };
        self.scan(&prefix, first, |key, value| {
            visit(entry(parts(key).1, value))
        })
    }

    /// Visits the namespaces from `first` on whose keys begin with `prefix`, in order, until
    /// `visit` says that it has enough.
    fn scan(
        &self,
        prefix: &[u8],
        first: Bound<CatalogueKey>,
        mut visit: impl FnMut(&[u8], CatalogueValue) -> bool,
    ) -> Result<()> {
        // Before the tree is looked at: what leaves the pending changes meanwhile is
        // in the tree by then.
        let pending = self.pending(prefix, &first)?;
        let tree = self
            .core
            .tree
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(tree) = &*tree else {
            return Err(unavailable("it is being rebuilt"));
        };
        let mut pending = pending.into_iter().peekable();
        let mut stored = tree.range(first, prefix);
        loop {
            let next = stored
                .next()
                .transpose()
                .map_err(|failure| self.fail(failure))?;
            // Pending changes that come before it are of namespaces that the tree does
            // not have; one of the same namespace replaces it.
            while let Some((key, change)) =
                pending.next_if(|(key, _)| next.as_ref().is_none_or(|(at, _)| key < at))
            {
                if change.is_some_and(|value| !visit(&key, value)) {
                    return Ok(());
                }
            }
            let Some((key, value)) = next else {
                return Ok(());
            };
            let change = match pending.next_if(|(pending, _)| *pending == key) {
                Some((_, change)) => change,
                None => Some(value),
            };
            if change.is_some_and(|value| !visit(&key, value)) {
                return Ok(());
            }
        }
    }

    /// A read that failed cannot be mended: the thread builds the tree again.
    fn fail(&self, TreeError(reason): TreeError) -> Error {
        let error = unavailable(&reason);
        self.core.lock().read_failure = Some(reason);
        self.core.changed.notify_all();
        error
    }

    /// The pending changes of a user from `first` on, once there is a tree that they
    /// can override.
    fn pending(
        &self,
        prefix: &[u8],
        first: &Bound<CatalogueKey>,
    ) -> Result<BTreeMap<CatalogueKey, CatalogueChange>> {
        let mut state = self.core.lock();
        state.listings += 1;
        self.core.changed.notify_all();
        let mut state = self.core.wait_while(state, |state| {
            matches!(state.phase, CataloguePhase::Building) && state.closing.is_none()
        });
        state.listings -= 1;
        match &state.phase {
            CataloguePhase::Ready => {}
            CataloguePhase::Building => return Err(Error::Closed),
            CataloguePhase::Failed(reason) => return Err(unavailable(reason)),
        }
        Ok(state.pending.range(prefix, first))
    }

    /// Has the folder removed, with all that sled keeps of what was deleted. It is built
    /// again in the background, and listings wait for that. Blocks until the old one is
    /// gone.
    ///
    /// # Errors
    /// [`Error::Io`] where it cannot be removed; [`Error::Closed`].
    pub(crate) fn start_over(&self) -> Result<()> {
        let mut state = self.core.lock();
        state.removals_asked += 1;
        let asked = state.removals_asked;
        self.core.changed.notify_all();
        let is_open = |state: &CatalogueState| {
            !matches!(state.phase, CataloguePhase::Failed(_)) && state.closing.is_none()
        };
        let state = self
            .core
            .wait_while(state, |state| state.removals_done < asked && is_open(state));
        if state.removals_done >= asked {
            return Ok(());
        }
        drop(state);
        // Nobody keeps it any more. A close, behind which others may open it, waits.
        let _thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.core.lock().closing.is_some() {
            return Err(Error::Closed);
        }
        self.core.replace_tree(None);
        let dir = &self.core.dir;
        worker::remove_dir(dir).map_err(|error| Error::io("remove", dir, error))
    }

    /// Ends the thread. With an identity, what is pending is put into sled, and the
    /// catalogue is marked as whole.
    pub(crate) fn close(&self, clean: Option<CatalogueIdentity>) {
        self.core
            .lock()
            .closing
            .get_or_insert(CatalogueClose { clean });
        self.core.changed.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn unavailable(reason: &str) -> Error {
    Error::CatalogueUnavailable {
        reason: reason.to_owned(),
    }
}

fn entry(client: &[u8], value: CatalogueValue) -> CatalogueEntry {
    CatalogueEntry {
        client: text(client),
        stat: Stat::new(value.revision, value.modified_ms, value.usage),
    }
}
