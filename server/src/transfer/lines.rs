//! Documents as lines of JSON, to be moved from one store to another or given to the user
//! whose they are: `{"user":…,"client":…,"modified_ms":…,"document":…}`.
//!
//! The document stands there with its own text, so that nothing of it changes. Where that
//! has line breaks, or is not in memory, it stands in a JSON string, so that a line is one.

mod extent;
mod read;
mod write;

pub(crate) use read::{Fault, Lines};
pub(crate) use write::{LineError, write_line};
