//! An extension of [`Namespace`] that returns the revision of a put.

use prefd_engine::{Error, Namespace, Revision, WriteOptions};

/// Adds [`PutExt::put`] to [`Namespace`].
pub trait PutExt {
    /// Replaces the document, like [`Namespace::write`], and returns its revision.
    fn put(&self, body: &[u8], options: WriteOptions) -> Result<Revision, Error>;
}

impl PutExt for Namespace {
    fn put(&self, body: &[u8], options: WriteOptions) -> Result<Revision, Error> {
        let revision = self.write(body, options)?;
        Ok(revision.expect("a put returns a revision"))
    }
}
