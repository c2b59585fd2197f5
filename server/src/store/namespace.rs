//! The names that identify a namespace.

use prefd_engine::Name;

/// The user and the client of a namespace, which contains at most one document.
///
/// Requests for documents use `Namespace<'_>`, whose names are already validated. Exports, imports
/// and the benchmark use `Namespace<'_, str>`, whose names are validated by the engine.
#[derive(Debug)]
pub(crate) struct Namespace<'a, N: ?Sized = Name> {
    pub(crate) user: &'a N,
    pub(crate) client: &'a N,
}

impl<N: ?Sized> Clone for Namespace<'_, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N: ?Sized> Copy for Namespace<'_, N> {}
