//! The worker runs in the catalogue's thread, and is the only writer of the tree. The worker opens
//! the tree, rebuilds it if necessary, applies changes, and writes the marker on a clean close.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::catalogue::marker::{self, CatalogueIdentity};
use crate::catalogue::private::{make_private, restrict};
use crate::catalogue::row::{Visited, key};
use crate::catalogue::state::{
    CatalogueClose, CatalogueCore, CataloguePhase, CatalogueState, DocumentSource, SkippedDamage,
};
use crate::catalogue::throttle::Throttle;
use crate::catalogue::tree::{self, Tree, TreeError};

/// Number of documents that the worker processes during a catch-up before it checks whether to rest
/// and whether the pending changes use too much memory.
const PENDING_CHECK_INTERVAL: u64 = 1024;
/// Maximum time for which changes are collected before they are written to sled, so that repeated
/// changes to a document are written only once. If the pending changes exceed their budget within
/// this time and no listing is waiting, puts are shed.
const MAX_COALESCE_TIME: Duration = Duration::from_secs(2);
/// Number of failures after which the catalogue is suspended. Failures before the catalogue was
/// last complete do not count.
const MAX_FAILURES: u32 = 3;
/// Time after which a suspended catalogue is built again, and minimum time between two searches for
/// documents that are missing because of damage. The usual reason for a suspension is a full disk.
/// An attempt can use much processor time, because it reads the summaries of all segments.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// The state of the catalogue's thread.
pub(crate) struct CatalogueWorker {
    pub(crate) core: Arc<CatalogueCore>,
    pub(crate) source: DocumentSource,
    /// See [`RETRY_INTERVAL`].
    pub(crate) retry_interval: Duration,
}

/// The next step of the worker.
enum WorkerStep {
    /// Write the pending changes to the tree.
    Apply,
    /// Find the missing puts in the log.
    CatchUp,
    /// Stop using this tree.
    End(WorkerEnd),
}

/// The reason why the worker stops using a tree.
enum WorkerEnd {
    Close(CatalogueClose),
    /// The catalogue's directory must be removed, and the catalogue must be rebuilt.
    Rebuild,
}

impl CatalogueState {
    /// Returns true if the worker must stop waiting for more changes.
    fn is_urgent(&self) -> bool {
        self.pending.is_lagging()
            || self.pending.is_over_budget()
            || self.closing.is_some()
            || self.read_failure.is_some()
            || self.has_pending_removal()
    }

    /// Returns true if a requested removal of the catalogue's directory is not done yet.
    fn has_pending_removal(&self) -> bool {
        self.removals_done < self.removals_requested
    }
}

impl CatalogueWorker {
    /// Runs the worker until the catalogue is closed. If the catalogue has failed [`MAX_FAILURES`]
    /// times, it is suspended for some time.
    pub(crate) fn run(self, identity: CatalogueIdentity) {
        // An earlier version may have created files that other users can read. An error is ignored
        // here, because it is reported when the tree is opened.
        let _ = restrict(&self.core.dir);
        let mut is_trusted = (self.core.check_directory)().is_ok()
            && marker::verify_and_remove(&self.core.dir, identity);
        let mut failures = 0;
        loop {
            match self.catch_panic(is_trusted) {
                Ok(WorkerEnd::Close(closing)) => return self.finish(closing),
                Ok(WorkerEnd::Rebuild) => {
                    self.return_to_building();
                    self.core.replace_tree(None);
                    is_trusted = false;
                }
                Err(TreeError(reason)) => {
                    failures = if self.return_to_building() {
                        1
                    } else {
                        failures + 1
                    };
                    self.core.replace_tree(None);
                    if failures >= MAX_FAILURES {
                        if !self.suspend(reason) {
                            return;
                        }
                        failures = 0;
                    }
                    is_trusted = false;
                }
            }
        }
    }

    /// Runs [`Self::run_until_end`], and treats a panic of sled like an error. sled panics after
    /// some errors of the disk.
    fn catch_panic(&self, is_trusted: bool) -> Result<WorkerEnd, TreeError> {
        catch_unwind(AssertUnwindSafe(|| self.run_until_end(is_trusted)))
            .unwrap_or_else(|_| Err(TreeError("the thread of the catalogue panicked".to_owned())))
    }

