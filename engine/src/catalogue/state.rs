//! The state that the catalogue's thread shares with the callers of the catalogue.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::pending::PendingChanges;
use crate::catalogue::row::{DocumentVisitor, Visited};
use crate::catalogue::tree::Tree;
use crate::model::error::{Error, Result};

/// A function that the worker calls to rebuild the catalogue or to find missing puts. The function
/// visits every current document whose revision is higher than the first argument.
pub(crate) type DocumentSource =
    Box<dyn Fn(u64, &mut DocumentVisitor<'_>) -> Result<Visited> + Send>;

/// A function that fails if the data directory is no longer at its path. The catalogue calls the
/// function before it creates or removes files, because the path may refer to another store.
pub(crate) type DirectoryCheck = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// The part of the catalogue that the catalogue's thread shares with callers.
pub(super) struct CatalogueCore {
    pub(super) dir: PathBuf,
    pub(super) check_directory: DirectoryCheck,
    pub(super) cache_bytes: u64,
    pub(super) state: Mutex<CatalogueState>,
    /// Notified when `state` has changed and a thread may be waiting for the change.
    pub(super) changed: Condvar,
    /// Readers hold the read lock while they use the tree. Replacing the tree needs the write lock,
    /// and thus waits until no reader uses the tree.
    pub(super) tree: RwLock<Option<Tree>>,
}

/// The state that the mutex of [`CatalogueCore`] protects.
pub(super) struct CatalogueState {
    pub(super) phase: CataloguePhase,
    pub(super) pending: PendingChanges,
    /// Number of listings that are waiting for the catalogue to become ready or to fail.
    pub(super) listings: usize,
    /// The error message of a failed read of the tree, after which the worker must rebuild the
    /// catalogue.
    pub(super) read_failure: Option<String>,
    /// Number of requests to remove the catalogue's directory since the engine was opened.
    pub(super) removals_requested: u64,
    /// Number of requests to remove the catalogue's directory that have been fulfilled.
    pub(super) removals_done: u64,
    /// Number of times that the catalogue was suspended since the engine was opened.
    pub(super) suspensions: u64,
    /// Number of times that the worker has stopped using a tree since the engine was opened.
    pub(super) rebuilds: u64,
    pub(super) closing: Option<CatalogueClose>,
    /// The damage that may hide entries of the catalogue.
    pub(super) skipped: Option<SkippedDamage>,
}

/// Damage that was skipped when the log was searched, so documents may be missing from the
/// catalogue. A later search may find them, because a failed read can succeed later.
#[derive(Clone)]
pub(super) struct SkippedDamage {
    pub(super) error: Error,
    /// From this time on, a listing searches the log again.
    search_at: Instant,
}

impl SkippedDamage {
    /// Creates the state after a search of the log that skipped `error`. The next listing repeats the
    /// search, but not before `retry_interval` has passed if the `previous` search also skipped damage.
    pub(super) fn new(error: Error, previous: Option<&Self>, retry_interval: Duration) -> Self {
        let wait = previous.map_or(Duration::ZERO, |_| retry_interval);
        Self {
            error,
            search_at: Instant::now() + wait,
        }
    }

    /// Returns true if a listing must search the log again.
    pub(super) fn is_search_due(&self) -> bool {
        Instant::now() >= self.search_at
    }
}

/// The phase of the catalogue, which determines how listings behave.
pub(super) enum CataloguePhase {
    /// The tree is being opened, or documents are missing from the catalogue. Listings wait.
    Building,
    /// The tree and the pending changes together describe all documents. Listings do not wait.
    Ready,
    /// The catalogue has failed, for example because the disk is full. The worker tries again
    /// later. Until then, listings fail with this reason, and changes are not recorded.
    Suspended(String),
    /// The catalogue is not available until the engine is opened again. Listings fail with this
    /// reason, and changes are not recorded.
    Failed(String),
}

impl CataloguePhase {
    /// Returns the reason why the catalogue is not available. Returns `None` if the catalogue is
    /// available or is being built.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Building | Self::Ready => None,
            Self::Suspended(reason) | Self::Failed(reason) => Some(reason),
        }
    }
}

/// A request to end the catalogue's thread.
#[derive(Clone, Copy)]
pub(super) struct CatalogueClose {
    /// The state of the log that the clean-close marker will record. `None` if the next open must
    /// rebuild the catalogue.
    pub(super) clean: Option<CatalogueIdentity>,
}

impl CatalogueCore {
    pub(super) fn new(
        dir: &Path,
        check_directory: DirectoryCheck,
        cache_bytes: u64,
        max_pending_bytes: u64,
        phase: CataloguePhase,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            check_directory,
            cache_bytes,
            state: Mutex::new(CatalogueState {
                phase,
                pending: PendingChanges::new(max_pending_bytes),
                listings: 0,
                read_failure: None,
                removals_requested: 0,
                removals_done: 0,
                suspensions: 0,
                rebuilds: 0,
                closing: None,
                skipped: None,
            }),
            changed: Condvar::new(),
            tree: RwLock::new(None),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CatalogueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, CatalogueState>,
        condition: impl FnMut(&mut CatalogueState) -> bool,
    ) -> MutexGuard<'a, CatalogueState> {
        self.changed
            .wait_while(state, condition)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes all listings fail until the engine is opened again. Documents can still be read and
    /// written.
    pub(super) fn give_up(&self, reason: String) {
        self.stop_recording(CataloguePhase::Failed(reason));
    }

    /// Makes all listings fail until the worker tries again. Documents can still be read and
    /// written.
    pub(super) fn suspend(&self, reason: String) {
        self.lock().suspensions += 1;
        self.stop_recording(CataloguePhase::Suspended(reason));
    }

    fn stop_recording(&self, phase: CataloguePhase) {
        let mut state = self.lock();
        state.phase = phase;
        state.pending.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Replaces the tree. Blocks until no reader uses the old tree.
    pub(super) fn replace_tree(&self, tree: Option<Tree>) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}
