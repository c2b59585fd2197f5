//! What memory knows of a namespace, and how the rest is asked for.

use prefd_engine::{Document, Error, Located, Revision, Stat};

use crate::store::blocking::blocking;
use crate::store::text::{DocumentText, ReadAhead};

/// What memory knows of a namespace. What only a read from the disk needs is boxed: memory
/// is allocated for each request, and these would more than double it.
pub(crate) enum Stored<'a> {
    /// It holds no document.
    Absent,
    /// Its document, which is in memory.
    Resident(Document, &'a ReadAhead),
    /// It holds a document that is read from the disk.
    Ask(Box<Located>, &'a ReadAhead),
}

impl Stored<'_> {
    /// The current revision.
    pub(crate) fn revision(&self) -> Option<Revision> {
        match self {
            Self::Absent => None,
            Self::Resident(document, _) => Some(document.stat().revision),
            Self::Ask(located, _) => Some(located.revision()),
        }
    }

    /// Revision, time and size. A write that comes meanwhile may win: then they are of
    /// another revision.
    pub(crate) async fn stat(self) -> Result<Option<Stat>, Error> {
        match self {
            Self::Absent => Ok(None),
            Self::Resident(document, _) => Ok(Some(*document.stat())),
            Self::Ask(located, _) => Box::pin(blocking(move || located.stat())).await,
        }
    }

    /// The document, with its revision, time and size. A write that comes meanwhile may
    /// win, as with [`Self::stat`].
    pub(crate) async fn read(self) -> Result<Option<(Stat, DocumentText)>, Error> {
        let (document, read_ahead) = match self {
            Self::Absent => return Ok(None),
            Self::Resident(document, read_ahead) => (Some(document), read_ahead),
            Self::Ask(located, read_ahead) => {
                let get = blocking(move || located.get());
                (Box::pin(get).await?, read_ahead)
            }
        };
        Ok(document.map(|document| (*document.stat(), DocumentText::of(&document, read_ahead))))
    }
}
