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

/// What can be said about a namespace without touching the disk.
#[derive(Debug, Clone)]
pub enum Peek {
    /// It holds no document.
    Absent,
    /// It holds this document, which is in the cache.
    Resident(Document),
    /// It holds a document that must be read from the disk.
    OnDisk(Located),
}

/// A document that was located and is still to be read from the disk.
///
/// It keeps the engine open, but not the document. If a later write or delete overtakes it,
/// it may return either what was located or what is stored by the time of the read.
#[derive(Clone)]
pub struct Located {
    handle: Arc<EngineHandle>,
    names: Names,
    hash: NamespaceHash,
    location: FrameLocation,
}

impl Located {
    /// The revision of the document that was located. Never blocks.
    pub fn revision(&self) -> Revision {
        Revision::new(self.location.revision)
    }

    /// Reads the document; `None` if it has been deleted since. Blocks on the disk.
    ///
    /// # Errors
    /// As [`crate::Namespace::get`].
    pub fn get(&self) -> Result<Option<Document>> {
        let reader = self.reader();
        reader.read(Some(self.location), Clone::clone, |entry| {
            reader.document(entry)
        })
    }

    /// Reads revision, time and size of the document; `None` if it has been deleted since.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// As [`crate::Namespace::get`].
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

/// Reads one namespace. Making one costs nothing but the hash of the names.
#[derive(Clone, Copy)]
pub(super) struct NamespaceReader<'a> {
    pub(super) handle: &'a Arc<EngineHandle>,
    pub(super) user: &'a str,
    pub(super) client: &'a str,
    pub(super) hash: NamespaceHash,
}

impl NamespaceReader<'_> {
    /// Where the current document lies; `None` if there is none.
    pub(super) fn newest(&self) -> Result<Option<FrameLocation>> {
        let core = &self.handle.core;
        core.refuse_closed()?;
        self.located(core.table.newest(self.hash))
    }

    /// The same, and the document if it is in memory, which then counts as read.
    fn newest_held(&self) -> Result<Option<(FrameLocation, Option<Document>)>> {
        let core = &self.handle.core;
        core.refuse_closed()?;
        let (newest, document) = core.table.newest_cached(self.hash);
        if let Some(document) = &document {
            document.mark_read();
            core.counters.read_from_memory();
        }
        Ok(self.located(newest)?.map(|entry| (entry, document)))
    }

    fn located(&self, newest: NewestFrame) -> Result<Option<FrameLocation>> {
        match newest {
            NewestFrame::Absent => Ok(None),
            NewestFrame::Document(entry) => Ok(Some(entry)),
            NewestFrame::Unreadable { segment, offset } => {
                let directory = &self.handle.core.directory;
                Err(directory.unreadable_frame(segment, offset))
            }
        }
    }

    pub(super) fn peek(&self) -> Result<Peek> {
        Ok(match self.newest_held()? {
            None => Peek::Absent,
            Some((_, Some(document))) => Peek::Resident(document),
            Some((location, None)) => Peek::OnDisk(Located {
                handle: Arc::clone(self.handle),
                names: Names::new(self.user, self.client)?,
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

    /// Reads the document at `entry`, and keeps it in the cache.
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

    /// Returns what `from_memory` makes of the document in memory, or else what `from_disk`
    /// reads at the newest location. `located` is that location, if it was looked up before.
    ///
    /// If the read fails and the location is no longer the newest, a write has overtaken the
    /// read: the file that it pointed to may be gone. Then the read starts over.
    fn read<T>(
        &self,
        mut located: Option<FrameLocation>,
        from_memory: impl Fn(&Document) -> T,
        from_disk: impl Fn(&FrameLocation) -> Result<T>,
    ) -> Result<Option<T>> {
        self.handle.core.refuse_closed()?;
        loop {
            let entry = match located.take() {
                Some(entry) => entry,
                None => match self.newest_held()? {
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
