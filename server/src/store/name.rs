//! What a request names, and what it wants changed there.

use prefd_engine::Prepared;

/// A namespace: whose document it is, and of which client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) user: &'a str,
    pub(crate) client: &'a str,
}

/// A change of one namespace. It happens as a whole or not at all.
pub(crate) enum Change {
    /// Replace the document, or make it.
    Replace(Prepared),
    Delete,
}
