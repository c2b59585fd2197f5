//! The store as requests use it, on the embedded engine.

use std::path::Path;

use prefd_engine::{
    Change, Config, Engine, Erased, Error, Metrics, Peek, Precondition, Revision, Snapshot,
    WriteOptions,
};
use tokio::task::JoinHandle;

use crate::settings::Settings;
use crate::store::blocking::blocking;
use crate::store::bulk::Bulk;
use crate::store::data_dir::{OpenError, refuse_unfinished};
use crate::store::limits::limits;
use crate::store::name::Name;
use crate::store::stored::Stored;
use crate::store::text::ReadAhead;
use crate::store::writer::Writer;

/// An open store. A cheap handle: clones are the same store.
#[derive(Clone)]
pub(crate) struct Store {
    engine: Engine,
    read_ahead: ReadAhead,
}

impl Store {
    /// File descriptors that it has open, besides segments and the blobs of documents that
    /// are being sent or received.
    pub(crate) const DESCRIPTORS: u64 = Config::DESCRIPTORS;

    /// Opens the store in a directory, which is made where it is missing. Blocks until
    /// every document is found.
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
        Ok(Self::of(Engine::open(config)?))
    }

    /// On an engine that is open.
    pub(crate) fn of(engine: Engine) -> Self {
        Self {
            engine,
            read_ahead: ReadAhead::default(),
        }
    }

    /// Segments of the log that are kept open, unless there are too few descriptors.
    pub(crate) fn usual_open_segments() -> usize {
        Config::new("").open_segments
    }

    /// What memory knows of a namespace. Never blocks.
    pub(crate) fn get(&self, name: Name<'_>) -> Result<Stored<'_>, Error> {
        // Without a handle of the namespace: that takes memory, which most reads do not
        // need.
        Ok(match self.engine.peek(name.user, name.client)? {
            Peek::Absent => Stored::Absent,
            Peek::Resident(document) => Stored::Resident(document, &self.read_ahead),
            Peek::OnDisk(located) => Stored::Ask(Box::new(located), &self.read_ahead),
        })
    }

    /// A way in for a document that comes in chunks.
    pub(crate) fn writer(&self) -> Writer<'_> {
        Writer::new(&self.engine)
    }

    /// Makes a change where `precondition` holds, and says which revision is then current.
    /// It is on stable storage once this returns.
    pub(crate) async fn apply(
        &self,
        name: Name<'_>,
        change: Change<'_>,
        precondition: Precondition,
    ) -> Result<Option<Revision>, Error> {
        let options = WriteOptions {
            precondition,
            ..WriteOptions::default()
        };
        let namespace = self.engine.namespace(name.user, name.client)?;
        namespace.submit(change, options).await
    }

    /// Erases a user.
    pub(crate) async fn erase(&self, user: String) -> Result<Erased, Error> {
        let engine = self.engine.clone();
        blocking(move || engine.erase(&user, &mut |_| {})).await
    }

    /// The store at one moment. What it holds is read with blocking calls.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Error> {
        let engine = self.engine.clone();
        blocking(move || engine.snapshot()).await
    }

    /// Runs work that goes through many documents, on a thread that may block.
    pub(crate) fn spawn_bulk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Bulk) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let bulk = Bulk::of(self.engine.clone());
        tokio::task::spawn_blocking(move || work(&bulk))
    }

    /// Whether it takes writes.
    pub(crate) fn ready(&self) -> Result<(), Error> {
        self.engine.writable()
    }

    /// A number that stands for a user where the name must not be seen.
    pub(crate) fn pseudonym(&self, user: &str) -> u64 {
        self.engine.pseudonym(user)
    }

    /// What it has done, and how it is. Takes a few locks, each for a moment.
    pub(crate) fn metrics(&self) -> Metrics {
        self.engine.metrics()
    }

    /// Frames of the log that cannot be read.
    pub(crate) fn damaged_frames(&self) -> u64 {
        self.engine.usage_on_disk().damaged_frames
    }

    /// Closes it, once what is queued is written. Blocks.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.engine.close()
    }
}
