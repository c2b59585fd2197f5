//! The catalogue is a sorted list of all namespaces that contain a document, with the revision,
//! modification time and size of each document.
//!
//! The catalogue is derived from the log, and is stored in a tree of the sled database. A committed
//! change is pending until the catalogue's thread has written it to the tree. Pending changes
//! override the tree, so a listing includes every acknowledged write.
//!
//! Documents can be read and written even if sled fails. The catalogue is deleted and rebuilt from
//! the log if sled returns an error or panics. Opening a store also rebuilds the catalogue if the
//! store was not closed cleanly, or if sled's files have changed since the last clean close. If
//! sled fails while a listing reads the catalogue, that listing returns an error. Later listings
//! wait until the catalogue is rebuilt, or fail if rebuilding fails repeatedly.
//!
//! Damage or a failed read can hide documents while the catalogue is built. The catalogue records
//! the first damage that was skipped, and returns it with each listing. The next listing searches
//! the log again, and later listings do so at most once a minute. A catalogue that may lack entries
//! is rebuilt at the next open.

pub(crate) mod audit;
pub(crate) mod marker;
mod memory;
mod pending;
mod private;
pub(crate) mod row;
pub(crate) mod state;
mod temporary_copy;
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
use crate::catalogue::memory::MemoryCatalogue;
use crate::catalogue::row::{
    CatalogueChange, CatalogueKey, CatalogueValue, key, lossy_text, split_key,
};
use crate::catalogue::state::{
    CatalogueClose, CatalogueCore, CataloguePhase, CatalogueState, DirectoryCheck, DocumentSource,
    SkippedDamage,
};
use crate::catalogue::tree::TreeError;
use crate::catalogue::worker::CatalogueWorker;
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::names::Names;
use crate::model::stat::Stat;

/// An entry of a listing, which describes one namespace that contains a document.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "web")?;
/// namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
///
/// let entries = engine.list("alice", None, 100)?;
/// assert_eq!(entries[0].client, "web");
/// assert_eq!(entries[0].stat.usage.keys, 1);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// The client name of the namespace.
    pub client: String,
    /// The revision, modification time and size of the document.
    pub stat: Stat,
}

/// The result of [`Engine::list_known`](crate::Engine::list_known).
///
/// ```
/// use prefd_engine::{Config, Engine};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::open(Config::new(dir.path()))?;
/// let known = engine.list_known(None, None, 100)?;
/// assert!(known.entries.is_empty());
/// assert_eq!(known.damage, None);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownDocuments {
    /// The user and the entry of each namespace that contains a document.
    pub entries: Vec<(String, CatalogueEntry)>,
    /// The first damage that was skipped after the store was opened, when the list of documents was
    /// built. Because of this damage, entries may be missing, and an entry may describe an older
    /// revision, or a document that was deleted. `None` if no damage was skipped.
    pub damage: Option<Damage>,
}

/// The total size of all documents of one user.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::open(Config::new(dir.path()))?;
/// for client in ["web", "phone"] {
///     engine.namespace("alice", client)?.write(b"{}", WriteOptions::default())?;
/// }
/// let usage = engine.usage("alice")?;
/// assert_eq!((usage.namespaces, usage.keys, usage.bytes), (2, 0, 4));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserUsage {
    /// Number of namespaces that have a document.
    pub namespaces: u64,
    /// Total number of top-level keys in all documents.
    pub keys: u64,
    /// Total length of all documents, as reads return them, in bytes.
    pub bytes: u64,
}

/// The entries of a listing.
pub(crate) struct Listing<T> {
    pub(crate) entries: Vec<T>,
    /// The damage that may hide entries.
    pub(crate) skipped: Option<Error>,
}

impl<T> Listing<T> {
    /// Returns the entries.
    ///
    /// # Errors
    /// The damage that may hide entries.
    pub(crate) fn complete(self) -> Result<Vec<T>> {
        self.skipped.map_or(Ok(self.entries), Err)
    }
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            skipped: None,
        }
    }
}

/// The state of the catalogue at the beginning of a listing.
struct PendingSnapshot {
    pending: BTreeMap<CatalogueKey, CatalogueChange>,
    /// [`CatalogueState::rebuilds`], which identifies the tree to which the pending changes belong.
    rebuilds: u64,
    /// The damage that may hide entries.
    skipped: Option<Error>,
}

/// The catalogue of an open store, and the thread that updates it.
pub(crate) struct Catalogue {
    core: Arc<CatalogueCore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The entries, if the store is open for reading only. Such a catalogue has no thread.
    memory: Option<MemoryCatalogue>,
}

