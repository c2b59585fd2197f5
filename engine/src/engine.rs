//! The engine: what opens, ties together and closes everything else.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::blob::Blobs;
use crate::catalogue::{self, Catalogue, Identity, Source, UserUsage, Value};
use crate::commit::Queue;
use crate::committer::Committer;
use crate::config::{Config, Durability};
use crate::document::Document;
use crate::error::{Error, Result};
use crate::limits::Usage;
use crate::lock::DirectoryLock;
use crate::log::reader::Reader;
use crate::log::segment;
use crate::log::summary::EntryKind;
use crate::names::{Names, NamespaceHash, valid};
use crate::namespace::Namespace;
use crate::recovery::{Place, recover};
use crate::table::Table;
use crate::writer::{Intake, Permits, Writer};

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
    committer: Mutex<Option<JoinHandle<Result<()>>>>,
    /// Given up last.
    lock: Mutex<Option<DirectoryLock>>,
}

/// What namespaces, the committer and the handles share.
pub(crate) struct Shared {
    pub(crate) place: Place,
    pub(crate) durability: Durability,
    pub(crate) table: Arc<Table>,
    pub(crate) reader: Reader,
    pub(crate) queue: Queue,
    pub(crate) catalogue: Catalogue,
    pub(crate) intake: Arc<Intake>,
    cache: Cache<NamespaceHash, Document, DocumentWeight>,
    poison: Mutex<Option<Error>>,
    closed: AtomicBool,
}

/// Weighs cached documents in bytes.
#[derive(Clone)]
struct DocumentWeight;

impl Weighter<NamespaceHash, Document> for DocumentWeight {
    fn weight(&self, _: &NamespaceHash, document: &Document) -> u64 {
        document.weight()
    }
}

/// Bytes of a typical document: the cache sizes its index by it.
const TYPICAL_DOCUMENT_BYTES: u64 = 1024;

impl Engine {
    /// Opens the store in a directory, which is made where it is missing. Blocks
    /// until every document is found; the catalogue is opened in the background.
    ///
    /// Memory: the table takes 47 to 94 bytes for each document, and the budgets in
    /// [`Config`] come on top.
    ///
    /// # Errors
    /// [`Error::Locked`] where another engine has it open; [`Error::Corrupt`] where
    /// the manifest, or the segment that was being written, is damaged beyond what
    /// can be told apart; [`Error::UnsupportedFormat`]; [`Error::InvalidConfig`];
    /// [`Error::StorageFull`] where there is no room to finish a crashed write.
    pub fn open(config: Config) -> Result<Self> {
        Self::open_with(config, Catalogue::open)
    }

