//! The read path of one namespace.

use std::fmt;
use std::sync::Arc;

use crate::api::handle::EngineHandle;
use crate::format::location::FrameLocation;
use crate::index::document::Document;
use crate::index::table::NewestFrame;
use crate::model::error::Result;
use crate::model::names::{Names, NamespaceHash};
use crate::model::revision::Revision;
use crate::model::stat::Stat;

/// The result of a lookup that does not access the disk.
///
/// An async server can handle `Absent` and `Resident` on the worker thread. Only `OnDisk` needs a
/// thread that may block.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, Peek, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// assert!(matches!(namespace.peek()?, Peek::Absent));
/// namespace.write(b"{}", WriteOptions::default())?;
/// let document = match namespace.peek()? {
///     Peek::Absent => None,
///     Peek::Resident(document) => Some(document),
///     Peek::OnDisk(located) => located.get()?, // blocks
/// };
/// assert_eq!(document.expect("a document is stored").read()?, b"{}");
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Peek {
    /// The namespace contains no document.
    Absent,
    /// The namespace contains this document, which is in the cache.
    Resident(Document),
    /// The namespace contains a document that must be read from the disk.
    OnDisk(Located),
}

/// A document whose location on disk is known, but which has not been read yet. [`Peek::OnDisk`]
/// contains a `Located`; see [`Peek`] for an example.
///
/// While a `Located` exists, the engine stays open, unless [`crate::Engine::close`] is called. A
/// `Located` does not prevent other threads from replacing or deleting the document. If the
/// document is replaced or deleted before it is read, the read returns either the old document or
/// the result of a new lookup.
///
/// A `Located` does not hold a file descriptor.
#[derive(Clone)]
pub struct Located {
    handle: Arc<EngineHandle>,
    names: Names,
    hash: NamespaceHash,
    location: FrameLocation,
}

impl Located {
    /// Returns the revision that the document had at the lookup. Never blocks.
    pub fn revision(&self) -> Revision {
        Revision::new(self.location.revision)
    }

    /// Reads the document. May return `None` if the document has been deleted since the lookup.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// The errors of [`crate::Namespace::get`].
    pub fn get(&self) -> Result<Option<Document>> {
        let reader = self.reader();
        reader.read(Some(self.location), Clone::clone, |entry| {
            reader.document(entry)
        })
    }

    /// Reads the revision, modification time and size of the document, but not its body. May return
    /// `None` if the document has been deleted since the lookup. Blocks on the disk.
    ///
    /// # Errors
    /// The errors of [`crate::Namespace::get`].
    pub fn stat(&self) -> Result<Option<Stat>> {
        let reader = self.reader();
        reader.read(
            Some(self.location),
            |document| *document.stat(),
            |entry| reader.metadata(entry),
        )
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

impl fmt::Debug for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Located")
            .field("revision", &self.location.revision)
            .finish_non_exhaustive()
    }
}

/// A reader of one namespace. The reader borrows the names, so creating a reader allocates nothing.
#[derive(Clone, Copy)]
pub(super) struct NamespaceReader<'a> {
    pub(super) handle: &'a Arc<EngineHandle>,
    pub(super) user: &'a str,
    pub(super) client: &'a str,
    pub(super) hash: NamespaceHash,
}

impl NamespaceReader<'_> {
    /// Returns the location of the current document, or `None` if the namespace contains no
    /// document.
    pub(super) fn newest(&self) -> Result<Option<FrameLocation>> {
        let core = &self.handle.core;
        core.check_open()?;
        self.location_of(core.table.newest(self.hash))
    }

    /// Returns the location of the current document, and the document if it is in the cache. A
    /// cached document is also marked as recently used, and counted as a read from memory.
    fn newest_cached(&self) -> Result<Option<(FrameLocation, Option<Document>)>> {
        let core = &self.handle.core;
        core.check_open()?;
        let (newest, document) = core.table.newest_cached(self.hash);
        if let Some(document) = &document {
            document.mark_read();
            core.counters.read_from_memory();
        }
        Ok(self.location_of(newest)?.map(|entry| (entry, document)))
    }

    fn location_of(&self, newest: NewestFrame) -> Result<Option<FrameLocation>> {
        match newest {
            NewestFrame::Absent => Ok(None),
            NewestFrame::Document(entry) => Ok(Some(entry)),
            NewestFrame::Unreadable { segment, offset } => {
                let directory = &self.handle.core.directory;
                Err(directory.unreadable_frame(segment, offset))
            }
        }
    }

    /// Implements [`crate::Namespace::peek`]. `names` is called only for a document on disk, to
    /// create a [`Located`].
    pub(super) fn peek(&self, names: impl FnOnce() -> Result<Names>) -> Result<Peek> {
        Ok(match self.newest_cached()? {
            None => Peek::Absent,
            Some((_, Some(document))) => Peek::Resident(document),
            Some((location, None)) => Peek::OnDisk(Located {
                handle: Arc::clone(self.handle),
                names: names()?,
                hash: self.hash,
                location,
            }),
        })
    }

    pub(super) fn get(&self) -> Result<Option<Document>> {
        self.read(None, Clone::clone, |entry| self.document(entry))
    }

    pub(super) fn stat(&self) -> Result<Option<Stat>> {
        self.read(
            None,
            |document| *document.stat(),
            |entry| self.metadata(entry),
        )
    }

    /// Reads the document at `entry`, and adds it to the cache.
    fn document(&self, entry: &FrameLocation) -> Result<Document> {
        let core = &self.handle.core;
        let frame = core.reader.frame((self.user, self.client), entry)?;
        let document = Document::new(frame, &core.write_context.blobs)?;
        core.cache.insert(&core.table, self.hash, &document);
        Ok(document)
    }

    fn metadata(&self, entry: &FrameLocation) -> Result<Stat> {
        let reader = &self.handle.core.reader;
        let (header, usage) = reader.metadata((self.user, self.client), entry)?;
        Ok(Stat::new(header.revision, header.modified_ms, usage))
    }

    /// Reads the current document. Calls `from_memory` if the document is in the cache, and
    /// otherwise calls `from_disk` with the location of the document. If `located` is given,
    /// `from_disk` is first called with `located`, without a lookup.
    ///
    /// If `from_disk` fails, and the location is no longer current, the read is repeated with a new
    /// lookup, because the file at the old location may have been removed.
    fn read<T>(
        &self,
        mut located: Option<FrameLocation>,
        from_memory: impl Fn(&Document) -> T,
        from_disk: impl Fn(&FrameLocation) -> Result<T>,
    ) -> Result<Option<T>> {
        self.handle.core.check_open()?;
        loop {
            let entry = match located.take() {
                Some(entry) => entry,
                None => match self.newest_cached()? {
                    None => return Ok(None),
                    Some((_, Some(document))) => return Ok(Some(from_memory(&document))),
                    Some((entry, None)) => entry,
                },
            };
            self.handle.core.counters.read_from_disk();
            match from_disk(&entry) {
                Ok(found) => return Ok(Some(found)),
                Err(error) => {
                    if self.newest()? == Some(entry) {
                        return Err(error);
                    }
                }
            }
        }
    }
}
