//! A namespace: the one document of a user and a client.

use std::fmt;

use bytes::Bytes;

use crate::commit::{Change, Commit};
use crate::config::Durability;
use crate::document::{Document, Stat};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::limits::Usage;
use crate::log::frame::{Draft, Kind, Member};
use crate::lookup::Lookup;
use crate::names::{Names, NamespaceHash};
use crate::revision::{Precondition, Revision};
use crate::writer::Prepared;

/// A handle to one namespace. Cheap to make and to clone.
///
/// Reads see the newest acknowledged write (linearizable).
#[derive(Clone)]
pub struct Namespace {
    engine: Engine,
    names: Names,
    hash: NamespaceHash,
}

/// How a write is to be made.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// What must hold for it to happen.
    pub precondition: Precondition,
    /// What it waits for; `None`: what [`crate::Config::durability`] says.
    pub durability: Option<Durability>,
}

/// What can be said of a namespace without touching the disk.
#[derive(Debug, Clone)]
pub enum Peek {
    /// It holds no document.
    Absent,
    /// Its document, which is in the cache.
    Resident(Document),
    /// It holds a document that must be read from the disk.
    OnDisk,
}

impl Namespace {
    pub(crate) fn new(engine: Engine, names: Names) -> Self {
        let hash = engine.shared().hash(&names.user, &names.client);
        Self {
            engine,
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
            .lookup()
            .newest()?
            .map(|entry| Revision::new(entry.revision)))
    }

    /// The document, as far as that needs no disk.
    ///
    /// # Errors
    /// As [`Self::revision`].
    pub fn peek(&self) -> Result<Peek> {
        self.lookup().peek()
    }

    /// The document; `None` where nothing is stored. Blocks on the disk unless it is
    /// in the cache.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with file and offset, never wrong bytes; [`Error::Io`].
    pub fn get(&self) -> Result<Option<Document>> {
        self.lookup().get()
    }

    /// Revision, time and size of the document, without reading it: at most its
    /// metadata. Blocks on the disk unless the document is in the cache.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stat(&self) -> Result<Option<Stat>> {
        self.lookup().stat()
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
        self.put_prepared(self.engine.prepare(body)?, options)
    }

    /// Replaces the document with one that came in through a [`crate::Writer`].
    /// Blocks as [`Self::put`].
    ///
    /// # Errors
    /// Those of [`Commit::wait`].
    pub fn put_prepared(&self, document: Prepared, options: WriteOptions) -> Result<Revision> {
        let change = self.replacement(document, options)?;
        // A put that succeeds leaves a document behind, so it has a revision.
        self.engine.commit(change)?.ok_or(Error::Closed)
    }

    /// Deletes the document; succeeds where there is none. Blocks as [`Self::put`].
    ///
    /// # Errors
    /// Those of [`Commit::wait`].
    pub fn delete(&self, options: WriteOptions) -> Result<()> {
        let change = self.deletion(options)?;
        self.engine.commit(change).map(drop)
    }

    /// Queues a replacement of the document. Never blocks: a full queue answers
    /// [`Error::Overloaded`].
    pub fn submit_put(&self, document: Prepared, options: WriteOptions) -> Commit {
        match self.replacement(document, options) {
            Ok(change) => self.engine.shared().queue.submit(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    /// Queues a replacement of the document, as [`Self::submit_put`], but blocks while the
    /// queue is full: for who has many, and takes all the time that they need.
    pub fn queue_put(&self, document: Prepared, options: WriteOptions) -> Commit {
        match self.replacement(document, options) {
            Ok(change) => self.engine.shared().queue.submit_blocking(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    /// Queues a deletion. Never blocks, as [`Self::submit_put`].
    pub fn submit_delete(&self, options: WriteOptions) -> Commit {
        match self.deletion(options) {
            Ok(change) => self.engine.shared().queue.submit(change),
            Err(error) => Commit::decided(Err(error)),
        }
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            shared: self.engine.shared(),
            user: &self.names.user,
            client: &self.names.client,
            hash: self.hash,
        }
    }

    fn replacement(&self, document: Prepared, options: WriteOptions) -> Result<Change> {
        let usage = document.usage();
        let draft = self.draft(Kind::Put, &document.members, document.inline);
        self.change(draft, usage, document.blob, options)
    }

    fn deletion(&self, options: WriteOptions) -> Result<Change> {
        let draft = self.draft(Kind::Delete, &[], Bytes::new());
        self.change(draft, Usage::default(), None, options)
    }

    fn draft(&self, kind: Kind, members: &[Member], inline: Bytes) -> Option<Draft> {
        let names = (&*self.names.user, &*self.names.client);
        Draft::new(kind, self.hash, names, members, inline)
    }

    fn change(
        &self,
        draft: Option<Draft>,
        usage: Usage,
        blob: Option<crate::blob::BlobDraft>,
        options: WriteOptions,
    ) -> Result<Change> {
        let shared = self.engine.shared();
        // Others may wait while it is committed, and do not yet.
        shared.table.fetch(self.hash);
        // Only limits far beyond the default ones let a document come here.
        let draft = draft.ok_or(Error::InvalidConfig {
            setting: "limits",
            reason: "let a document in whose metadata exceeds 16 MiB".to_owned(),
        })?;
        Ok(Change {
            names: self.names.clone(),
            draft,
            usage,
            blob,
            precondition: options.precondition,
            durability: options.durability.unwrap_or(shared.durability),
        })
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
