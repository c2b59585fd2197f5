//! The store for requests. This store uses the embedded engine.

use std::path::Path;

use prefd_engine::{
    Change, Config, Engine, Erased, Error, Metrics, Peek, Precondition, Revision, Snapshot,
    WriteOptions,
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

    /// Opens the store in `data_dir`, which is created if it does not exist. Blocks until the
    /// location of every document is known.
    pub(crate) fn open(
        data_dir: &Path,
        settings: &Settings,
        open_segments: usize,
    ) -> Result<Self, OpenError> {
        refuse_unfinished(data_dir)?;
        let mut config = Config::new(data_dir);
        config.open_segments = open_segments;
        config.limits = limits(settings);
        if let Some(bytes) = settings.document_cache_bytes {
            config.cache_bytes = bytes;
        }
        if let Some(bytes) = settings.segment_bytes {
            config.segment_bytes = bytes;
        }
        Ok(Self::new(Engine::open(config)?))
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

    /// Returns a writer for a document that arrives in chunks.
    pub(crate) fn writer(&self) -> DocumentWriter<'_> {
        DocumentWriter::new(&self.engine)
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
        namespace.submit(change, options).await
    }

    /// Erases all documents of a user, including old versions that are still on the disk. The
    /// returned [`Erased`] reports data that could not be erased.
    pub(crate) async fn erase(&self, user: String) -> Result<Erased, Error> {
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

    /// Checks that no failure, such as a failed sync of the log, has stopped all writes. Does not
    /// check whether the disk is full.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        self.engine.writable()
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