    /// The same with a catalogue that `open_catalogue` opens.
    pub(crate) fn open_with(
        config: Config,
        open_catalogue: impl FnOnce(&Path, u64, u64, Identity, Source) -> Result<Catalogue>,
    ) -> Result<Self> {
        config.validate()?;
        let dir = &config.data_dir;
        let lock = DirectoryLock::acquire(dir)?;
        let recovered = recover(
            &config.fs,
            &dir.join("log"),
            config.segment_bytes,
            config.open_segments,
        )?;
        let table = Arc::new(recovered.table);
        let blobs = Blobs::open(
            Arc::clone(&config.fs),
            &dir.join("blobs"),
            recovered.place.store,
            recovered.blobs,
            table.loss().is_none(),
        )?;
        sync_names(&config, dir)?;
        let catalogue = open_catalogue(
            &dir.join("catalogue"),
            config.catalogue_cache_bytes,
            config.catalogue_pending_bytes,
            Identity {
                store: recovered.place.store,
                next_revision: recovered.log.next_revision(),
            },
            source(recovered.place.clone(), Arc::clone(&table)),
        )?;
        let shared = Arc::new(Shared {
            place: recovered.place,
            durability: config.durability,
            table,
            reader: recovered.reader,
            queue: Queue::new(config.queue_bytes),
            catalogue,
            intake: Arc::new(Intake {
                limits: config.limits,
                inline_bytes: config.inline_bytes,
                blobs,
                permits: Permits::new(config.value_checks),
            }),
            cache: Cache::with_weighter(
                usize::try_from(config.cache_bytes / TYPICAL_DOCUMENT_BYTES).unwrap_or(usize::MAX),
                config.cache_bytes,
                DocumentWeight,
            ),
            poison: Mutex::new(None),
            closed: AtomicBool::new(false),
        });
        let committer = Committer::new(Arc::clone(&shared), recovered.log);
        let thread = std::thread::Builder::new()
            .name("prefd-committer".to_owned())
            .spawn(move || committer.run())
            .map_err(|error| Error::io("start the committer for", dir, error))?;
        Ok(Self(Arc::new(Owner {
            shared,
            committer: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        })))
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

    /// A way in for a document that comes in chunks. No I/O yet.
    pub fn writer(&self) -> Writer {
        Writer::new(Arc::clone(&self.0.shared.intake))
    }

    /// Up to `limit` namespaces of `user` that hold a document, in the order of the
    /// clients' bytes, from behind the client `after`. Sees every acknowledged write.
    ///
    /// Blocks on the disk, and while the catalogue is being rebuilt after a crash.
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

    /// What the documents of `user` take together. Blocks and fails as [`Self::list`].
    pub fn usage(&self, user: &str) -> Result<UserUsage> {
        valid("user", user)?;
        self.shared().refuse_partial()?;
        self.shared().catalogue.usage(user)
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
        self.shared.closed.store(true, Ordering::Release);
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
        *lock = None;
        outcome
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl Shared {
    pub(crate) fn hash(&self, names: &Names) -> NamespaceHash {
        NamespaceHash::of(&self.place.hash_key, &names.user, &names.client)
    }

    /// The document at `revision`, if it is in the cache.
    pub(crate) fn cached(&self, hash: NamespaceHash, revision: u64) -> Option<Document> {
        self.cache
            .get(&hash)
            .filter(|document| document.stat().revision.get() == revision)
    }

    pub(crate) fn cache(&self, hash: NamespaceHash, document: &Document) {
        // A document with blobs holds files open, which are scarcer than memory.
        if document.in_memory().is_some() {
            self.cache.insert(hash, document.clone());
        }
    }

    pub(crate) fn refuse_closed(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        Ok(())
    }

    pub(crate) fn poison(&self) -> Option<Error> {
        self.poison
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_poison(&self, error: Error) {
        *self.poison.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The error of a namespace whose newest frame, at this place, cannot be read.
    pub(crate) fn unreadable(&self, segment: u32, offset: u32) -> Error {
        Error::corrupt(
            &segment::path(&self.place.dir, segment),
            offset.into(),
            "a frame here cannot be read",
        )
    }

    /// Where a frame of an unknown namespace is lost, no listing is known to be whole.
    fn refuse_partial(&self) -> Result<()> {
        self.refuse_closed()?;
        self.table.loss().map_or(Ok(()), |loss| {
            Err(self.unreadable(loss.segment, loss.offset))
        })
    }
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

/// Every current document, read from the log's summaries.
fn source(place: Place, table: Arc<Table>) -> Source {
    Box::new(move |visit| {
        for id in place.segments()? {
            for (entry, detail) in place.details(id)? {
                let stored = matches!(entry.kind, EntryKind::Put | EntryKind::PutWithBlobs);
                if !stored || !table.is_current(entry.hash, entry.revision) {
                    continue;
                }
                let value = Value {
                    revision: entry.revision,
                    modified_ms: detail.modified_ms,
                    usage: Usage {
                        keys: entry.keys,
                        bytes: detail.body_bytes,
                    },
                };
                visit(&detail.user, &detail.client, value)?;
            }
        }
        Ok(())
    })
}
