//! The engine: opens a store, and answers what concerns more than one namespace.

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
use crate::model::names::{Names, valid};
use crate::platform::semaphore::Semaphore;
use crate::platform::wakeup::Wakeup;
use crate::recovery::{RecoveredStore, recover};
use crate::storage::blobs::BlobStore;
use crate::storage::lock::DirectoryLock;
use crate::storage::log::directory::LogDirectory;
use crate::storage::pins::PinRegistry;
use crate::storage::reserve::{self, Reserve};

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
/// let revision = namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
/// let document = namespace.get()?.expect("it was put");
/// assert_eq!(Some(document.stat().revision), revision);
/// assert_eq!(document.read()?, br#"{"theme":"dark"}"#);
/// engine.close()?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct Engine(pub(super) Arc<EngineHandle>);

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
        sync_names(&config, dir)?;
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

    /// The namespace of a user and a client. No I/O; it need not hold a document.
    ///
    /// # Errors
    /// [`Error::InvalidName`] unless both are 1 to 255 bytes without control
    /// characters.
    pub fn namespace(&self, user: &str, client: &str) -> Result<Namespace> {
        let names = Names::new(user, client)?;
        Ok(Namespace::new(Arc::clone(&self.0), names))
    }

    /// The document of a user and a client, as [`Namespace::get`]: for a read or two,
    /// without a handle.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Namespace::get`].
    pub fn get(&self, user: &str, client: &str) -> Result<Option<Document>> {
        self.reader(user, client)?.get()
    }

    /// The document of a user and a client, as far as that needs no disk, as
    /// [`Namespace::peek`]: without a handle, which takes memory.
    ///
    /// # Errors
    /// [`Error::InvalidName`], and those of [`Namespace::peek`].
    pub fn peek(&self, user: &str, client: &str) -> Result<Peek> {
        self.reader(user, client)?.peek()
    }

    fn reader<'a>(&'a self, user: &'a str, client: &'a str) -> Result<NamespaceReader<'a>> {
        let (user, client) = (valid("user", user)?, valid("client", client)?);
        let hash = self.core().directory.hash(user, client);
        Ok(NamespaceReader {
            handle: &self.0,
            user,
            client,
            hash,
        })
    }

    /// A way in for a document that comes in chunks. No I/O yet.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.0.core.write_context))
    }

    /// Checks a document that is whole in memory, as a [`Writer`] would. Blocks on the
    /// disk where the document is past [`Config::inline_bytes`].
    ///
    /// # Errors
    /// Those of [`Writer::write`] and [`Writer::finish`].
    pub fn prepare(&self, body: &[u8]) -> Result<Prepared> {
        Writer::prepare(&self.0.core.write_context, body)
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
    ) -> Result<Vec<CatalogueEntry>> {
        valid("user", user)?;
        self.core().refuse_partial()?;
        self.core().catalogue.list(user, after, limit)
    }

    /// Up to `limit` namespaces of the whole store that come after `after`, a user and a
    /// client, in the order of the users' bytes, then the clients': each user and what
    /// [`Self::list`] has of it. Blocks and fails as that does.
    pub fn list_all(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        self.core().refuse_partial()?;
        self.core().catalogue.list_all(after, limit)
    }

    /// The namespaces that [`Self::list_all`] would return, or those of one user, even if
    /// damage to the log leaves it unknown whether there are more. For rescuing what can be
    /// read; [`Self::damage`] tells what may be missing. Blocks as [`Self::list`] does.
    ///
    /// # Errors
    /// [`Error::CatalogueUnavailable`]; [`Error::Closed`].
    pub fn list_known(
        &self,
        user: Option<&str>,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Result<Vec<(String, CatalogueEntry)>> {
        self.core().refuse_closed()?;
        let catalogue = &self.core().catalogue;
        match user {
            None => catalogue.list_all(after, limit),
            Some(user) => {
                valid("user", user)?;
                let clients = catalogue.list(user, after.map(|(_, client)| client), limit)?;
                let named = clients.into_iter().map(|entry| (user.to_owned(), entry));
                Ok(named.collect())
            }
        }
    }

    /// What the documents of `user` take together. Blocks and fails as [`Self::list`].
    pub fn usage(&self, user: &str) -> Result<UserUsage> {
        valid("user", user)?;
        self.core().refuse_partial()?;
        self.core().catalogue.usage(user)
    }

    /// A number that stands for a user where the name must not be seen, as in a log: the
    /// same for as long as the store lives, and in its copies. Keyed with a secret of the
    /// store, so that nobody who knows only it can try names.
    pub fn pseudonym(&self, user: &str) -> u64 {
        // No namespace has an empty client.
        self.core().directory.hash(user, "").halves().0
    }

    /// The first damage of each segment that was found damaged when the store was opened,
    /// if a damaged frame may be the current one of a document. While this is not empty,
    /// [`Self::list`] and its siblings may refuse, and [`Self::list_known`] may be incomplete.
    /// No I/O.
    pub fn damage(&self) -> &[Damage] {
        &self.core().damage
    }

    /// Documents stored. Walks the whole table.
    pub fn documents(&self) -> u64 {
        self.core().table.documents()
    }

    /// Whether writes are possible.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed sync of the log.
    pub fn writable(&self) -> Result<()> {
        self.core().poison().map_or(Ok(()), Err)
    }

    /// Commits what is queued, refuses everything after it, and closes the store so
    /// that the next open is quick. Blocks. A second call does nothing.
    ///
    /// # Errors
    /// Where the log could not be sealed. What was acknowledged is safe all the same.
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

/// Finds what is on the disk. A disk that is too full to finish what a crash left gets
/// the space that is kept for deletes.
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

/// Visits every current document, to build the catalogue from. A document that compaction
/// moves meanwhile is found by its revision: either at its old place, whose file is kept
/// until the visit ends, or at its new one.
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
        // Files that became obsolete during the visit can be removed now.
        compaction_wakeup.notify();
        visited
    })
}
