//! The thread that alone writes to the tree: opens it, builds it, keeps it current,
//! and marks it as whole at the end.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalogue::marker::{self, CatalogueIdentity};
use crate::catalogue::row::key;
use crate::catalogue::state::{
    CatalogueClose, CatalogueCore, CataloguePhase, CatalogueState, DocumentSource,
};
use crate::catalogue::throttle::Throttle;
use crate::catalogue::tree::{self, Tree, TreeError};

/// Entries between two looks at what is pending, while others are looked for in the log.
const STRIDE: u64 = 1024;
/// So long a change waits for others: sled is told once of a document that is written
/// over and over. Where the budget does not last so long, documents come faster than sled
/// takes them in, and it would only take the processor away from them: they are let go.
const GATHER: Duration = Duration::from_secs(2);
/// Rebuilds in a row that may fail before listings are given up until the next open.
const MAX_FAILURES: u32 = 3;

pub(crate) struct CatalogueWorker {
    pub(crate) core: Arc<CatalogueCore>,
    pub(crate) source: DocumentSource,
}

/// What the thread does next.
enum WorkerStep {
    Apply,
    CatchUp,
    End(WorkerEnd),
}

/// Why it lets go of a tree.
enum WorkerEnd {
    Close(CatalogueClose),
    /// The folder is to be removed.
    StartOver,
}

impl CatalogueState {
    /// Whether something else is to be done than to wait until more has come.
    fn is_urgent(&self) -> bool {
        self.pending.is_behind()
            || self.pending.is_over_budget()
            || self.closing.is_some()
            || self.read_failure.is_some()
            || self.is_to_be_removed()
    }

    fn is_to_be_removed(&self) -> bool {
        self.removals_done < self.removals_asked
    }
}

impl CatalogueWorker {
    pub(crate) fn run(self, identity: CatalogueIdentity) {
        let mut trusted = marker::take(&self.core.dir, identity);
        let mut failures = 0;
        loop {
            match self.live(trusted) {
                Ok(WorkerEnd::Close(closing)) => return self.end(closing),
                Ok(WorkerEnd::StartOver) => {
                    self.back_to_building();
                    self.core.replace_tree(None);
                    trusted = false;
                }
                Err(TreeError(reason)) => {
                    failures = if self.back_to_building() {
                        1
                    } else {
                        failures + 1
                    };
                    self.core.replace_tree(None);
                    if failures >= MAX_FAILURES {
                        return self.core.give_up(reason);
                    }
                    trusted = false;
                }
            }
        }
    }

    /// From opening to letting go of it. `trusted`: what is there need not be rebuilt.
    fn live(&self, trusted: bool) -> Result<WorkerEnd, TreeError> {
        if !trusted {
            let asked = self.core.lock().removals_asked;
            remove_dir(&self.core.dir).map_err(|error| {
                let dir = self.core.dir.display();
                TreeError(format!("{dir} cannot be removed: {error}"))
            })?;
            let mut state = self.core.lock();
            state.removals_done = asked;
            state.pending.restart();
            drop(state);
            self.core.changed.notify_all();
        }
        let tree = Tree::open(&sled_dir(&self.core.dir), self.core.cache_bytes)?;
        self.core.replace_tree(Some(tree.clone()));
        self.show();
        loop {
            match self.next()? {
                WorkerStep::Apply => self.apply(&tree)?,
                WorkerStep::CatchUp => self.catch_up(&tree)?,
                WorkerStep::End(WorkerEnd::Close(closing)) => {
                    tree.flush()?;
                    return Ok(WorkerEnd::Close(closing));
                }
                WorkerStep::End(WorkerEnd::StartOver) => return Ok(WorkerEnd::StartOver),
            }
        }
    }

    /// Has listings answered, if nothing is missing.
    fn show(&self) {
        let mut state = self.core.lock();
        if !state.pending.is_behind() {
            state.phase = CataloguePhase::Ready;
        }
        drop(state);
        self.core.changed.notify_all();
    }

