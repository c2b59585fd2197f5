//! The engine: opens and closes a store, and lists the namespaces of users.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::api::handle::EngineHandle;
use crate::api::namespace::Namespace;
use crate::api::read::{NamespaceReader, Peek};
use crate::catalogue::marker::CatalogueIdentity;
use crate::catalogue::state::DocumentSource;
use crate::catalogue::{Catalogue, CatalogueEntry, UserUsage};
use crate::commit::committer::Committer;
use crate::commit::core::{Core, CoreState};
use crate::commit::counters::EngineCounters;
use crate::commit::group_commit::GroupCommit;
use crate::commit::queue::CommitQueue;
use crate::commit::writer::{Prepared, WriteContext, Writer};
use crate::format::summary::entry::SummaryEntry;
use crate::index::cache::DocumentCache;
use crate::index::document::Document;
use crate::index::loader;
use crate::index::table::Table;
use crate::maintenance::compaction;
use crate::model::config::Config;
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::names::{AsName, Names, invalid_client, invalid_user};
use crate::platform::semaphore::Semaphore;
use crate::platform::wakeup::Wakeup;
use crate::recovery::{RecoveredStore, recover};
use crate::storage::blobs::BlobStore;
use crate::storage::lock::DirectoryLock;
use crate::storage::log::directory::LogDirectory;
use crate::storage::pins::PinRegistry;
use crate::storage::reserve::{self, Reserve};

/// An open store.
///
/// `Engine` is a handle: cloning is cheap, and all clones use the same store. An `Engine` can be
/// used from many threads at the same time.
///
/// [`Engine::close`] closes the store. Each `Engine`, [`Namespace`] and [`Located`](crate::Located)
/// is a handle to the open store. Dropping the last of these handles also closes the store, but
/// cannot report errors. If the process ends without closing the store, the next open recovers all
/// acknowledged writes. After a crash of the machine, the next open recovers all acknowledged
/// writes with [`Durability::Sync`](crate::Durability::Sync), but writes with
/// [`Durability::Buffered`](crate::Durability::Buffered) may be lost.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let engine = Engine::open(Config::new(path))?;
/// let namespace = engine.namespace("user-1", "my-app")?;
/// let revision = namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
/// let document = namespace.get()?.expect("a document is stored");
/// assert_eq!(Some(document.stat().revision), revision);
/// assert_eq!(document.read()?, br#"{"theme":"dark"}"#);
/// engine.close()?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine(pub(super) Arc<EngineHandle>);

