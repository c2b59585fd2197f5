//! The result of looking up a document in memory. If the document is not in memory, the result can
//! read it from the disk.

use prefd_engine::{Document, Error, Located, Revision, Stat};

use crate::store::blocking::blocking;
use crate::store::document_text::{DocumentText, ReadAhead};

/// The result of looking up a document in memory.
///
/// The values and futures that are needed only for a read from the disk are boxed. Without the
/// boxes, these values and futures would more than double the size of the future of every request.
pub(crate) enum Lookup<'a> {
    /// The namespace contains no document.
    Absent,
    /// The document is in memory.
    Resident(Document, &'a ReadAhead),
    /// The document must be read from the disk.
    OnDisk(Box<Located>, &'a ReadAhead),
}

impl Lookup<'_> {
    /// The current revision, or `None` if the namespace contains no document.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Absent => None,
            Self::Resident(document, _) => Some(document.stat().revision),
            Self::OnDisk(located, _) => Some(located.revision()),
        }
    }

    /// Reads the revision, modification time and size of the document. If a write happens after the
    /// lookup, the result can belong to a newer revision than [`Self::revision`] returns.
    pub(crate) async fn stat(self) -> Result<Option<Stat>, Error> {
        match self {
            Self::Absent => Ok(None),
            Self::Resident(document, _) => Ok(Some(*document.stat())),
            Self::OnDisk(located, _) => Box::pin(blocking(move || located.stat())).await,
        }
    }

    /// Reads the document and its revision, modification time and size. If a write happens after
    /// the lookup, the result can belong to a newer revision than [`Self::revision`] returns.
    pub(crate) async fn read(self) -> Result<Option<(Stat, DocumentText)>, Error> {
        let (document, read_ahead) = match self {
            Self::Absent => return Ok(None),
            Self::Resident(document, read_ahead) => (Some(document), read_ahead),
            Self::OnDisk(located, read_ahead) => {
                let get = blocking(move || located.get());
                (Box::pin(get).await?, read_ahead)
            }
        };
        Ok(document.map(|document| (*document.stat(), DocumentText::new(&document, read_ahead))))
    }
}