    /// Waits for what is to be done next.
    fn next(&self) -> Result<WorkerStep, TreeError> {
        let mut state = self.core.lock();
        loop {
            if let Some(reason) = state.read_failure.take() {
                return Err(TreeError(reason));
            }
            let is_behind = state.pending.is_behind();
            if let Some(closing) = state.closing {
                if is_behind || state.is_to_be_removed() {
                    return Ok(WorkerStep::End(WorkerEnd::Close(CatalogueClose {
                        clean: None,
                    })));
                }
                if state.pending.is_empty() {
                    return Ok(WorkerStep::End(WorkerEnd::Close(closing)));
                }
                return Ok(WorkerStep::Apply);
            }
            if state.is_to_be_removed() {
                return Ok(WorkerStep::End(WorkerEnd::StartOver));
            }
            // Deletes, which are not let go, or puts that a listing waits for.
            if state.pending.is_over_budget() {
                return Ok(WorkerStep::Apply);
            }
            let calm_in = state.pending.calm_in();
            if is_behind && (calm_in.is_zero() || state.listings > 0) {
                return Ok(WorkerStep::CatchUp);
            }
            if is_behind {
                state = self.wait(state, calm_in);
            } else if state.pending.is_empty() {
                state = self.wait(state, Duration::MAX);
            } else {
                let began = Instant::now();
                while !state.is_urgent() && began.elapsed() < GATHER {
                    state = self.wait(state, GATHER.saturating_sub(began.elapsed()));
                }
                if !state.is_urgent() {
                    return Ok(WorkerStep::Apply);
                }
            }
        }
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, CatalogueState>,
        most: Duration,
    ) -> MutexGuard<'a, CatalogueState> {
        let waited = self.core.changed.wait_timeout(state, most);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Puts what is pending into the tree.
    fn apply(&self, tree: &Tree) -> Result<(), TreeError> {
        let changes = self.core.lock().pending.take();
        self.core.changed.notify_all();
        for (key, change) in &*changes {
            match change {
                Some(value) => tree.insert(key, *value)?,
                None => tree.remove(key)?,
            }
        }
        self.core.lock().pending.applied();
        Ok(())
    }

    /// Puts what is missing into the tree, from the log, and pending changes in between.
    /// Gives up where the catalogue falls behind again, or is closed: it is not whole then.
    fn catch_up(&self, tree: &Tree) -> Result<(), TreeError> {
        let mut seen = 0_u64;
        let mut failure = None;
        let after = self.core.lock().pending.catch_up();
        let mut pace = Throttle::begin();
        let outcome = (self.source)(after, &mut |user, client, value| {
            seen += 1;
            let mut step = tree.insert(&key(user, client), value);
            if step.is_ok() && seen.is_multiple_of(STRIDE) {
                self.rest(pace.rest());
                if self.is_pressed() {
                    step = self.apply(tree);
                }
            }
            if let Err(error) = step {
                failure = Some(error);
            }
            if failure.is_some() || self.is_in_vain() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        match (failure, outcome) {
            (Some(failure), _) => return Err(failure),
            (None, Ok(ControlFlow::Continue(()))) => {
                self.core.lock().pending.caught_up();
            }
            (None, Ok(ControlFlow::Break(()))) => {}
            (None, Err(error)) => return Err(TreeError(error.to_string())),
        }
        self.show();
        Ok(())
    }

    /// Leaves the processor to others, unless a listing waits.
    fn rest(&self, most: Duration) {
        let state = self.core.lock();
        if !most.is_zero() && state.listings == 0 && state.closing.is_none() {
            drop(self.wait(state, most));
        }
    }

    /// Whether the committer may soon have to wait, or puts be let go.
    fn is_pressed(&self) -> bool {
        self.core.lock().pending.is_pressed()
    }

    fn is_in_vain(&self) -> bool {
        let state = self.core.lock();
        state.closing.is_some() || state.is_to_be_removed() || state.pending.has_let_go()
    }

    /// Makes listings wait again, and what was being applied pending again. Returns
    /// whether the tree had been in use.
    fn back_to_building(&self) -> bool {
        let mut state = self.core.lock();
        let was_ready = matches!(state.phase, CataloguePhase::Ready);
        state.phase = CataloguePhase::Building;
        state.pending.put_back();
        was_ready
    }

    /// Lets go of the tree, and marks what it left as whole, if it is.
    fn end(&self, closing: CatalogueClose) {
        self.core.replace_tree(None);
        if let Some(identity) = closing.clean {
            // Without the marker the next open rebuilds: slower, and as right.
            let _ = marker::put(&self.core.dir, identity);
        }
    }
}

/// Removes the catalogue's folder and what is in it, once nobody has its tree any more.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    tree::wait_for_release(&sled_dir(dir));
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    // What was erased must not come back by a crash.
    match dir.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn sled_dir(dir: &Path) -> PathBuf {
    dir.join("sled")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test may take: a rest that does not end is seen by that.
    const LONG: Duration = Duration::from_secs(24 * 60 * 60);

    fn keeper() -> CatalogueWorker {
        CatalogueWorker {
            core: Arc::new(CatalogueCore::new(
                Path::new(""),
                0,
                1000,
                CataloguePhase::Building,
            )),
            source: Box::new(|_, _| Ok(ControlFlow::Continue(()))),
        }
    }

    #[test]
    fn there_is_no_rest_while_a_listing_or_a_close_waits() {
        let keeper = keeper();
        keeper.core.lock().listings = 1;
        keeper.rest(LONG);
        let mut state = keeper.core.lock();
        state.listings = 0;
        state.closing = Some(CatalogueClose { clean: None });
        drop(state);
        keeper.rest(LONG);
    }

    #[test]
    fn a_listing_ends_the_rest() {
        let keeper = keeper();
        let core = Arc::clone(&keeper.core);
        let resting = std::thread::spawn(move || keeper.rest(LONG));
        // It has begun to rest, or will find that a listing waits.
        core.lock().listings = 1;
        core.changed.notify_all();
        resting.join().unwrap();
    }
}
