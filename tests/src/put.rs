//! A put whose new revision the test needs.

use prefd_engine::{Error, Namespace, Revision, WriteOptions};

/// Replaces a document and returns its revision.
pub trait Put {
    /// As [`Namespace::write`], for a body.
    fn put(&self, body: &[u8], options: WriteOptions) -> Result<Revision, Error>;
}

impl Put for Namespace {
    fn put(&self, body: &[u8], options: WriteOptions) -> Result<Revision, Error> {
        let revision = self.write(body, options)?;
        Ok(revision.expect("a put leaves a document"))
    }
}
