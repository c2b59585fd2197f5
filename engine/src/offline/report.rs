//! The report of [`crate::verify()`].

use std::path::PathBuf;

/// The effect of a [`Problem`] on the documents of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impact {
    /// A document cannot be read, or it is unknown which documents exist.
    Document,
    /// No document is affected: the damaged data had already been replaced or deleted.
    Nothing,
    /// No document is affected: the damaged data is derived from documents, and is rebuilt the
    /// next time the store is opened.
    Derived,
}

/// One defect that [`crate::verify()`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The defective file.
    pub path: PathBuf,
    /// The offset of the defect, in bytes from the start of the file.
    pub offset: u64,
    /// A description of the defect.
    pub what: String,
    /// The effect on documents.
    pub impact: Impact,
    /// The user and the client that the defective data belongs to, if known.
    pub namespace: Option<(String, String)>,
}

/// Whether the catalogue agrees with the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogueCheck {
    /// The catalogue has an entry for every document, and no others.
    Agrees,
    /// The catalogue was not checked, because it was not closed cleanly or because documents are
    /// damaged. The next open rebuilds a catalogue that was not closed cleanly.
    Unclean,
    /// The catalogue does not agree with the documents. A [`Problem`] describes the
    /// difference.
    Differs,
}

/// The result of [`crate::verify()`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Number of segments that were read.
    pub segments: u64,
    /// Number of valid frames.
    pub frames: u64,
    /// Number of current documents of which all bytes were read and are valid.
    pub documents: u64,
    /// Number of bytes that were read.
    pub bytes: u64,
    /// Bytes after the last synced frame that are not valid frames. They are the torn end of a
    /// write that was never acknowledged, so they are not a problem.
    pub torn_bytes: u64,
    /// Files in `blobs/` that no document uses. The next open removes them.
    pub unnamed_blobs: u64,
    /// Whether the catalogue agrees with the documents.
    pub catalogue: CatalogueCheck,
    /// All defects. Empty if the store is intact.
    pub problems: Vec<Problem>,
}
