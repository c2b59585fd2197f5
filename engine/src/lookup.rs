//! Reading one namespace: what its newest entry points to.

use crate::document::{Document, Stat};
use crate::error::Result;
use crate::names::NamespaceHash;
use crate::namespace::Peek;
use crate::shared::Shared;
use crate::table::{Entry, Newest};

/// A namespace, by names that the caller keeps. It costs nothing to make but the hash.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) user: &'a str,
    pub(crate) client: &'a str,
    pub(crate) hash: NamespaceHash,
}

impl Lookup<'_> {
    /// The newest entry of the table; `None` where nothing is stored.
    pub(crate) fn newest(&self) -> Result<Option<Entry>> {
        self.shared.refuse_closed()?;
        self.found(self.shared.table.newest(self.hash))
    }

    /// The same, and the document, if it is in memory: then it counts as read.
    pub(crate) fn newest_held(&self) -> Result<Option<(Entry, Option<Document>)>> {
        self.shared.refuse_closed()?;
        let (newest, document) = self.shared.table.newest_held(self.hash);
        if let Some(document) = &document {
            document.mark();
            self.shared.meters.read_from_memory();
        }
        Ok(self.found(newest)?.map(|entry| (entry, document)))
    }

    /// What [`Self::newest_held`] says, for callers of the engine.
    pub(crate) fn peek(&self) -> Result<Peek> {
        Ok(match self.newest_held()? {
            None => Peek::Absent,
            Some((_, document)) => document.map_or(Peek::OnDisk, Peek::Resident),
        })
    }

    fn found(&self, newest: Newest) -> Result<Option<Entry>> {
        match newest {
            Newest::Absent => Ok(None),
            Newest::Document(entry) => Ok(Some(entry)),
            Newest::Unreadable { segment, offset } => Err(self.shared.unreadable(segment, offset)),
        }
    }

    pub(crate) fn get(&self) -> Result<Option<Document>> {
        self.read(Clone::clone, |entry| {
            let shared = self.shared;
            let frame = shared.reader.frame((self.user, self.client), entry)?;
            let document = Document::new(frame, &shared.intake.blobs)?;
            shared.cache.keep(&shared.table, self.hash, &document);
            Ok(document)
        })
    }

    pub(crate) fn stat(&self) -> Result<Option<Stat>> {
        self.read(
            |document| *document.stat(),
            |entry| {
                let names = (self.user, self.client);
                let (header, usage) = self.shared.reader.metadata(names, entry)?;
                Ok(Stat::new(header.revision, header.modified_ms, usage))
            },
        )
    }

    /// What `held` says of the document in memory, or else `read` of what the newest entry
    /// points to. Where that cannot be read and is no longer the newest, a write has
    /// overtaken the read: what it pointed to may be gone, and the read starts over.
    fn read<T>(
        &self,
        held: impl Fn(&Document) -> T,
        read: impl Fn(&Entry) -> Result<T>,
    ) -> Result<Option<T>> {
        loop {
            let entry = match self.newest_held()? {
                None => return Ok(None),
                Some((_, Some(document))) => return Ok(Some(held(&document))),
                Some((entry, None)) => entry,
            };
            self.shared.meters.read_from_disk();
            match read(&entry) {
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
