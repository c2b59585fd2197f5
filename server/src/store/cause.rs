//! The reason behind an error of the store.

use prefd_engine::Error;

/// The operating system's own words, if it gave any, to be put behind the error's text.
pub(crate) fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"))
}