impl Catalogue {
    /// Creates a catalogue that is switched off, so that listings fail and changes are not
    /// recorded. The directory `dir` of the catalogue may still exist from an earlier run.
    pub(crate) fn disabled(dir: &Path, check_directory: DirectoryCheck) -> Self {
        let phase = CataloguePhase::Failed("listing is switched off".to_owned());
        Self {
            core: Arc::new(CatalogueCore::new(dir, check_directory, 0, 0, phase)),
            thread: Mutex::default(),
            memory: None,
        }
    }

    /// Creates a catalogue for reading only, which neither reads nor changes the directory `dir`.
    /// The first listing builds the catalogue from `source`.
    pub(crate) fn in_memory(
        dir: &Path,
        check_directory: DirectoryCheck,
        source: DocumentSource,
    ) -> Self {
        let mut catalogue = Self::disabled(dir, check_directory);
        catalogue.memory = Some(MemoryCatalogue::new(source));
        catalogue
    }

    /// Opens the catalogue in the background. Uses the existing catalogue if the last clean close
    /// recorded the same `identity` and the catalogue's files have not changed since then, and
    /// otherwise rebuilds the catalogue from `source`.
    ///
    /// # Errors
    /// [`Error::Io`] if the thread cannot be started.
    pub(crate) fn open(
        dir: &Path,
        check_directory: DirectoryCheck,
        cache_bytes: u64,
        max_pending_bytes: u64,
        identity: CatalogueIdentity,
        source: DocumentSource,
    ) -> Result<Self> {
        let core = CatalogueCore::new(
            dir,
            check_directory,
            cache_bytes,
            max_pending_bytes,
            CataloguePhase::Building,
        );
        let core = Arc::new(core);
        let worker = CatalogueWorker {
            core: Arc::clone(&core),
            source,
            retry_interval: worker::RETRY_INTERVAL,
        };
        let thread = std::thread::Builder::new()
            .name("prefd-catalogue".to_owned())
            .spawn(move || {
                let core = Arc::clone(&worker.core);
                // A panic of the worker is caught, because listings would otherwise wait forever.
                if catch_unwind(AssertUnwindSafe(|| worker.run(identity))).is_err() {
                    core.give_up("the thread of the catalogue panicked".to_owned());
                }
            })
            .map_err(|error| Error::io("start a thread for", dir, error))?;
        Ok(Self {
            core,
            thread: Mutex::new(Some(thread)),
            memory: None,
        })
    }