impl Engine {
    /// Opens the store in [`Config::data_dir`]. Creates the directory and an empty store if they
    /// do not exist.
    ///
    /// Blocks until the location of every document has been loaded into memory. If the store was
    /// closed with [`Engine::close`], `open` reads the manifest and the summaries of the log
    /// segments, but no documents. After a crash, `open` also reads the segment that was active at
    /// the time of the crash. The catalogue is opened in the background.
    ///
    /// Memory: the table of all documents usually uses less than 60 bytes for each document and for
    /// each tombstone (the record of a delete). [`Config`] has fields that limit the memory for
    /// caches, queues and the validation of large values.
    ///
    /// # Errors
    /// - [`Error::InvalidConfig`]: a setting is out of range.
    /// - [`Error::Locked`]: another engine, in this process or another one, has the directory
    ///   open.
    /// - [`Error::Corrupt`], [`Error::Unreadable`]: the manifest or the header of the active
    ///   segment is damaged, or the manifest is missing or outdated. A store with damage in other
    ///   files can be opened; see [`Self::damage`].
    /// - [`Error::UnsupportedFormat`]: the store has a format version that this version of the
    ///   engine cannot read. `open` does not change a store in an unsupported format.
    /// - [`Error::StorageFull`]: the disk has too little space for recovery.
    /// - [`Error::Io`].
    pub fn open(config: Config) -> Result<Self> {
        config.validate()?;
        let dir = &config.data_dir;
        let lock = DirectoryLock::acquire(dir)?;
        let recovered = recover_with_reserve(&config, &dir.join("log"))?;
        let wakeup = Arc::<Wakeup>::default();
        let table = Arc::new(recovered.table);
        let blobs = BlobStore::open(
            Arc::clone(&config.fs),
            &dir.join("blobs"),
            recovered.directory.store,
            recovered.blobs,
            table.loss().is_none(),
            Arc::clone(&wakeup),
        )?;
        let reserve = Reserve::open(
            Arc::clone(&config.fs),
            &dir.join("log"),
            config.reserve_bytes,
        );
        sync_directories(&config, dir)?;
        let identity = CatalogueIdentity {
            store: recovered.directory.store,
            next_revision: recovered.log.next_revision(),
        };
        let documents = document_source(
            recovered.directory.clone(),
            Arc::clone(&table),
            Arc::clone(&wakeup),
        );
        let catalogue = open_catalogue(&config, identity, documents)?;
        let core = Arc::new(Core {
            directory: recovered.directory,
            durability: config.durability,
            segment_bytes: config.segment_bytes,
            reserve_bytes: config.reserve_bytes,
            has_reserve: AtomicBool::new(reserve.is_available()),
            table,
            accounting: recovered.accounting,
            reader: recovered.reader,
            queue: CommitQueue::new(config.queue_bytes),
            pins: Arc::new(PinRegistry::new(Arc::clone(&wakeup))),
            compaction_wakeup: wakeup,
            counters: EngineCounters::new(Arc::clone(recovered.log.sync_latency())),
            catalogue,
            write_context: Arc::new(WriteContext {
                limits: config.limits,
                inline_bytes: config.inline_bytes,
                blobs,
                value_checks: Semaphore::new(config.value_checks),
            }),
            cache: DocumentCache::new(config.cache_bytes),
            damage: recovered.damage,
            state: CoreState::default(),
        });
        let committer = Committer::new(Arc::clone(&core), recovered.log, reserve);
        let group_commit = Arc::new(GroupCommit::new(Arc::clone(&core), committer));
        let commits = Arc::clone(&group_commit);
        let handle = EngineHandle {
            core: Arc::clone(&core),
            group_commit,
            committer: Mutex::new(Some(spawn(dir, "committer", move || commits.run())?)),
            compactor: Mutex::default(),
            closing: Semaphore::new(1),
            lock: Mutex::new(Some(lock)),
        };
        if config.background_compaction {
            let thread = spawn(dir, "compactor", move || compaction::run(&core))?;
            *handle
                .compactor
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(thread);
        }
        Ok(Self(Arc::new(handle)))
    }

    /// Returns a handle to the namespace of a user and a client, even if the namespace contains no
    /// document. Never blocks.
    ///
    /// # Errors
    /// [`Error::InvalidName`] if a name is empty, is longer than 255 bytes, or contains a control
    /// character.
    pub fn namespace(&self, user: impl AsName, client: impl AsName) -> Result<Namespace> {
        let names = Names::new(user, client)?;
        Ok(Namespace::new(Arc::clone(&self.0), names))
    }

    /// Returns the document of a user and a client, or `None` if no document is stored. Returns the
    /// same result as [`Namespace::get`], but does not allocate a handle. Blocks on the disk unless
    /// the document is in the cache.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; the errors of [`Namespace::get`].
    pub fn get(&self, user: impl AsName, client: impl AsName) -> Result<Option<Document>> {
        self.reader(&user, &client)?.get()
    }

    /// Looks up the document of a user and a client without accessing the disk. Returns the same
    /// result as [`Namespace::peek`], but allocates a handle only if the document is on disk. Never
    /// blocks on the disk, so `peek` can be called on an async worker thread.
    ///
    /// # Errors
    /// [`Error::InvalidName`]; the errors of [`Namespace::peek`].
    pub fn peek(&self, user: impl AsName, client: impl AsName) -> Result<Peek> {
        let reader = self.reader(&user, &client)?;
        reader.peek(|| Names::new(&user, &client))
    }

