//! The namespace that a request names.

/// A namespace: whose document it is, and of which client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) user: &'a str,
    pub(crate) client: &'a str,
}
