//! The state that the catalogue's thread shares with its callers.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::pending::PendingChanges;
use crate::catalogue::row::DocumentVisitor;
use crate::catalogue::tree::Tree;
use crate::model::error::Result;

/// Visits every current document with a higher revision than the argument. The catalogue is rebuilt
/// from this source.
pub(crate) type DocumentSource =
    Box<dyn Fn(u64, &mut DocumentVisitor<'_>) -> Result<ControlFlow<()>> + Send>;

/// The part of the catalogue that its thread shares with callers.
pub(super) struct CatalogueCore {
    pub(super) dir: PathBuf,
    pub(super) cache_bytes: u64,
    pub(super) state: Mutex<CatalogueState>,
    /// Notified after changes of `state` for which a thread may be waiting.
    pub(super) changed: Condvar,
    /// Readers hold the read lock for as long as they use the tree, so that replacing the tree
    /// waits for them.
    pub(super) tree: RwLock<Option<Tree>>,
}

/// The state that the mutex of [`CatalogueCore`] protects.
pub(super) struct CatalogueState {
    pub(super) phase: CataloguePhase,
    pub(super) pending: PendingChanges,
    /// Number of listings that wait until the catalogue is ready or has failed.
    pub(super) listings: usize,
    /// The message of a failed read, after which the worker rebuilds the catalogue.
    pub(super) read_failure: Option<String>,
    /// Number of requests to remove the catalogue's directory.
    pub(super) removals_requested: u64,
    /// Number of removal requests that are done.
    pub(super) removals_done: u64,
    pub(super) closing: Option<CatalogueClose>,
}

/// The phase of the catalogue, which determines how listings behave.
pub(super) enum CataloguePhase {
    /// The tree is being opened, or documents are missing. Listings wait.
    Building,
    /// The tree and the pending changes are complete. Listings proceed.
    Ready,
    /// The catalogue is not available until the next open. Listings fail with the reason.
    Failed(String),
}

/// A request to end the catalogue's thread.
#[derive(Clone, Copy)]
pub(super) struct CatalogueClose {
    /// The state of the log to which the closed catalogue corresponds, or `None` if the next open
    /// must rebuild the catalogue.
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

    /// Makes listings fail until the next open. Reads and writes of documents are not affected.
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
