//! The engine: what opens, ties together and closes everything else.

mod upkeep;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::blob::Blobs;
use crate::cache::DocumentCache;
use crate::catalogue::{self, Catalogue, Identity, Source, UserUsage};
use crate::commit::{Change, Outcome, Queue};
use crate::committer::{Committer, Turns};
use crate::compaction::{self, Bell};
use crate::config::Config;
use crate::document::Document;
use crate::documents;
use crate::error::{Error, Result};
use crate::lock::DirectoryLock;
use crate::log::place::Place;
use crate::log::summary;
use crate::lookup::Lookup;
use crate::metrics::Meters;
use crate::names::{Names, valid};
use crate::namespace::{Namespace, Peek};
use crate::pins::Pins;
use crate::recovery::{Recovered, recover};
use crate::reserve::{self, Reserve};
use crate::shared::{Shared, State};
use crate::table::Table;
use crate::writer::{Intake, Permits, Prepared, Writer};

/// An open data directory. A cheap handle: clones are the same engine.
///
/// [`Engine::close`] closes it; dropping the last handle does so too, unable to
/// report a failure. After a crash the next open finds every acknowledged write.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let namespace = engine.namespace("user-1", "my-app")?;
/// let revision = namespace.put(br#"{"theme":"dark"}"#, WriteOptions::default())?;
/// let document = namespace.get()?.expect("it was put");
/// assert_eq!(document.stat().revision, revision);
/// assert_eq!(document.read()?, br#"{"theme":"dark"}"#);
/// engine.close()?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine(Arc<Owner>);

/// The handles' end: what must happen once none is left.
struct Owner {
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    committer: Mutex<Option<JoinHandle<Result<()>>>>,
    compactor: Mutex<Option<JoinHandle<()>>>,
    /// Given up last.
    lock: Mutex<Option<DirectoryLock>>,
}

impl Engine {
    /// Opens the store in a directory, which is made where it is missing. Blocks
    /// until every document is found; the catalogue is opened in the background.
    ///
    /// Memory: the table takes less than 60 bytes for each document, and the budgets in
    /// [`Config`] come on top.
    ///
    /// # Errors
    /// [`Error::Locked`] where another engine has it open; [`Error::Corrupt`] where
    /// the manifest, or the segment that was being written, is damaged beyond what
    /// can be told apart; [`Error::UnsupportedFormat`]; [`Error::InvalidConfig`];
    /// [`Error::StorageFull`] where there is no room to finish a crashed write.
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let dir = &config.data_dir;
        let lock = DirectoryLock::acquire(dir)?;
        let recovered = recover_with_reserve(&config, &dir.join("log"))?;
        let bell = Arc::<Bell>::default();
        let table = Arc::new(recovered.table);
        let blobs = Blobs::open(
            Arc::clone(&config.fs),
            &dir.join("blobs"),
            recovered.place.store,
            recovered.blobs,
            table.loss().is_none(),
            Arc::clone(&bell),
        )?;
        let reserve = Reserve::open(
            Arc::clone(&config.fs),
            &dir.join("log"),
            config.reserve_bytes,
        );
        sync_names(&config, dir)?;
        let identity = Identity {
            store: recovered.place.store,
            next_revision: recovered.log.next_revision(),
        };
        let documents = source(
            recovered.place.clone(),
            Arc::clone(&table),
            Arc::clone(&bell),
        );
        let catalogue = open_catalogue(&config, identity, documents)?;
        let shared = Arc::new(Shared {
            place: recovered.place,
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            has_reserve: AtomicBool::new(reserve.is_held()),
            table,
            space: recovered.space,
            reader: recovered.reader,
            queue: Queue::new(config.queue_bytes),
            pins: Arc::new(Pins::new(Arc::clone(&bell))),
            bell,
            meters: Meters::new(Arc::clone(recovered.log.sync_times())),
            catalogue,
            intake: Arc::new(Intake {
                limits: config.limits,
                inline_bytes: config.inline_bytes,
                blobs,
                permits: Permits::new(config.value_checks),
            }),
            cache: DocumentCache::new(config.cache_bytes),
            state: State::default(),
        });
        let committer = Committer::new(Arc::clone(&shared), recovered.log, reserve);
        let turns = Arc::new(Turns::new(Arc::clone(&shared), committer));
        let commits = Arc::clone(&turns);
        let owner = Owner {
            shared: Arc::clone(&shared),
            turns,
            committer: Mutex::new(Some(spawn(dir, "committer", move || commits.run())?)),
            compactor: Mutex::default(),
            lock: Mutex::new(Some(lock)),
        };
        if config.background_compaction {
            let thread = spawn(dir, "compactor", move || compaction::run(&shared))?;
            *owner
                .compactor
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(Self(Arc::new(owner)))
    }

