//! The thread that alone writes to the tree: opens it, builds it, keeps it current,
//! and marks it as whole at the end.

use std::path::Path;
use std::sync::Arc;

use crate::catalogue::tree::{Tree, TreeFailure};
use crate::catalogue::{Closing, Identity, Phase, Shared, Source, key, marker, pending_bytes};
use crate::error::Error;

/// Entries between two looks at what is pending, while the catalogue is rebuilt.
const REBUILD_STRIDE: u64 = 1024;
/// Rebuilds in a row that may fail before listings are given up until the next open.
const MAX_FAILURES: u32 = 3;

pub(crate) struct Keeper {
    pub(crate) shared: Arc<Shared>,
    pub(crate) source: Source,
}

impl Keeper {
    pub(crate) fn run(self, identity: Identity) {
        let mut trusted = marker::take(&self.shared.dir, identity);
        let mut failures = 0;
        loop {
            match self.live(trusted) {
                Ok(closing) => return self.end(closing),
                Err(TreeFailure(reason)) => {
                    failures = if self.back_to_building() {
                        1
                    } else {
                        failures + 1
                    };
                    self.shared.replace_tree(None);
                    if failures >= MAX_FAILURES {
                        return self.shared.give_up(reason);
                    }
                    trusted = false;
                }
            }
        }
    }

    /// From opening to closing. `trusted`: what is there need not be rebuilt.
    fn live(&self, trusted: bool) -> Result<Closing, TreeFailure> {
        if !trusted {
            remove_dir(&self.shared.dir)?;
        }
        let tree = Tree::open(&self.shared.dir.join("sled"), self.shared.cache_bytes)?;
        if !trusted && let Some(closing) = self.rebuild(&tree)? {
            return Ok(closing);
        }
        self.shared.replace_tree(Some(tree.clone()));
        self.shared.lock().phase = Phase::Ready;
        self.shared.changed.notify_all();
        loop {
            let mut state = self.shared.wait_while(self.shared.lock(), |state| {
                state.queued.is_empty() && state.closing.is_none() && state.read_failure.is_none()
            });
            if let Some(reason) = state.read_failure.take() {
                return Err(TreeFailure(reason));
            }
            if state.queued.is_empty()
                && let Some(closing) = state.closing
            {
                drop(state);
                tree.flush()?;
                return Ok(closing);
            }
            drop(state);
            self.apply(&tree)?;
        }
    }

    /// Puts what is pending into the tree.
    fn apply(&self, tree: &Tree) -> Result<(), TreeFailure> {
        let changes = {
            let mut state = self.shared.lock();
            state.applying = Arc::new(std::mem::take(&mut state.queued));
            state.queued_bytes = 0;
            Arc::clone(&state.applying)
        };
        self.shared.changed.notify_all();
        for (key, change) in &*changes {
            match change {
                Some(value) => tree.insert(key, *value)?,
                None => tree.remove(key)?,
            }
        }
        self.shared.lock().applying = Arc::default();
        Ok(())
    }

    /// Fills an empty tree from the log, letting pending changes in between. Returns
    /// early where the catalogue is closed meanwhile: it is not whole then.
    fn rebuild(&self, tree: &Tree) -> Result<Option<Closing>, TreeFailure> {
        let mut seen = 0_u64;
        let mut failure = None;
        let outcome = (self.source)(&mut |user, client, value| {
            seen += 1;
            let mut step = tree.insert(&key(user, client), value);
            if step.is_ok() && seen.is_multiple_of(REBUILD_STRIDE) && self.is_pressed() {
                step = self.apply(tree);
            }
            if let Err(error) = step {
                failure = Some(error);
            }
            if failure.is_some() || self.shared.lock().closing.is_some() {
                return Err(Error::Closed);
            }
            Ok(())
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        match outcome {
            Ok(()) => Ok(None),
            Err(Error::Closed) => Ok(Some(Closing { clean: None })),
            Err(error) => Err(TreeFailure(error.to_string())),
        }
    }

    /// Whether the committer may soon have to wait.
    fn is_pressed(&self) -> bool {
        self.shared.lock().queued_bytes > self.shared.max_pending_bytes / 2
    }

    /// Makes listings wait again, and what was being applied pending again. Returns
    /// whether the tree had been in use.
    fn back_to_building(&self) -> bool {
        let mut state = self.shared.lock();
        let was_ready = matches!(state.phase, Phase::Ready);
        state.phase = Phase::Building;
        let mut restored = Arc::unwrap_or_clone(std::mem::take(&mut state.applying));
        restored.append(&mut state.queued);
        state.queued_bytes = restored.keys().map(pending_bytes).sum();
        state.queued = restored;
        was_ready
    }

    /// Lets go of the tree, and marks what it left as whole, if it is.
    fn end(&self, closing: Closing) {
        self.shared.replace_tree(None);
        if let Some(identity) = closing.clean {
            // Without the marker the next open rebuilds: slower, and as right.
            let _ = marker::put(&self.shared.dir, identity);
        }
    }
}

/// Removes the catalogue's folder and what is in it.
fn remove_dir(dir: &Path) -> Result<(), TreeFailure> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(TreeFailure(format!(
            "{} cannot be removed: {error}",
            dir.display()
        ))),
        _ => Ok(()),
    }
}
