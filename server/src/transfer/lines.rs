//! Documents as newline-delimited JSON, one document per line. An export in this format can be
//! imported into another store, or given to a user as a copy of the stored data.
//!
//! A line is an object: `{"user":…,"client":…,"modified_ms":…,"document":…}`.
//!
//! An export does not change the text of a document. A document that contains line breaks, or
//! is not in memory, is written as a JSON string that contains the text, so that a document
//! never spans several lines.

mod read;
mod value_scanner;
mod write;

pub(crate) use read::{LineFault, NdjsonReader};
pub(crate) use write::{ExportError, write_line};