    /// The namespace of a user and a client. No I/O; it need not hold a document.
    ///
    /// # Errors
    /// [`Error::InvalidName`] unless both are 1 to 255 bytes without control
    /// characters.
    pub fn namespace(&self, user: &str, client: &str) -> Result<Namespace> {
        let names = Names::new(user, client)?;
        Ok(Namespace::new(self.clone(), names))
    }

    /// The document of a user and a client, as [`Namespace::get`]: for a read or two,
    /// without a handle.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Namespace::get`].
    pub fn get(&self, user: &str, client: &str) -> Result<Option<Document>> {
        self.lookup(user, client)?.get()
    }

    /// The document of a user and a client, as far as that needs no disk, as
    /// [`Namespace::peek`]: without a handle, which takes memory.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Namespace::peek`].
    pub fn peek(&self, user: &str, client: &str) -> Result<Peek> {
        self.lookup(user, client)?.peek()
    }

    fn lookup<'a>(&'a self, user: &'a str, client: &'a str) -> Result<Lookup<'a>> {
        let (user, client) = (valid("user", user)?, valid("client", client)?);
        let shared = self.shared();
        let hash = shared.hash(user, client);
        Ok(Lookup {
            shared,
            user,
            client,
            hash,
        })
    }

    /// A way in for a document that comes in chunks. No I/O yet.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.0.shared.intake))
    }

    /// Checks a document that is whole in memory, as a [`Writer`] would. Blocks on the
    /// disk where the document is past [`Config::inline_bytes`].
    ///
    /// # Errors
    /// Those of [`Writer::write`] and [`Writer::finish`].
    pub fn prepare(&self, body: &[u8]) -> Result<Prepared> {
        Writer::prepare(&self.0.shared.intake, body)
    }

    /// Up to `limit` namespaces of `user` that hold a document, in the order of the
    /// clients' bytes, from behind the client `after`. Sees every acknowledged write.
    ///
    /// Blocks on the disk, and while the catalogue is rebuilt after a crash, or catches up
    /// with writes that it was too slow for ([`Config::catalogue_pending_bytes`]).
    ///
    /// # Errors
    /// [`Error::CatalogueUnavailable`]; [`Error::Corrupt`] where damage to the log
    /// leaves it unknown what belongs to a user; [`Error::Closed`].
    pub fn list(
        &self,
        user: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<catalogue::Entry>> {
        valid("user", user)?;
        self.shared().refuse_partial()?;
        self.shared().catalogue.list(user, after, limit)
    }

    /// Up to `limit` namespaces of the whole store that come after `after`, a user and a
    /// client, in the order of the users' bytes, then the clients': each user and what
    /// [`Self::list`] has of it. Blocks and fails as that does.
    pub fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, catalogue::Entry)>> {
        self.shared().refuse_partial()?;
        self.shared().catalogue.list_all(after, limit)
    }

    /// What the documents of `user` take together. Blocks and fails as [`Self::list`].
    pub fn usage(&self, user: &str) -> Result<UserUsage> {
        valid("user", user)?;
        self.shared().refuse_partial()?;
        self.shared().catalogue.usage(user)
    }

    /// A number that stands for a user where the name must not be seen, as in a log: the
    /// same for as long as the store lives, and in its copies. Keyed with a secret of the
    /// store, so that nobody who knows only it can try names.
    pub fn pseudonym(&self, user: &str) -> u64 {
        // No namespace has an empty client.
        self.shared().place.hash(user, "").halves().0
    }

    /// Documents stored. Walks the whole table.
    pub fn documents(&self) -> u64 {
        self.shared().table.documents()
    }

    /// Whether writes are possible.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed sync of the log.
    pub fn writable(&self) -> Result<()> {
        self.shared().poison().map_or(Ok(()), Err)
    }

    /// Commits what is queued, refuses everything after it, and closes the store so
    /// that the next open is quick. Blocks. A second call does nothing.
    ///
    /// # Errors
    /// Where the log could not be sealed. What was acknowledged is safe all the same.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }

    /// Commits a change. Blocks.
    pub(crate) fn commit(&self, change: Change) -> Outcome {
        self.0.turns.commit(change)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("log", &self.shared().place.dir)
            .finish_non_exhaustive()
    }
}

