//! The catalogue: what belongs to a user, in order, with its sizes.
//!
//! It is derived from the log and written behind the acknowledgement: a change is
//! pending until the catalogue's thread has put it into the tree, and pending changes
//! override what that says, so that a listing sees every acknowledged write. sled
//! never decides anything: where it fails, panics, or is not exactly what the last
//! clean close left, it is thrown away and built again, and listings wait for that.

mod audit;
mod keeper;
mod marker;
mod pace;
mod pending;
mod tree;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use crate::document::Stat;
use crate::error::{Error, Result};
use crate::fields::Fields;
use crate::limits::Usage;
use crate::names::Names;
pub(crate) use audit::{Audit, audit};
use keeper::Keeper;
pub(crate) use marker::{Identity, bytes_on_disk};
use pending::Pending;
use tree::{Tree, TreeFailure};

/// A namespace of a user, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
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

/// A user and a client with a NUL between them: names hold no control characters,
/// so these sort by user, then client.
type Key = Vec<u8>;

/// `None`: the namespace is empty.
type Change = Option<Value>;

/// What is known of one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) revision: u64,
    pub(crate) modified_ms: u64,
    pub(crate) usage: Usage,
}

impl Value {
    const BYTES: usize = 28;

    fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let fields = self
            .revision
            .to_le_bytes()
            .into_iter()
            .chain(self.modified_ms.to_le_bytes())
            .chain(self.usage.bytes.to_le_bytes())
            .chain(self.usage.keys.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let value = Self {
            revision: fields.u64()?,
            modified_ms: fields.u64()?,
            usage: Usage {
                bytes: fields.u64()?,
                keys: fields.u32()?,
            },
        };
        fields.is_empty().then_some(value)
    }
}

/// Yields every document that is current and has a higher revision than this one, to
/// build the catalogue from.
pub(crate) type Source =
    Box<dyn Fn(u64, &mut dyn FnMut(&str, &str, Value) -> Result<()>) -> Result<()> + Send>;

pub(crate) struct Catalogue {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: PathBuf,
    cache_bytes: u64,
    state: Mutex<State>,
    changed: Condvar,
    /// Held for reading while it is read, so that a close waits for that.
    tree: RwLock<Option<Tree>>,
}

struct State {
    phase: Phase,
    pending: Pending,
    /// Listings that wait for a phase in which they can be answered.
    listings: usize,
    /// What a listing failed on: the catalogue must be built again.
    read_failure: Option<String>,
    /// How often the folder was to be removed, and how many of these times it was.
    removals_asked: u64,
    removals_done: u64,
    closing: Option<Closing>,
}

enum Phase {
    /// Being opened, or behind: documents are missing.
    Building,
    Ready,
    /// Given up until the next open.
    Failed(String),
}

/// How the thread ends.
#[derive(Clone, Copy)]
struct Closing {
    /// What the catalogue then stands for, if it may be trusted at the next open.
    clean: Option<Identity>,
}

impl Catalogue {
    /// None: listings fail, and nothing is recorded. In the folder may be what an earlier
    /// life left.
    pub(crate) fn none(dir: &Path) -> Self {
        let phase = Phase::Failed("it is switched off".to_owned());
        Self {
            shared: Arc::new(Shared::new(dir, 0, 0, phase)),
            thread: Mutex::default(),
        }
    }

    /// Opens it in the background. `identity` is what it must stand for, as its last
    /// clean close wrote it down; otherwise it is rebuilt from `source`.
    pub(crate) fn open(
        dir: &Path,
        cache_bytes: u64,
        max_pending_bytes: u64,
        identity: Identity,
        source: Source,
    ) -> Result<Self> {
        let shared = Shared::new(dir, cache_bytes, max_pending_bytes, Phase::Building);
        let shared = Arc::new(shared);
        let keeper = Keeper {
            shared: Arc::clone(&shared),
            source,
        };
        let thread = std::thread::Builder::new()
            .name("prefd-catalogue".to_owned())
            .spawn(move || {
                let shared = Arc::clone(&keeper.shared);
                // Were it to end by a panic, listings would wait for it for ever.
                if catch_unwind(AssertUnwindSafe(|| keeper.run(identity))).is_err() {
                    shared.give_up("its thread panicked".to_owned());
                }
            })
            .map_err(|error| Error::io("start a thread for", dir, error))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes up changes that are about to be acknowledged, with their revisions. Never
    /// waits for sled; whether the next ones should.
    pub(crate) fn record<'a>(
        &self,
        changes: impl Iterator<Item = (&'a Names, u64, Change)>,
    ) -> bool {
        let mut state = self.shared.lock();
        if matches!(state.phase, Phase::Failed(_)) {
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
            if matches!(state.phase, Phase::Ready) {
                state.phase = Phase::Building;
            }
        }
        let is_over_budget = state.pending.is_over_budget();
        let is_news = was_empty != state.pending.is_empty()
            || was_behind != state.pending.is_behind()
            || is_over_budget;
        drop(state);
        // A wake-up takes longer than a write that need not be synced.
        if is_news {
            self.shared.changed.notify_all();
        }
        is_over_budget
    }

    /// Memory that pending changes take.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.shared.lock().pending.bytes()
    }