    /// Suspends the catalogue. Removes its directory, because an incomplete catalogue only uses
    /// disk space. Returns true when the catalogue must be built again, or false if it is closed.
    fn suspend(&self, reason: String) -> bool {
        if (self.core.check_directory)().is_ok() {
            let _ = clear_dir(&self.core.dir);
        }
        self.core.suspend(reason);
        let deadline = Instant::now() + self.retry_interval;
        let mut state = self.core.lock();
        loop {
            if state.closing.is_some() {
                return false;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.has_pending_removal() {
                // From now on, changes are recorded. Earlier changes are found in the log.
                state.phase = CataloguePhase::Building;
                return true;
            }
            state = self.wait(state, left);
        }
    }

    /// Opens the tree and updates it until the tree must be closed or rebuilt. If `is_trusted` is
    /// false, the catalogue's directory is removed first.
    fn run_until_end(&self, is_trusted: bool) -> Result<WorkerEnd, TreeError> {
        (self.core.check_directory)().map_err(|error| TreeError(error.to_string()))?;
        if !is_trusted {
            let requested = self.core.lock().removals_requested;
            clear_dir(&self.core.dir).map_err(|error| {
                let dir = self.core.dir.display();
                TreeError(format!("cannot clear {dir}: {error}"))
            })?;
            let mut state = self.core.lock();
            state.removals_done = requested;
            state.pending.require_full_scan();
            drop(state);
            self.core.changed.notify_all();
        }
        make_private(&self.core.dir).map_err(|error| {
            let dir = self.core.dir.display();
            TreeError(format!("cannot restrict the access to {dir}: {error}"))
        })?;
        let tree = Tree::open(&sled_dir(&self.core.dir), self.core.cache_bytes)?;
        self.core.replace_tree(Some(tree.clone()));
        self.mark_ready_if_complete();
        loop {
            match self.next_step()? {
                WorkerStep::Apply => self.apply(&tree)?,
                WorkerStep::CatchUp => self.catch_up(&tree)?,
                WorkerStep::End(WorkerEnd::Close(closing)) => {
                    tree.flush()?;
                    return Ok(WorkerEnd::Close(closing));
                }
                WorkerStep::End(WorkerEnd::Rebuild) => return Ok(WorkerEnd::Rebuild),
            }
        }
    }

    /// Lets waiting listings continue if no puts are missing from the catalogue.
    fn mark_ready_if_complete(&self) {
        let mut state = self.core.lock();
        if !state.pending.is_lagging() {
            state.phase = CataloguePhase::Ready;
        }
        drop(state);
        self.core.changed.notify_all();
    }

    /// Waits until the worker has something to do, and returns the next step.
    fn next_step(&self) -> Result<WorkerStep, TreeError> {
        let mut state = self.core.lock();
        loop {
            if let Some(reason) = state.read_failure.take() {
                return Err(TreeError(reason));
            }
            let is_lagging = state.pending.is_lagging();
            if let Some(closing) = state.closing {
                if is_lagging || state.has_pending_removal() {
                    return Ok(WorkerStep::End(WorkerEnd::Close(CatalogueClose {
                        clean: None,
                    })));
                }
                if state.pending.is_empty() {
                    // As for damage that recovery found, the next open must rebuild the catalogue.
                    let clean = closing.clean.filter(|_| state.skipped.is_none());
                    return Ok(WorkerStep::End(WorkerEnd::Close(CatalogueClose { clean })));
                }
                return Ok(WorkerStep::Apply);
            }
            if state.has_pending_removal() {
                return Ok(WorkerStep::End(WorkerEnd::Rebuild));
            }
            // The budget can be exceeded by deletes, which are never shed, and by puts that were
            // recorded while a listing was waiting.
            if state.pending.is_over_budget() {
                return Ok(WorkerStep::Apply);
            }
            let cooldown = state.pending.cooldown();
            if is_lagging && (cooldown.is_zero() || state.listings > 0) {
                return Ok(WorkerStep::CatchUp);
            }
            if is_lagging {
                state = self.wait(state, cooldown);
            } else if state.pending.is_empty() {
                state = self.wait(state, Duration::MAX);
            } else {
                let began = Instant::now();
                while !state.is_urgent() && began.elapsed() < MAX_COALESCE_TIME {
                    state = self.wait(state, MAX_COALESCE_TIME.saturating_sub(began.elapsed()));
                }
                if !state.is_urgent() {
                    return Ok(WorkerStep::Apply);
                }
            }
        }
    }

    /// Waits until the state changes, or until `timeout` has passed.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, CatalogueState>,
        timeout: Duration,
    ) -> MutexGuard<'a, CatalogueState> {
        let waited = self.core.changed.wait_timeout(state, timeout);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes the pending changes to the tree.
    fn apply(&self, tree: &Tree) -> Result<(), TreeError> {
        let changes = self.core.lock().pending.begin_apply();
        self.core.changed.notify_all();
        for (key, change) in &*changes {
            match change {
                Some(value) => tree.insert(key, *value)?,
                None => tree.remove(key)?,
            }
        }
        self.core.lock().pending.finish_apply();
        Ok(())
    }

