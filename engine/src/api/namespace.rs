//! A namespace: the one document of a user and a client.

use std::fmt;
use std::sync::Arc;

use crate::api::handle::EngineHandle;
use crate::api::read::{NamespaceReader, Peek};
use crate::commit::change::{WriteOptions, WriteTarget};
use crate::commit::promise::Commit;
use crate::commit::writer::{Prepared, Writer};
use crate::index::document::Document;
use crate::model::error::{Error, Result};
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
    /// [`Error::Corrupt`] where the newest write cannot be read.
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
        self.reader().peek()
    }

    /// The document; `None` where nothing is stored. Blocks on the disk unless it is
    /// in the cache.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset, never wrong bytes; [`Error::Io`].
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

    /// Checks `body` and replaces the document with it. Blocks until it is as
    /// durable as was asked for, and while the commit queue is full.
    ///
    /// This thread may commit it, and then keeps the memory for that, some 256 KiB of
    /// which the system gives what is used, until it ends.
    ///
    /// # Errors
    /// [`Error::Rejected`], and those of [`Commit::wait`].
    pub fn put(&self, body: &[u8], options: WriteOptions) -> Result<Revision> {
        self.put_prepared(
            Writer::prepare(&self.handle.core.write_context, body)?,
            options,
        )
    }

    /// Replaces the document with one that came in through a [`crate::Writer`].
    /// Blocks as [`Self::put`].
    ///
    /// # Errors
    /// Those of [`Commit::wait`].
    pub fn put_prepared(&self, document: Prepared, options: WriteOptions) -> Result<Revision> {
        let change = self.target().put(document, options)?;
        let revision = self.handle.group_commit.commit(change)?;
        revision.ok_or_else(|| Error::internal("a put leaves a document behind"))
    }

    /// Deletes the document; succeeds where there is none. Blocks as [`Self::put`].
    ///
    /// # Errors
    /// Those of [`Commit::wait`].
    pub fn delete(&self, options: WriteOptions) -> Result<()> {
        let change = self.target().delete(options)?;
        self.handle.group_commit.commit(change).map(drop)
    }

    /// Queues a replacement of the document. Never blocks: a full queue answers
    /// [`Error::Overloaded`].
    pub fn submit_put(&self, document: Prepared, options: WriteOptions) -> Commit {
        match self.target().put(document, options) {
            Ok(change) => self.handle.core.queue.submit(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    /// Queues a replacement of the document, as [`Self::submit_put`], but blocks while the
    /// queue is full: for who has many, and takes all the time that they need.
    pub fn queue_put(&self, document: Prepared, options: WriteOptions) -> Commit {
        match self.target().put(document, options) {
            Ok(change) => self.handle.core.queue.submit_blocking(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    /// Queues a deletion. Never blocks, as [`Self::submit_put`].
    pub fn submit_delete(&self, options: WriteOptions) -> Commit {
        match self.target().delete(options) {
            Ok(change) => self.handle.core.queue.submit(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    fn reader(&self) -> NamespaceReader<'_> {
        NamespaceReader {
            handle: &self.handle,
            user: &self.names.user,
            client: &self.names.client,
            hash: self.hash,
        }
    }

    fn target(&self) -> WriteTarget<'_> {
        WriteTarget {
            names: &self.names,
            hash: self.hash,
            table: &self.handle.core.table,
            default_durability: self.handle.core.durability,
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
