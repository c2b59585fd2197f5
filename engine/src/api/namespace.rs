//! A namespace, which contains at most one document of a user and a client.

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

/// A handle to one namespace, which contains at most one document. [`crate::Engine::namespace`]
/// creates a handle. Creating and cloning a handle is cheap.
///
/// Reads and writes are linearizable: a read returns the newest acknowledged write, or a newer
/// write that has not been acknowledged yet. While a `Namespace` exists, the engine stays open,
/// unless [`crate::Engine::close`] is called.
///
/// # Examples
/// ```
/// use prefd_engine::{Change, Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// namespace.write(br#"{"theme":"dark"}"#, WriteOptions::default())?;
/// assert_eq!(namespace.usage()?.keys, 1);
/// namespace.write(Change::Delete, WriteOptions::default())?;
/// assert!(namespace.get()?.is_none());
/// # Ok::<(), prefd_engine::Error>(())
/// ```
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

    /// The name of the user.
    pub fn user(&self) -> &str {
        &self.names.user
    }

    /// The name of the client.
    pub fn client(&self) -> &str {
        &self.names.client
    }

    /// Returns the revision of the document, or `None` if no document is stored. Never blocks.
    ///
    /// # Errors
    /// - [`crate::Error::Corrupt`]: the newest frame of the namespace may be damaged, so the
    ///   revision is unknown.
    /// - [`crate::Error::Closed`].
    pub fn revision(&self) -> Result<Option<Revision>> {
        Ok(self
            .reader()
            .newest()?
            .map(|entry| Revision::new(entry.revision)))
    }

    /// Looks up the document without accessing the disk. Never blocks, so `peek` can be called on
    /// an async worker thread.
    ///
    /// # Errors
    /// The errors of [`Self::revision`].
    pub fn peek(&self) -> Result<Peek> {
        self.reader().peek(|| Ok(self.names.clone()))
    }

    /// Returns the document, or `None` if no document is stored. Blocks on the disk unless the
    /// document is in the cache.
    ///
    /// # Errors
    /// - [`crate::Error::Corrupt`]: the stored bytes are damaged. Damaged bytes are never returned
    ///   as a document.
    /// - [`crate::Error::Unreadable`]: a read of the stored bytes failed.
    /// - [`crate::Error::Io`]: a file operation failed, for example because no file descriptor is
    ///   available.
    /// - [`crate::Error::Closed`].
    pub fn get(&self) -> Result<Option<Document>> {
        self.reader().get()
    }

    /// Returns the revision, modification time and size of the document, or `None` if no document
    /// is stored.
    ///
    /// Blocks on the disk unless the document is in the cache. If `stat` must access the disk, it
    /// does not read the complete document, but only its metadata.
    ///
    /// # Errors
    /// The errors of [`Self::get`].
    pub fn stat(&self) -> Result<Option<Stat>> {
        self.reader().stat()
    }

    /// Returns the number of keys and bytes of the document. If no document is stored, both numbers
    /// are 0. Blocks like [`Self::stat`].
    ///
    /// # Errors
    /// The errors of [`Self::get`].
    pub fn usage(&self) -> Result<Usage> {
        Ok(self.stat()?.map_or(Usage::default(), |stat| stat.usage))
    }

    /// Replaces or deletes the document. Returns the new revision, or `None` after a delete.
    ///
    /// Blocks until the change is as durable as [`WriteOptions::durability`] requires. If the
    /// commit queue is full, `write` waits for space.
    ///
    /// The calling thread may commit the write itself, together with writes of other threads. A
    /// thread that has committed writes keeps up to 512 KiB of buffer memory until the thread ends.
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
    /// - [`crate::Error::Rejected`]: the body exceeds a limit or is not a JSON object.
    /// - The errors of [`Commit::wait`].
    pub fn write<'a>(
        &self,
        change: impl Into<Change<'a>>,
        options: WriteOptions,
    ) -> Result<Option<Revision>> {
        let request = self.request(change.into(), options)?;
        self.handle.group_commit.commit(request)
    }

    /// Queues a replacement or a deletion of the document. The returned [`Commit`] is a future that
    /// resolves to the result. [`Commit::wait`] blocks until the result is known.
    ///
    /// `submit` blocks only in two cases:
    ///
    /// - The commit queue is full, and [`WriteOptions::queue_full`] is [`QueueFull::Wait`].
    /// - The change is a [body](Change::Body) longer than [`crate::Config::inline_bytes`]. A large
    ///   document is written to a blob file before the change is queued.
    ///
    /// # Errors
    /// The returned commit resolves to the errors of [`Self::write`], or to
    /// [`crate::Error::Overloaded`] if the queue is full and [`WriteOptions::queue_full`] is
    /// [`QueueFull::Refuse`].
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