    /// Writes the missing puts from the log to the tree. If the pending changes use more than half
    /// of their budget, they are written to the tree before catching up continues. The function
    /// stops early if puts are shed again, if the catalogue is being closed, or if its directory
    /// must be removed. After an early stop, puts are still missing from the catalogue.
    fn catch_up(&self, tree: &Tree) -> Result<(), TreeError> {
        let mut seen = 0_u64;
        let mut failure = None;
        let after = self.core.lock().pending.begin_catch_up();
        let mut throttle = Throttle::begin();
        let outcome = (self.source)(after, &mut |user, client, value| {
            seen += 1;
            let mut step = tree.insert(&key(user, client), value);
            if step.is_ok() && seen.is_multiple_of(PENDING_CHECK_INTERVAL) {
                self.rest(throttle.rest());
                if self.is_under_pressure() {
                    step = self.apply(tree);
                }
            }
            if let Err(error) = step {
                failure = Some(error);
            }
            if failure.is_some() || self.should_stop_catch_up() {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        match (failure, outcome) {
            (Some(failure), _) => return Err(failure),
            (None, Ok(visited)) => self.end_catch_up(after, visited),
            (None, Err(error)) => return Err(TreeError(error.to_string())),
        }
        self.mark_ready_if_complete();
        Ok(())
    }

    /// Ends a search of the log for puts whose revision is higher than `after`.
    fn end_catch_up(&self, after: u64, visited: Visited) {
        if visited.flow.is_break() {
            return;
        }
        let mut state = self.core.lock();
        if let Some(error) = visited.skipped {
            let skipped = SkippedDamage::new(error, state.skipped.as_ref(), self.retry_interval);
            state.skipped = Some(skipped);
        } else if after == 0 {
            // Only a search of the entire log shows that no document is missing any more.
            state.skipped = None;
        }
        state.pending.finish_catch_up(after);
    }

    /// Pauses the worker for up to `timeout`, so that other threads can use the processor. A change
    /// of the state, such as a new listing or a close, ends the pause.
    fn rest(&self, timeout: Duration) {
        let state = self.core.lock();
        if !timeout.is_zero() && state.listings == 0 && state.closing.is_none() {
            drop(self.wait(state, timeout));
        }
    }

    /// Returns true if the pending changes use more than half of their budget. If the pending
    /// changes exceeded their budget, either puts would be shed or the committer would have to
    /// wait.
    fn is_under_pressure(&self) -> bool {
        self.core.lock().pending.is_under_pressure()
    }

    /// Returns true if the worker should stop catching up.
    fn should_stop_catch_up(&self) -> bool {
        let state = self.core.lock();
        state.closing.is_some() || state.has_pending_removal() || state.pending.is_shedding()
    }

    /// Makes listings wait, and puts the changes that were being written to the tree back into the
    /// queue. Returns true if the catalogue was ready before this call.
    fn return_to_building(&self) -> bool {
        let mut state = self.core.lock();
        let was_ready = matches!(state.phase, CataloguePhase::Ready);
        state.phase = CataloguePhase::Building;
        state.rebuilds += 1;
        state.pending.abort_apply();
        was_ready
    }

    /// Closes the tree. If the close is clean, writes the marker.
    fn finish(&self, closing: CatalogueClose) {
        self.core.replace_tree(None);
        if let Some(identity) = closing.clean
            && (self.core.check_directory)().is_ok()
        {
            // An error is ignored, because no other user can reach the files: the directory has
            // been private since it was opened.
            let _ = restrict(&self.core.dir);
            // An error is ignored, because the next open rebuilds the catalogue if the marker is
            // missing.
            let _ = marker::write(&self.core.dir, identity);
        }
    }
}

/// Durably removes all files in the catalogue's directory `dir`. If a handle still has the tree
/// open, first waits for a limited time until the handle is dropped.
///
/// The directory itself remains, because it can be a mount point.
pub(super) fn clear_dir(dir: &Path) -> io::Result<()> {
    tree::wait_for_lock_release(&sled_dir(dir));
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    // The directory is synced, because erased data must not reappear after a crash.
    File::open(dir)?.sync_all()
}

fn sled_dir(dir: &Path) -> PathBuf {
    dir.join("sled")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    /// Only a failing test reaches this timeout.
    const LONG: Duration = Duration::from_secs(120);

    fn worker() -> CatalogueWorker {
        CatalogueWorker {
            core: Arc::new(CatalogueCore::new(
                Path::new(""),
                Box::new(|| Ok(())),
                0,
                1000,
                CataloguePhase::Building,
            )),
            source: Box::new(|_, _| {
                let flow = ControlFlow::Continue(());
                Ok(Visited {
                    flow,
                    skipped: None,
                })
            }),
            retry_interval: RETRY_INTERVAL,
        }
    }

    /// Runs `work`, which rests for [`LONG`] unless something ends the rest.
    fn expect_short_rest(work: impl FnOnce()) {
        let started = Instant::now();
        work();
        assert!(started.elapsed() < LONG, "the worker rested");
    }

    /// Waits until `must_wait` returns false.
    fn wait_while(
        core: &CatalogueCore,
        must_wait: impl Fn(&mut CatalogueState) -> bool,
    ) -> MutexGuard<'_, CatalogueState> {
        let waited = core
            .changed
            .wait_timeout_while(core.lock(), LONG, must_wait);
        let (state, timeout) = waited.unwrap();
        assert!(!timeout.timed_out());
        state
    }

    #[test]
    fn waiting_listing_or_close_prevents_a_rest() {
        let worker = worker();
        worker.core.lock().listings = 1;
        expect_short_rest(|| worker.rest(LONG));
        let mut state = worker.core.lock();
        state.listings = 0;
        state.closing = Some(CatalogueClose { clean: None });
        drop(state);
        expect_short_rest(|| worker.rest(LONG));
    }

    #[test]
    fn cleared_directory_is_empty_and_still_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = dir.path().join("catalogue");
        clear_dir(&catalogue).unwrap();
        fs::create_dir_all(sled_dir(&catalogue).join("blobs")).unwrap();
        fs::write(sled_dir(&catalogue).join("db"), "alice").unwrap();
        fs::write(catalogue.join("marker"), "").unwrap();
        // The directory can be a mount point, so it must not be replaced.
        let handle = File::open(&catalogue).unwrap();
        clear_dir(&catalogue).unwrap();
        assert_eq!(fs::read_dir(&catalogue).unwrap().count(), 0);
        let id = |metadata: fs::Metadata| metadata.ino();
        assert_eq!(
            id(handle.metadata().unwrap()),
            id(fs::metadata(&catalogue).unwrap())
        );
    }

    #[test]
    fn suspended_catalogue_is_built_again_when_the_disk_works() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = dir.path().join("catalogue");
        // sled cannot create its files in the place of a file.
        fs::write(&catalogue, "in the way").unwrap();
        let mut worker = worker();
        worker.retry_interval = Duration::from_millis(1);
        let core = CatalogueCore::new(
            &catalogue,
            Box::new(|| Ok(())),
            1024 * 1024,
            1000,
            CataloguePhase::Building,
        );
        worker.core = Arc::new(core);
        let core = Arc::clone(&worker.core);
        let identity = CatalogueIdentity {
            store: 1,
            reserved_revision: 1,
        };
        let running = std::thread::spawn(move || worker.run(identity));
        drop(wait_while(&core, |state| state.suspensions == 0));
        fs::remove_file(&catalogue).unwrap();
        let mut state = wait_while(&core, |state| !matches!(state.phase, CataloguePhase::Ready));
        state.closing = Some(CatalogueClose { clean: None });
        drop(state);
        core.changed.notify_all();
        running.join().unwrap();
    }

    #[test]
    fn listing_ends_a_rest() {
        let worker = worker();
        let core = Arc::clone(&worker.core);
        let resting = std::thread::spawn(move || worker.rest(LONG));
        // The resting thread either is woken by the notification, or sees the waiting listing
        // before it begins to rest.
        expect_short_rest(|| {
            core.lock().listings = 1;
            core.changed.notify_all();
            resting.join().unwrap();
        });
    }
}
