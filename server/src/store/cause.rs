//! The cause of a store error.

use prefd_engine::Error;

/// The operating system's message behind `error`, with a colon in front, or an empty text if
/// `error` has no source. Append it to the text of the error.
pub(crate) fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}
