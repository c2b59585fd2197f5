//! A single write: a put or a delete of a complete document.

use bytes::Bytes;

use crate::commit::writer::Prepared;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::FrameKind;
use crate::index::table::Table;
use crate::model::config::Durability;
use crate::model::error::{Error, Result};
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::model::revision::Precondition;
use crate::storage::blobs::UncommittedBlob;

/// A replacement or a deletion of one document. A change is atomic.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Replaces the document with this body, which is validated first.
    Body(&'a [u8]),
    /// Replaces the document with a document that [`crate::Writer`] or [`crate::Engine::prepare`]
    /// has validated.
    Document(Prepared),
    /// Deletes the document. A delete without a precondition succeeds even if no document is
    /// stored.
    Delete,
}

impl<'a> From<&'a [u8]> for Change<'a> {
    fn from(body: &'a [u8]) -> Self {
        Self::Body(body)
    }
}

impl<'a, const BYTES: usize> From<&'a [u8; BYTES]> for Change<'a> {
    fn from(body: &'a [u8; BYTES]) -> Self {
        Self::Body(body)
    }
}

impl<'a> From<&'a Vec<u8>> for Change<'a> {
    fn from(body: &'a Vec<u8>) -> Self {
        Self::Body(body)
    }
}

impl From<Prepared> for Change<'_> {
    fn from(document: Prepared) -> Self {
        Self::Document(document)
    }
}

/// The behavior of [`crate::Namespace::submit`] if the commit queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// `submit` does not wait for space, and the [`Commit`](crate::Commit) that `submit` returns
    /// resolves to [`Error::Overloaded`].
    #[default]
    Refuse,
    /// `submit` blocks until the queue has space. `Wait` is intended for bulk loads.
    Wait,
}

/// Options of one write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// The condition that the current revision must meet. The write fails if the condition is
    /// false.
    pub precondition: Precondition,
    /// The durability that the write must have before the write is acknowledged. `None` means
    /// [`crate::Config::durability`].
    pub durability: Option<Durability>,
    /// The behavior of [`crate::Namespace::submit`] if the commit queue is full. This option does
    /// not affect [`crate::Namespace::write`], which always waits for space.
    pub queue_full: QueueFull,
}

/// A write that is ready to be committed.
pub(crate) struct WriteRequest {
    pub(crate) names: Names,
    pub(crate) frame: EncodedFrame,
    pub(crate) usage: Usage,
    /// The blob that the frame refers to, if any.
    pub(crate) blob: Option<UncommittedBlob>,
    pub(crate) precondition: Precondition,
    pub(crate) durability: Durability,
}

/// The target namespace of a write, and the parts of the engine that are needed to create the
/// write.
pub(crate) struct WriteTarget<'a> {
    pub(crate) names: &'a Names,
    pub(crate) hash: NamespaceHash,
    pub(crate) table: &'a Table,
    pub(crate) default_durability: Durability,
}

impl WriteTarget<'_> {
    /// Creates a put of a validated document, or a delete if `document` is `None`.
    ///
    /// # Errors
    /// [`Error::Internal`] if the document exceeds the limits of the format. [`Limits::check`]
    /// ensures that no validated document exceeds them.
    ///
    /// [`Limits::check`]: crate::Limits::check
    pub(crate) fn request(
        &self,
        document: Option<Prepared>,
        options: WriteOptions,
    ) -> Result<WriteRequest> {
        // The prefetch loads the table entry into the processor's cache before the commit leader
        // reads the entry. Without the prefetch, all other writers would wait while the leader
        // waits for memory.
        self.table.prefetch(self.hash);
        let (kind, members, inline, usage, blob) = match document {
            None => (
                FrameKind::Delete,
                Vec::new(),
                Bytes::new(),
                Usage::default(),
                None,
            ),
            Some(document) => {
                let usage = document.usage();
                let Prepared {
                    members,
                    inline,
                    blob,
                    ..
                } = document;
                (FrameKind::Put, members, inline, usage, blob)
            }
        };
        let names = (&*self.names.user, &*self.names.client);
        let frame = EncodedFrame::new(kind, self.hash, names, &members, inline);
        let frame = frame
            .ok_or_else(|| Error::internal("a validated document must be within the format"))?;
        Ok(WriteRequest {
            names: self.names.clone(),
            frame,
            usage,
            blob,
            precondition: options.precondition,
            durability: options.durability.unwrap_or(self.default_durability),
        })
    }
}
