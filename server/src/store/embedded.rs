//! The store for requests. This store uses the embedded engine.

use std::path::Path;
use std::time::SystemTime;

use prefd_engine::{
    Change, Config, Engine, Erased, Error, Limits, Metrics, Name, Peek, Precondition, Prepared,
    Revision, Snapshot, WriteOptions,
};
use tokio::task::JoinHandle;

use crate::settings::Settings;
use crate::store::blocking::blocking;
use crate::store::blocking_store::BlockingStore;
use crate::store::data_dir::{OpenError, refuse_unfinished};
use crate::store::document_text::ReadAhead;
use crate::store::document_writer::DocumentWriter;
use crate::store::limits::limits;
use crate::store::lookup::Lookup;
use crate::store::namespace::Namespace;

/// Maximum number of keys of a document whose frame is encoded on the async worker. Encoding the
/// frame lasts about 20 nanoseconds for each key.
const MAX_WORKER_KEYS: u32 = 4096;
/// Maximum length of a document whose frame is encoded on the async worker, in bytes. The frame of
/// a large document contains a checksum for each 64 KiB.
const MAX_WORKER_DOCUMENT_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Returns true if the frame of a document cannot be encoded, or the document cannot be dropped,
/// within about a millisecond.
fn needs_blocking_thread(document: &Prepared) -> bool {
    let usage = document.usage();
    usage.keys > MAX_WORKER_KEYS || usage.bytes > MAX_WORKER_DOCUMENT_BYTES
}

/// A handle to an open store. Cloning it is cheap.
#[derive(Clone)]
pub(crate) struct Store {
    engine: Engine,
    read_ahead: ReadAhead,
}

impl Store {
    /// Maximum number of file descriptors that the store uses, not counting segments, files of
    /// snapshots, and blobs of documents that are being sent or received.
    pub(crate) const DESCRIPTORS: u64 = Config::DESCRIPTORS;

    /// A document of at most this length stays in memory until it is committed, in bytes.
    pub(crate) const MAX_INLINE_BYTES: u64 = Config::DEFAULT_INLINE_BYTES as u64;

    /// Opens the store in `data_dir`, which is created if it does not exist. Blocks until the
    /// location of every document is known.
    pub(crate) fn open(
        data_dir: &Path,
        settings: &Settings,
        open_segments: usize,
    ) -> Result<Self, OpenError> {
        refuse_unfinished(data_dir)?;
        let mut config = config(data_dir, settings, limits(settings)?);
        config.open_segments = open_segments;
        let engine = Engine::open(config)?;
        if let Some(tail) = engine.dropped_tail() {
            tracing::warn!(
                path = %tail.path.display(),
                offset = tail.offset,
                bytes = tail.bytes,
                "dropped the end of the log, which is a write that a crash interrupted, or a \
                 damaged write of the last second before the crash"
            );
        }
        Ok(Self::new(engine))
    }