    fn reader<'a>(
        &'a self,
        user: &'a impl AsName,
        client: &'a impl AsName,
    ) -> Result<NamespaceReader<'a>> {
        let user = user.as_name_str().map_err(invalid_user)?;
        let client = client.as_name_str().map_err(invalid_client)?;
        let hash = self.core().directory.hash(user, client);
        Ok(NamespaceReader {
            handle: &self.0,
            user,
            client,
            hash,
        })
    }

    /// Returns a writer for a document that arrives in chunks. Never blocks.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.0.core.write_context))
    }

    /// Validates a document that is completely in memory, and prepares it for a commit.
    ///
    /// Blocks on the disk if the document is longer than [`Config::inline_bytes`], because a large
    /// document is written to a blob file and synced.
    ///
    /// # Errors
    /// The errors of [`Writer::write`] and [`Writer::finish`].
    pub fn prepare(&self, body: &[u8]) -> Result<Prepared> {
        Writer::prepare(&self.0.core.write_context, body)
    }

    /// Lists the namespaces of `user` that contain a document, in the byte order of their clients.
    /// Returns up to `limit` entries, starting after the client `after`. The result reflects every
    /// write that was acknowledged before the call.
    ///
    /// Blocks on the disk. The call also waits while the catalogue is being rebuilt after a crash
    /// or an erasure, and while the catalogue catches up after a burst of writes
    /// ([`Config::catalogue_pending_bytes`]).
    ///
    /// # Errors
    /// - [`Error::InvalidName`]: `user` is not a valid name.
    /// - [`Error::CatalogueUnavailable`]: the catalogue is disabled or has failed, or a rebuild of
    ///   the catalogue started during the call.
    /// - [`Error::Corrupt`]: the list could be incomplete, because a damaged frame may belong to
    ///   any user. [`Self::list_known`] returns the documents that are known.
    /// - [`Error::Closed`].
    pub fn list(
        &self,
        user: impl AsName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<CatalogueEntry>> {
        let user = user.as_name_str().map_err(invalid_user)?;
        self.core().check_listable()?;
        self.core().catalogue.list(user, after, limit)
    }

    /// Lists the namespaces of all users that contain a document, in the byte order of users and
    /// then clients. Returns up to `limit` pairs of a user and an entry, starting after the user
    /// and client `after`. Blocks like [`Self::list`].
    ///
    /// # Errors
    /// The errors of [`Self::list`], except [`Error::InvalidName`].
    pub fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        self.core().check_listable()?;
        self.core().catalogue.list_all(after, limit)
    }

    /// Lists the namespaces of all users like [`Self::list_all`], but does not fail if the list is
    /// incomplete because of damage. If `user` is given, lists only the namespaces of that user.
    /// Use `list_known` to rescue the documents of a damaged store. [`Self::damage`] returns the
    /// locations of the damage. Blocks like [`Self::list`].
    ///
    /// # Errors
    /// [`Error::InvalidName`]; [`Error::CatalogueUnavailable`]; [`Error::Closed`].
    pub fn list_known(
        &self,
        user: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        self.core().check_open()?;
        let catalogue = &self.core().catalogue;
        match user {
            None => catalogue.list_all(after, limit),
            Some(user) => {
                let user = user.as_name_str().map_err(invalid_user)?;
                let clients = catalogue.list(user, after.map(|(_, client)| client), limit)?;
                let named = clients.into_iter().map(|entry| (user.to_owned(), entry));
                Ok(named.collect())
            }
        }
    }

    /// Returns the number of documents of `user`, their total number of keys, and their total size
    /// in bytes. Blocks like [`Self::list`].
    ///
    /// # Errors
    /// The errors of [`Self::list`].
    pub fn usage(&self, user: impl AsName) -> Result<UserUsage> {
        let user = user.as_name_str().map_err(invalid_user)?;
        self.core().check_listable()?;
        self.core().catalogue.usage(user)
    }

    /// Returns a pseudonym for a user: a number that identifies the user, for example in logs, but
    /// does not reveal the name.
    ///
    /// The pseudonym of a user never changes, and is the same in copies of the store. The pseudonym
    /// is a hash of the name with a secret key, which is stored in the store. Without the key, it
    /// is impossible to check whether a pseudonym belongs to a given name. Never blocks.
    pub fn pseudonym(&self, user: &str) -> u64 {
        // The hash of a user with an empty client name is not the hash of any namespace, because
        // the client name of a namespace is never empty.
        self.core().directory.hash(user, "").halves().0
    }

    /// Returns the damage that was found when the store was opened. The list contains the first
    /// damage of each log segment in which a damaged frame may be the current frame of a namespace.
    /// In a damaged store, [`Self::list`], [`Self::list_all`] and [`Self::usage`] may fail, and the
    /// result of [`Self::list_known`] may be incomplete. Never blocks.
    pub fn damage(&self) -> &[Damage] {
        &self.core().damage
    }

    /// Counts the documents by iterating over the entire table in memory. [`Self::usage_on_disk`]
    /// returns the same number without iterating over the table.
    pub fn documents(&self) -> u64 {
        self.core().table.documents()
    }

    /// Checks that no failure has stopped all writes. Does not check whether the disk is full or
    /// the store is closed. Never blocks.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if an earlier failure, such as a failed sync of the log, has stopped all
    /// writes. To make writes possible again, close the store and open it again.
    pub fn writable(&self) -> Result<()> {
        self.core().poison().map_or(Ok(()), Err)
    }

    /// Closes the store: commits all queued writes, seals the log so that the next open is
    /// fast, removes obsolete files, and unlocks the directory.
    ///
    /// Reads and writes after `close` fail with [`Error::Closed`]. Blocks until the store is
    /// closed. If `close` is called a second time, the second call waits for the first one, and
    /// then does nothing.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::StorageFull`] or [`Error::Io`] if the log could not be sealed.
    /// After such an error, the next open recovers the store as after a crash.
    pub fn close(&self) -> Result<()> {
        self.0.close()
    }

    pub(crate) fn core(&self) -> &Core {
        &self.0.core
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("log", &self.core().directory.dir)
            .finish_non_exhaustive()
    }
}

