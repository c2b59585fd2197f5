//! What [`crate::verify()`] reports.

use std::path::PathBuf;

/// What something that is wrong means for the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impact {
    /// A document cannot be read, or it cannot be told which documents there are.
    Document,
    /// What is damaged had been replaced or deleted.
    Nothing,
    /// It is made again from the documents when the store is opened.
    Derived,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What does not hold there.
    pub what: String,
    /// What that means.
    pub impact: Impact,
    /// The user and the client whose document it is, where that is known.
    pub namespace: Option<(String, String)>,
}

/// Whether what was derived from the documents agrees with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogueCheck {
    /// It has every document and nothing else.
    Agrees,
    /// It is not as a clean close leaves it, and is built again at the next open.
    Unclean,
    /// It says something else. There is a [`Problem`] that tells what.
    Differs,
}

/// What [`crate::verify()`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Frames that hold.
    pub frames: u64,
    /// Current documents, all of whose bytes were read and hold.
    pub documents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes behind the last synced frame that are no frames: the torn end of a write
    /// that was never acknowledged.
    pub torn_bytes: u64,
    /// Files in `blobs/` that no document lies in, and which the next open removes.
    pub unnamed_blobs: u64,
    /// The catalogue.
    pub catalogue: CatalogueCheck,
    /// What is wrong.
    pub problems: Vec<Problem>,
}
