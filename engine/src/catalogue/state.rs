//! The state that the catalogue's thread shares with its callers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::pending::PendingChanges;
use crate::catalogue::row::DocumentVisitor;
use crate::catalogue::tree::Tree;
use crate::model::error::Result;

/// Visits every current document with a higher revision than the given one, to rebuild the
/// catalogue.
pub(crate) type DocumentSource =
    Box<dyn Fn(u64, &mut DocumentVisitor<'_>) -> Result<ControlFlow<()>> + Send>;

/// The shared part of the catalogue.
pub(super) struct CatalogueCore {
    pub(super) dir: PathBuf,
    pub(super) cache_bytes: u64,
    pub(super) state: Mutex<CatalogueState>,
    /// Notified when `state` changes in a way that a waiting thread may be interested in.
    pub(super) changed: Condvar,
    /// Readers hold the read lock for as long as they use the tree, so that replacing the tree
    /// waits for them.
    pub(super) tree: RwLock<Option<Tree>>,
}

/// What the mutex of [`CatalogueCore`] protects.
pub(super) struct CatalogueState {
    pub(super) phase: CataloguePhase,
    pub(super) pending: PendingChanges,
    /// Number of listings that are waiting until the catalogue is ready, or has failed.
    pub(super) listings: usize,
    /// The reason of a failed read. The worker rebuilds the catalogue because of it.
    pub(super) read_failure: Option<String>,
    /// Number of times that the removal of the folder was requested, and the number of
    /// requests that are done.
    pub(super) removals_requested: u64,
    pub(super) removals_done: u64,
    pub(super) closing: Option<CatalogueClose>,
}

/// Whether listings can be answered.
pub(super) enum CataloguePhase {
    /// The tree is being opened, or is missing documents. Listings wait.
    Building,
    /// The tree and the pending changes are complete.
    Ready,
    /// The catalogue is not available until the next open, for this reason. Listings fail.
    Failed(String),
}

/// How the thread should end.
#[derive(Clone, Copy)]
pub(super) struct CatalogueClose {
    /// The state of the log that the catalogue corresponds to afterwards; `None` if the next
    /// open must rebuild it.
    pub(super) clean: Option<CatalogueIdentity>,
}

impl CatalogueCore {
    pub(super) fn new(
        dir: &Path,
        cache_bytes: u64,
        max_pending_bytes: u64,
        phase: CataloguePhase,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            cache_bytes,
            state: Mutex::new(CatalogueState {
                phase,
                pending: PendingChanges::new(max_pending_bytes),
                listings: 0,
                read_failure: None,
                removals_requested: 0,
                removals_done: 0,
                closing: None,
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

    /// Makes listings fail until the next open. Documents are not affected.
    pub(super) fn give_up(&self, reason: String) {
        let mut state = self.lock();
        state.phase = CataloguePhase::Failed(reason);
        state.pending.clear();
        drop(state);
        self.changed.notify_all();
    }

    /// Replaces the tree. Blocks until no reader uses the old one.
    pub(super) fn replace_tree(&self, tree: Option<Tree>) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}