    /// Records changes that are about to be acknowledged, with their revisions. Never blocks on
    /// sled. Returns true if the pending changes exceed their budget. In that case, the caller
    /// should call [`Self::wait_for_room`].
    pub(crate) fn record<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Names, u64, CatalogueChange)>,
    ) -> bool {
        let mut state = self.core.lock();
        if state.phase.failure().is_some() {
            return false;
        }
        let was_empty = state.pending.is_empty();
        let was_lagging = state.pending.is_lagging();
        for (names, revision, change) in changes {
            state.pending.record(names, revision, change);
        }
        // Shedding does not start while a listing is waiting, because repeated shedding could
        // prevent the catalogue from ever becoming complete. Writers wait instead.
        if state.pending.is_over_budget() && state.listings == 0 {
            state.pending.shed_puts();
            if matches!(state.phase, CataloguePhase::Ready) {
                state.phase = CataloguePhase::Building;
            }
        }
        let is_over_budget = state.pending.is_over_budget();
        let needs_wakeup = was_empty != state.pending.is_empty()
            || was_lagging != state.pending.is_lagging()
            || is_over_budget;
        drop(state);
        // The catalogue's thread is woken only if it has something new to do, because waking a
        // thread takes longer than a write without a sync.
        if needs_wakeup {
            self.core.changed.notify_all();
        }
        is_over_budget
    }

    /// Returns the approximate memory of the pending changes, in bytes.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.core.lock().pending.bytes()
    }

    /// Blocks until the pending changes are within their budget, or the catalogue fails or is
    /// closed. Deletes can exceed the budget, because they are never shed. Puts can exceed the
    /// budget only while a listing is waiting, because shedding does not start during that time.
    pub(crate) fn wait_for_room(&self) {
        let state = self.core.lock();
        drop(self.core.wait_while(state, |state| {
            state.pending.is_over_budget()
                && state.phase.failure().is_none()
                && state.closing.is_none()
        }));
    }

    /// Returns up to `limit` namespaces of `user`, sorted by the bytes of the client name, starting
    /// after the client `after`. Blocks while the catalogue is incomplete, for example during a
    /// rebuild.
    pub(crate) fn list(
        &self,
        user: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listing<CatalogueEntry>> {
        let mut listing = Listing::default();
        if limit > 0 {
            listing.skipped = self.scan_user(user, after, |entry| {
                listing.entries.push(entry);
                listing.entries.len() < limit
            })?;
        }
        Ok(listing)
    }

    /// Returns up to `limit` namespaces of all users, sorted by the bytes of the user name and then
    /// of the client name, starting after the namespace `after`. Blocks while the catalogue is
    /// incomplete, for example during a rebuild.
    pub(crate) fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Listing<(String, CatalogueEntry)>> {
        let mut listing = Listing::default();
        if limit > 0 {
            let first = match after {
                Some((user, client)) => Bound::Excluded(key(user, client)),
                None => Bound::Included(CatalogueKey::new()),
            };
            listing.skipped = self.scan(&[], first, |key, value| {
                let (user, client) = split_key(key);
                let entry = entry(client, value);
                listing.entries.push((lossy_text(user), entry));
                listing.entries.len() < limit
            })?;
        }
        Ok(listing)
    }

    /// Returns the number of namespaces of `user`, and the total size of their documents. Blocks
    /// while the catalogue is incomplete, for example during a rebuild.
    pub(crate) fn usage(&self, user: &str) -> Result<UserUsage> {
        let mut sum = UserUsage::default();
        let skipped = self.scan_user(user, None, |CatalogueEntry { stat, .. }| {
            sum.namespaces += 1;
            sum.keys += u64::from(stat.usage.keys);
            sum.bytes += stat.usage.bytes;
            true
        })?;
        skipped.map_or(Ok(sum), Err)
    }

    /// Visits the namespaces of a user in order, starting after the client `after`, until `visit`
    /// returns false. Returns the damage that may hide entries, if any.
    fn scan_user(
        &self,
        user: &str,
        after: Option<&str>,
        mut visit: impl FnMut(CatalogueEntry) -> bool,
    ) -> Result<Option<Error>> {
        let prefix = key(user, "");
        let first = match after {
            Some(client) => Bound::Excluded(key(user, client)),
            None => Bound::Included(prefix.clone()),
        };
        self.scan(&prefix, first, |key, value| {
            visit(entry(split_key(key).1, value))
        })
    }

    /// Visits the namespaces whose keys begin with `prefix` in order, starting at `first`, until
    /// `visit` returns false. Returns the damage that may hide entries, if any.
    fn scan(
        &self,
        prefix: &[u8],
        first: Bound<CatalogueKey>,
        mut visit: impl FnMut(&[u8], CatalogueValue) -> bool,
    ) -> Result<Option<Error>> {
        if let Some(memory) = &self.memory {
            return memory.scan(prefix, first, visit);
        }
        // The pending changes must be read before the tree. If the tree were read first, the scan
        // would miss a change that is written to the tree and dropped from the pending changes
        // between the two reads.
        let snapshot = self.pending(prefix, &first)?;
        let tree = self
            .core
            .tree
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let is_rebuilt = self.core.lock().rebuilds != snapshot.rebuilds;
        let Some(tree) = tree.as_ref().filter(|_| !is_rebuilt) else {
            return Err(unavailable("a rebuild is in progress"));
        };
        let mut pending = snapshot.pending.into_iter().peekable();
        let mut stored = tree.range(first, prefix);
        loop {
            let next = stored
                .next()
                .transpose()
                .map_err(|failure| self.fail(failure))?;
            // A pending change whose key is less than the key of the next entry in the tree belongs
            // to a namespace that is not in the tree. A pending change with the same key overrides
            // the entry in the tree.
            while let Some((key, change)) =
                pending.next_if(|(key, _)| next.as_ref().is_none_or(|(at, _)| key < at))
            {
                if change.is_some_and(|value| !visit(&key, value)) {
                    return Ok(snapshot.skipped);
                }
            }
            let Some((key, value)) = next else {
                return Ok(snapshot.skipped);
            };
            let change = match pending.next_if(|(pending, _)| *pending == key) {
                Some((_, change)) => change,
                None => Some(value),
            };
            if change.is_some_and(|value| !visit(&key, value)) {
                return Ok(snapshot.skipped);
            }
        }
    }

    /// Reports a failed read of the tree to the catalogue's thread, which then rebuilds the
    /// catalogue. Returns the error for the listing.
    fn fail(&self, TreeError(reason): TreeError) -> Error {
        let error = unavailable(&reason);
        self.core.lock().read_failure = Some(reason);
        self.core.changed.notify_all();
        error
    }

    /// Returns the pending changes whose keys begin with `prefix`, starting at `first`. Blocks
    /// until the catalogue is complete, fails or is closed. If damage was skipped earlier, and a
    /// new search of the log is due, first waits for this search.
    fn pending(&self, prefix: &[u8], first: &Bound<CatalogueKey>) -> Result<PendingSnapshot> {
        let mut state = self.core.lock();
        state.listings += 1;
        self.core.changed.notify_all();
        let mut state = self.core.wait_while(state, |state| {
            matches!(state.phase, CataloguePhase::Building) && state.closing.is_none()
        });
        if state
            .skipped
            .as_ref()
            .is_some_and(SkippedDamage::is_search_due)
        {
            state.pending.require_full_scan();
            self.core.changed.notify_all();
            state = self.core.wait_while(state, |state| {
                let is_searching = state.skipped.is_some() && state.pending.is_lagging();
                let is_building = matches!(state.phase, CataloguePhase::Building);
                (is_building || is_searching)
                    && state.phase.failure().is_none()
                    && state.closing.is_none()
            });
        }
        state.listings -= 1;
        match &state.phase {
            CataloguePhase::Ready => {}
            CataloguePhase::Building => return Err(Error::Closed),
            CataloguePhase::Suspended(reason) | CataloguePhase::Failed(reason) => {
                return Err(unavailable(reason));
            }
        }
        Ok(PendingSnapshot {
            pending: state.pending.range(prefix, first),
            rebuilds: state.rebuilds,
            skipped: state.skipped.as_ref().map(|skipped| skipped.error.clone()),
        })
    }

    /// Deletes the catalogue's directory, because sled keeps deleted entries in its files. Blocks
    /// until the directory is deleted. After the deletion, the catalogue is rebuilt in the
    /// background, and listings wait for the rebuild. A catalogue that is switched off is not
    /// rebuilt.
    ///
    /// # Errors
    /// - [`Error::Io`], [`Error::CatalogueUnavailable`]: the directory cannot be deleted.
    /// - [`Error::Poisoned`]: the data directory is no longer at its path.
    /// - [`Error::Closed`]: the engine was closed.
    pub(crate) fn rebuild(&self) -> Result<()> {
        let mut state = self.core.lock();
        state.removals_requested += 1;
        let requested = state.removals_requested;
        let suspensions = state.suspensions;
        self.core.changed.notify_all();
        // A suspended worker tries again at once if a removal is requested.
        let is_open = |state: &CatalogueState| {
            !matches!(state.phase, CataloguePhase::Failed(_))
                && state.suspensions == suspensions
                && state.closing.is_none()
        };
        let state = self.core.wait_while(state, |state| {
            state.removals_done < requested && is_open(state)
        });
        if state.removals_done >= requested {
            return Ok(());
        }
        if let CataloguePhase::Suspended(reason) = &state.phase {
            return Err(unavailable(reason));
        }
        drop(state);
        // The catalogue has failed or is switched off, so the calling thread deletes the directory.
        // The lock makes a concurrent close wait until the directory is deleted, because another
        // engine may open the data directory after the close.
        let _thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.core.lock().closing.is_some() {
            return Err(Error::Closed);
        }
        self.core.replace_tree(None);
        (self.core.check_directory)()?;
        let dir = &self.core.dir;
        worker::clear_dir(dir).map_err(|error| Error::io("clear", dir, error))
    }

    /// Ends the thread. If the catalogue is complete, its pending changes are written to sled
    /// before the thread ends. If the catalogue is complete and `clean` is given, a marker with
    /// this identity is also written, so that the next open can use the catalogue.
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

impl Drop for Catalogue {
    /// Ends the thread if the opening of the store has failed. After [`Self::close`], this does
    /// nothing.
    fn drop(&mut self) {
        self.close(None);
    }
}

fn unavailable(reason: &str) -> Error {
    Error::CatalogueUnavailable {
        reason: reason.to_owned(),
    }
}

fn entry(client: &[u8], value: CatalogueValue) -> CatalogueEntry {
    CatalogueEntry {
        client: lossy_text(client),
        stat: Stat::new(value.revision, value.modified_ms, value.usage),
    }
}