    /// Waits until the pending changes are within their budget: where puts are let go,
    /// there are too many deletes, or a listing waits.
    pub(crate) fn wait_for_room(&self) {
        let state = self.shared.lock();
        drop(self.shared.wait_while(state, |state| {
            state.pending.is_over_budget()
                && !matches!(state.phase, Phase::Failed(_))
                && state.closing.is_none()
        }));
    }

    /// Up to `limit` namespaces of `user` that come after the client `after`, in the
    /// order of the clients' bytes. Waits for a rebuild.
    pub(crate) fn list(&self, user: &str, after: Option<&str>, limit: usize) -> Result<Vec<Entry>> {
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
    ) -> Result<Vec<(String, Entry)>> {
        let mut entries = Vec::new();
        if limit > 0 {
            let first = match after {
                Some((user, client)) => Bound::Excluded(key(user, client)),
                None => Bound::Included(Key::new()),
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
        self.scan_user(user, None, |Entry { stat, .. }| {
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
        mut visit: impl FnMut(Entry) -> bool,
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
        first: Bound<Key>,
        mut visit: impl FnMut(&[u8], Value) -> bool,
    ) -> Result<()> {
        // Before the tree is looked at: what leaves the pending changes meanwhile is
        // in the tree by then.
        let pending = self.pending(prefix, &first)?;
        let tree = self
            .shared
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
    fn fail(&self, TreeFailure(reason): TreeFailure) -> Error {
        let error = unavailable(&reason);
        self.shared.lock().read_failure = Some(reason);
        self.shared.changed.notify_all();
        error
    }

    /// The pending changes of a user from `first` on, once there is a tree that they
    /// can override.
    fn pending(&self, prefix: &[u8], first: &Bound<Key>) -> Result<BTreeMap<Key, Change>> {
        let mut state = self.shared.lock();
        state.listings += 1;
        self.shared.changed.notify_all();
        let mut state = self.shared.wait_while(state, |state| {
            matches!(state.phase, Phase::Building) && state.closing.is_none()
        });
        state.listings -= 1;
        match &state.phase {
            Phase::Ready => {}
            Phase::Building => return Err(Error::Closed),
            Phase::Failed(reason) => return Err(unavailable(reason)),
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
        let mut state = self.shared.lock();
        state.removals_asked += 1;
        let asked = state.removals_asked;
        self.shared.changed.notify_all();
        let is_open =
            |state: &State| !matches!(state.phase, Phase::Failed(_)) && state.closing.is_none();
        let state = self
            .shared
            .wait_while(state, |state| state.removals_done < asked && is_open(state));
        if state.removals_done >= asked {
            return Ok(());
        }
        drop(state);
        // Nobody keeps it any more. A close, behind which others may open it, waits.
        let _thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.lock().closing.is_some() {
            return Err(Error::Closed);
        }
        self.shared.replace_tree(None);
        let dir = &self.shared.dir;
        keeper::remove_dir(dir).map_err(|error| Error::io("remove", dir, error))
    }

    /// Ends the thread. With an identity, what is pending is put into sled, and the
    /// catalogue is marked as whole.
    pub(crate) fn close(&self, clean: Option<Identity>) {
        self.shared.lock().closing.get_or_insert(Closing { clean });
        self.shared.changed.notify_all();
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

impl Shared {
    fn new(dir: &Path, cache_bytes: u64, max_pending_bytes: u64, phase: Phase) -> Self {
        Self {
            dir: dir.to_owned(),
            cache_bytes,
            state: Mutex::new(State {
                phase,
                pending: Pending::new(max_pending_bytes),
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        condition: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, condition)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has listings fail until the next open. Documents are not touched by that.
    fn give_up(&self, reason: String) {
        let mut state = self.lock();
        state.phase = Phase::Failed(reason);
        state.pending.clear();
        drop(state);
        self.changed.notify_all();
    }

    fn replace_tree(&self, tree: Option<Tree>) {
        *self.tree.write().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}

fn unavailable(reason: &str) -> Error {
    Error::CatalogueUnavailable {
        reason: reason.to_owned(),
    }
}

/// The user and the client of a key.
fn parts(key: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = key.splitn(2, |byte| *byte == 0);
    let user = parts.next().unwrap_or_default();
    (user, parts.next().unwrap_or_default())
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn entry(client: &[u8], value: Value) -> Entry {
    Entry {
        client: text(client),
        stat: Stat::new(value.revision, value.modified_ms, value.usage),
    }
}

fn key(user: &str, client: &str) -> Key {
    let mut key = Vec::with_capacity(user.len() + 1 + client.len());
    key.extend_from_slice(user.as_bytes());
    key.push(0);
    key.extend_from_slice(client.as_bytes());
    key
}