impl Owner {
    fn close(&self) -> Result<()> {
        self.shared.queue.close();
        self.shared.bell.close();
        self.shared.close();
        // Held throughout, so that a second call returns no sooner than the first.
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = self
            .committer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let outcome = match thread.map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            // A panic there is a bug; what it had acknowledged is on the disk.
            Some(Err(_)) => Err(Error::Closed),
        };
        let compactor = self
            .compactor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let _ = compactor.map(JoinHandle::join);
        if lock.is_some() {
            let _ = compaction::sweep(&self.shared);
        }
        *lock = None;
        outcome
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// Finds what is on the disk. A disk that is too full to finish what a crash left gets
/// the space that is kept for deletes.
fn recover_with_reserve(config: &Config, log: &Path) -> Result<Recovered> {
    let recover = || recover(&config.fs, log, config.segment_bytes, config.open_segments);
    match recover() {
        Err(Error::StorageFull { .. }) if reserve::release(&*config.fs, log) => recover(),
        other => other,
    }
}

fn open_catalogue(config: &Config, identity: Identity, documents: Source) -> Result<Catalogue> {
    let dir = config.data_dir.join("catalogue");
    if !config.catalogue {
        return Ok(Catalogue::none(&dir));
    }
    Catalogue::open(
        &dir,
        config.catalogue_cache_bytes,
        config.catalogue_pending_bytes,
        identity,
        documents,
    )
}

fn spawn<T: Send + 'static>(
    dir: &Path,
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(format!("prefd-{name}"))
        .spawn(run)
        .map_err(|error| Error::io("start a thread for", dir, error))
}

/// Puts the names of `log/` and `blobs/`, and of the directory itself, on stable
/// storage: without them, what is synced inside could not be found again.
fn sync_names(config: &Config, dir: &Path) -> Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    for dir in [Some(dir), parent.or(Some(Path::new(".")))]
        .into_iter()
        .flatten()
    {
        config
            .fs
            .sync_dir(dir)
            .map_err(|error| Error::io("sync", dir, error))?;
    }
    Ok(())
}

/// Every current document, to build the catalogue from. One that compaction moves
/// meanwhile is found where it was, whose file is held, or where it went: by revision.
fn source(place: Place, table: Arc<Table>, bell: Arc<Bell>) -> Source {
    Box::new(move |after, visit| {
        let is_current = |_, entry: &summary::Entry| {
            entry.revision > after && table.is_current(entry.hash, entry.revision)
        };
        let walked = documents::visit(&place, is_current, visit);
        // Files that were to go meanwhile can go now.
        bell.ring();
        walked
    })
}
