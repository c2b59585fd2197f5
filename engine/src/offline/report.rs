//! The report of [`crate::verify()`].

use std::path::PathBuf;

/// The effect of a [`Problem`] on documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Impact {
    /// A document cannot be read, or a document may be missing.
    Document,
    /// No document is affected, because no current document needs the damaged data.
    Nothing,
    /// No document is affected, because the damaged data is derived from documents. The engine
    /// rebuilds the derived data, or reads the documents instead.
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
    /// The effect of the defect on documents.
    pub impact: Impact,
    /// The user and the client of the defective data, if known.
    pub namespace: Option<(String, String)>,
}

/// The result of comparing the catalogue with the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CatalogueCheck {
    /// The catalogue has an entry for every document, and no other entries.
    Agrees,
    /// The catalogue was not checked, because the store or the catalogue was not closed cleanly, or
    /// because documents are damaged. If the catalogue was not closed cleanly, the next open
    /// rebuilds it.
    Unclean,
    /// The catalogue was not checked, because the process may not read its files, or because the
    /// files could not be copied to the directory for temporary files, for example because this
    /// directory is full or read-only.
    Unchecked,
    /// The catalogue does not agree with the documents, or cannot be read. A [`Problem`] describes
    /// the defect.
    Differs,
}

/// The result of [`crate::verify()`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Number of segments that were checked.
    pub segments: u64,
    /// Number of frames whose checksums match, excluding frames in torn bytes.
    pub frames: u64,
    /// Number of current documents that were read completely and are valid.
    pub documents: u64,
    /// Number of bytes that were checked.
    pub bytes: u64,
    /// Number of bytes at the end of the active segment that the next open will discard. These torn
    /// bytes begin at the first invalid frame after the part of the segment that is known to be
    /// synced. Torn bytes are not reported as a problem, because their usual cause is a crash
    /// before a sync. Damage to a write that was committed shortly before a crash
    /// ([`crate::Config::mark_delay`]) looks the same.
    pub torn_bytes: u64,
    /// Number of files in `blobs/` that no document uses. The engine removes these files after it
    /// opens the store, unless a damaged frame may be current, because a damaged frame may refer to
    /// the files.
    pub unnamed_blobs: u64,
    /// The result of comparing the catalogue with the documents.
    pub catalogue: CatalogueCheck,
    /// All defects that were found. The list is empty if the store is intact.
    pub problems: Vec<Problem>,
}