/// Recovers the store. If the disk is too full for recovery, removes the reserve file to free disk
/// space, and tries again.
fn recover_with_reserve(config: &Config, log: &Path) -> Result<RecoveredStore> {
    let recover = || recover(&config.fs, log, config.segment_bytes, config.open_segments);
    match recover() {
        Err(Error::StorageFull { .. }) if reserve::release(&*config.fs, log) => recover(),
        other => other,
    }
}

fn open_catalogue(
    config: &Config,
    identity: CatalogueIdentity,
    documents: DocumentSource,
) -> Result<Catalogue> {
    let dir = config.data_dir.join("catalogue");
    if !config.catalogue {
        return Ok(Catalogue::disabled(&dir));
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

/// Syncs the data directory and its parent, so that the directory entries of `log/`, `blobs/` and
/// the data directory survive a power cut. If the directory entries were lost, the synced files in
/// the directories could not be found.
fn sync_directories(config: &Config, dir: &Path) -> Result<()> {
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

/// Returns the source from which the catalogue is built: a function that visits every current
/// document.
///
/// Compaction may move a document during the visit. A moved document keeps its revision, so the
/// visit recognizes the document as current at the old and at the new location. The visit finds
/// every document, because no segment file is removed until the visit ends.
fn document_source(
    directory: LogDirectory,
    table: Arc<Table>,
    compaction_wakeup: Arc<Wakeup>,
) -> DocumentSource {
    Box::new(move |after, visit| {
        let is_current = |_, entry: &SummaryEntry| {
            entry.revision > after && table.is_current(entry.hash, entry.revision)
        };
        let visited = loader::visit(&directory, is_current, visit);
        // Wakes the compaction thread, which could not remove obsolete segment files during the
        // visit.
        compaction_wakeup.notify();
        visited
    })
}
