//! The state that the catalogue's callers share with its thread.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::pending::PendingChanges;
use crate::catalogue::row::DocumentVisitor;
use crate::catalogue::tree::Tree;
use crate::model::error::Result;

/// Yields every document that is current and has a higher revision than this one, to
/// build the catalogue from.
pub(crate) type DocumentSource =
    Box<dyn Fn(u64, &mut DocumentVisitor<'_>) -> Result<ControlFlow<()>> + Send>;

pub(super) struct CatalogueCore {
    pub(super) dir: PathBuf,
    pub(super) cache_bytes: u64,
    pub(super) state: Mutex<CatalogueState>,
    pub(super) changed: Condvar,
    /// Held for reading while it is read, so that a close waits for that.
    pub(super) tree: RwLock<Option<Tree>>,
}

pub(super) struct CatalogueState {
    pub(super) phase: CataloguePhase,
    pub(super) pending: PendingChanges,
    /// Listings that wait for a phase in which they can be answered.
    pub(super) listings: usize,
    /// What a listing failed on: the catalogue must be built again.
    pub(super) read_failure: Option<String>,
    /// How often the folder was to be removed, and how many of these times it was.
    pub(super) removals_asked: u64,
    pub(super) removals_done: u64,
    pub(super) closing: Option<CatalogueClose>,
}

pub(super) enum CataloguePhase {
    /// Being opened, or behind: documents are missing.
    Building,
    Ready,
    /// Given up until the next open.
    Failed(String),
}

/// How the thread ends.
#[derive(Clone, Copy)]
pub(super) struct CatalogueClose {
    /// What the catalogue then stands for, if it may be trusted at the next open.
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
                removals_asked: 0,
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

    /// Has listings fail until the next open. Documents are not touched by that.
    pub(super) fn give_up(&self, reason: String) {
        let mut state = self.lock();
        state.phase = CataloguePhase::Failed(reason);
        state.pending.clear();
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn replace_tree(&self, tree: Option<Tree>) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}
