//! Reading one namespace: what its newest entry points to.

use crate::document::{Document, Stat};
use crate::error::{Error, Result};
use crate::names::NamespaceHash;
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
        match self.shared.table.newest(self.hash) {
            Newest::Absent => Ok(None),
            Newest::Document(entry) => Ok(Some(entry)),
            Newest::Unreadable { segment, offset } => Err(self.shared.unreadable(segment, offset)),
        }
    }

    pub(crate) fn get(&self) -> Result<Option<Document>> {
        self.read(|entry| {
            let shared = self.shared;
            if let Some(document) = shared.cache.get(self.hash, entry.revision) {
                return Ok(document);
            }
            let frame = shared.reader.frame((self.user, self.client), entry)?;
            let corrupt = |what: &str| {
                let path = shared.reader.path(entry.segment);
                Error::corrupt(&path, entry.offset.into(), what)
            };
            let document = Document::new(frame, corrupt, &shared.intake.blobs)?;
            shared.cache.insert(self.hash, &document);
            Ok(document)
        })
    }

    pub(crate) fn stat(&self) -> Result<Option<Stat>> {
        self.read(|entry| {
            if let Some(document) = self.shared.cache.get(self.hash, entry.revision) {
                return Ok(*document.stat());
            }
            let names = (self.user, self.client);
            let frame = self.shared.reader.metadata(names, entry)?;
            Ok(Stat::of(&frame))
        })
    }

    /// Reads what the newest entry points to. Where it cannot be read and is no
    /// longer the newest, a write has overtaken the read: what it pointed to may be
    /// gone, and the read starts over.
    fn read<T>(&self, read: impl Fn(&Entry) -> Result<T>) -> Result<Option<T>> {
        loop {
            let Some(entry) = self.newest()? else {
                return Ok(None);
            };
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
