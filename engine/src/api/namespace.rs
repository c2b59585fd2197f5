//! A namespace: the one document of a user and a client.

use std::fmt;
use std::sync::Arc;

use crate::api::handle::EngineHandle;
use crate::api::read::{NamespaceReader, Peek};
use crate::commit::change::{Change, QueueFull, WriteOptions, WriteRequest, WriteTarget};
use crate::commit::promise::Commit;
use crate::commit::writer::Writer;
use crate::index::document::Document;
use crate::model::error::Result;
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::model::revision::Revision;
use crate::model::stat::Stat;

/// A handle to one namespace. Cheap to make and to clone.
///
/// Reads see the newest acknowledged write (linearizable).
#[derive(Clone)]
pub struct Namespace {
    handle: Arc<EngineHandle>,
    names: Names,
    hash: NamespaceHash,
}

impl Namespace {
    pub(super) fn new(handle: Arc<EngineHandle>, names: Names) -> Self {
        let hash = handle.core.directory.hash(&names.user, &names.client);
        Self {
            handle,
            names,
            hash,
        }
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.names.user
    }

    /// The client.
    pub fn client(&self) -> &str {
        &self.names.client
    }

    /// The current revision; `None` where nothing is stored. Never touches the disk.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] where the newest write cannot be read.
    pub fn revision(&self) -> Result<Option<Revision>> {
        Ok(self
            .reader()
            .newest()?
            .map(|entry| Revision::new(entry.revision)))
    }

    /// The document, as far as that needs no disk.
    ///
    /// # Errors
    /// As [`Self::revision`].
    pub fn peek(&self) -> Result<Peek> {
        self.reader().peek(|| Ok(self.names.clone()))
    }

    /// The document; `None` where nothing is stored. Blocks on the disk unless it is
    /// in the cache.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] with file and offset, never wrong bytes; [`crate::Error::Io`].
    pub fn get(&self) -> Result<Option<Document>> {
        self.reader().get()
    }

    /// Revision, time and size of the document, without reading it: at most its
    /// metadata. Blocks on the disk unless the document is in the cache.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stat(&self) -> Result<Option<Stat>> {
        self.reader().stat()
    }

    /// Keys and bytes of the document; zeros where nothing is stored. Blocks as
    /// [`Self::stat`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.stat()?.map_or(Usage::default(), |stat| stat.usage))
    }

    /// Makes a change and blocks until it is as durable as [`WriteOptions::durability`] asks,
    /// and before that while the commit queue is full. Returns the new revision, or `None`
    /// after a delete.
    ///
    /// The calling thread may commit the write itself, together with others. Then it keeps up
    /// to 512 KiB of buffer memory until it ends.
    ///
    /// ```
    /// use prefd_engine::{Change, Config, Engine, Precondition, WriteOptions};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let engine = Engine::open(Config::new(dir.path()))?;
    /// let namespace = engine.namespace("user-1", "my-app")?;
    /// let revision = namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
    /// let unchanged = WriteOptions {
    ///     precondition: Precondition::matches(revision.expect("a document is stored")),
    ///     ..WriteOptions::default()
    /// };
    /// assert_eq!(namespace.write(Change::Delete, unchanged)?, None);
    /// # Ok::<(), prefd_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Rejected`] for a body that breaks a limit or is not a JSON object, and those
    /// of [`Commit::wait`].
    pub fn write<'a>(
        &self,
        change: impl Into<Change<'a>>,
        options: WriteOptions,
    ) -> Result<Option<Revision>> {
        let request = self.request(change.into(), options)?;
        self.handle.group_commit.commit(request)
    }

    /// Queues a change and returns at once; the [`Commit`] can be awaited or waited for.
    /// Blocks only if [`WriteOptions::queue_full`] says so, or to check a
    /// [body](Change::Body) that is longer than [`crate::Config::inline_bytes`].
    ///
    /// If the change cannot be queued, the commit fails with the error: those of
    /// [`Self::write`], and [`crate::Error::Overloaded`] if the queue is full.
    pub fn submit<'a>(&self, change: impl Into<Change<'a>>, options: WriteOptions) -> Commit {
        let queue = &self.handle.core.queue;
        let queue_full = options.queue_full;
        match (self.request(change.into(), options), queue_full) {
            (Err(error), _) => Commit::decided(Err(error)),
            (Ok(request), QueueFull::Refuse) => queue.submit(request),
            (Ok(request), QueueFull::Wait) => queue.submit_blocking(request),
        }
    }

    fn request(&self, change: Change<'_>, options: WriteOptions) -> Result<WriteRequest> {
        let core = &self.handle.core;
        let document = match change {
            Change::Body(body) => Some(Writer::prepare(&core.write_context, body)?),
            Change::Document(document) => Some(document),
            Change::Delete => None,
        };
        let target = WriteTarget {
            names: &self.names,
            hash: self.hash,
            table: &core.table,
            default_durability: core.durability,
        };
        target.request(document, options)
    }

    fn reader(&self) -> NamespaceReader<'_> {
        NamespaceReader {
            handle: &self.handle,
            user: &self.names.user,
            client: &self.names.client,
            hash: self.hash,
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Namespace")
            .field("user", &self.names.user)
            .field("client", &self.names.client)
            .finish_non_exhaustive()
    }
}
