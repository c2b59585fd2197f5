//! The cause of a store error.

use prefd_engine::Error;

/// Returns `: ` and the message of the source of `error`, such as the operating system's message.
/// Returns an empty text if `error` has no source. Append the result to the text of `error`.
pub(crate) fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}