    /// Checks the settings of the store, as [`Self::open`] does. Does not access the disk.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub(crate) fn check_settings(settings: &Settings) -> Result<(), Error> {
        config("".as_ref(), settings, Limits::default()).validate()
    }

    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            engine,
            read_ahead: ReadAhead::default(),
        }
    }

    /// Number of log segments that are kept open if enough file descriptors are available.
    pub(crate) fn default_open_segments() -> usize {
        Config::new("").open_segments
    }

    /// Looks up a document in memory. Never blocks.
    pub(crate) fn get(&self, namespace: Namespace<'_>) -> Result<Lookup<'_>, Error> {
        // Unlike a lookup with a `Namespace` handle, `Engine::peek` allocates a handle only for a
        // document that is not in memory.
        Ok(match self.engine.peek(namespace.user, namespace.client)? {
            Peek::Absent => Lookup::Absent,
            Peek::Resident(document) => Lookup::Resident(document, &self.read_ahead),
            Peek::OnDisk(located) => Lookup::OnDisk(Box::new(located), &self.read_ahead),
        })
    }

    /// Returns the latest date with which a document may be shown if it is looked up after this
    /// call. Later versions of the document have later dates. Never blocks.
    pub(crate) fn latest_date(&self, now: SystemTime) -> SystemTime {
        self.engine.latest_date(now)
    }

    /// Returns a writer for a document that arrives in chunks.
    pub(crate) fn writer(&self) -> DocumentWriter<'_> {
        DocumentWriter::new(&self.engine)
    }

    /// Approximate maximum memory that a writer uses for a body of `length` bytes, in bytes. If the
    /// length is unknown, returns the memory for the longest body that is allowed.
    pub(crate) fn writer_bytes(&self, length: Option<u64>) -> u64 {
        let max_bytes = self.engine.limits().max_body_bytes;
        let length = length.unwrap_or(max_bytes).min(max_bytes);
        DocumentWriter::max_bytes(&self.engine, length)
    }

    /// Changes a document if `precondition` is met, and returns the new revision, or `None` after a
    /// delete. When `apply` returns successfully, the change is on stable storage.
    pub(crate) async fn apply(
        &self,
        namespace: Namespace<'_>,
        change: Change<'_>,
        precondition: Precondition,
    ) -> Result<Option<Revision>, Error> {
        let options = WriteOptions {
            precondition,
            ..WriteOptions::default()
        };
        let namespace = self.engine.namespace(namespace.user, namespace.client)?;
        let commit = match change {
            Change::Document(document) if needs_blocking_thread(&document) => {
                let submit = move || namespace.submit(document, options);
                Box::pin(blocking(submit)).await
            }
            change => namespace.submit(change, options),
        };
        commit.await
    }

    /// Drops a document that is not committed.
    pub(crate) fn discard(&self, document: Prepared) {
        if needs_blocking_thread(&document) {
            self.spawn_blocking(|_| drop(document));
        }
    }

    /// Erases all documents of a user, including old versions that are still on the disk. The
    /// returned [`Erased`] reports data that could not be erased.
    pub(crate) async fn erase(&self, user: Name) -> Result<Erased, Error> {
        let engine = self.engine.clone();
        blocking(move || engine.erase(&user, &mut |_| {})).await
    }

    /// Takes a snapshot: the contents of the store at one moment. A read from the snapshot may
    /// block.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let engine = self.engine.clone();
        blocking(move || engine.snapshot()).await
    }

    /// Runs `work` on a thread that may block.
    pub(crate) fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BlockingStore) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let store = BlockingStore::new(self.engine.clone());
        tokio::task::spawn_blocking(move || work(&store))
    }

    /// Checks that no failure has stopped all writes, such as a failed sync of the log or the
    /// removal of the data directory. Does not check whether the disk is full.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        self.engine.writable()
    }

    /// Returns false if only the file `lock` is locked, because the file system cannot lock
    /// directories.
    pub(crate) fn is_directory_locked(&self) -> bool {
        self.engine.is_directory_locked()
    }

    /// A number that represents a user in logs, because logs must not contain user names.
    pub(crate) fn pseudonym(&self, user: &str) -> u64 {
        self.engine.pseudonym(user)
    }

    /// Returns the counters and the state of the store. The call holds a few locks, each for a
    /// short time.
    pub(crate) fn metrics(&self) -> Metrics {
        self.engine.metrics()
    }

    /// Number of damaged or unreadable frames in the log that may be current.
    pub(crate) fn damaged_frames(&self) -> u64 {
        self.engine.usage_on_disk().damaged_frames
    }

    /// Commits all queued writes and closes the store. Blocks.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.engine.close()
    }
}

/// Returns the configuration of the engine.
fn config(data_dir: &Path, settings: &Settings, limits: Limits) -> Config {
    let mut config = Config::new(data_dir);
    config.limits = limits;
    if let Some(bytes) = settings.document_cache_bytes {
        config.cache_bytes = bytes;
    }
    if let Some(bytes) = settings.segment_bytes {
        config.segment_bytes = bytes;
    }
    config
}
