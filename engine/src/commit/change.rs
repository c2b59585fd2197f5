//! One write, ready to be queued: a put or a delete of a whole document.

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

/// A change of one document. It happens as a whole or not at all.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change<'a> {
    /// Replaces the document with this body. The write checks the body first.
    Body(&'a [u8]),
    /// Replaces the document with one that a [`crate::Writer`] or
    /// [`crate::Engine::prepare`] has checked.
    Document(Prepared),
    /// Deletes the document. Succeeds if there is none.
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

/// What [`crate::Namespace::submit`] does if the commit queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum QueueFull {
    /// Returns a commit with [`Error::Overloaded`], and does not block.
    #[default]
    Refuse,
    /// Blocks until the queue has space. Meant for bulk loads.
    Wait,
}

/// Options of one write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// The write is committed only if the current revision meets this condition.
    pub precondition: Precondition,
    /// How durable the write must be before it is acknowledged. `None` means
    /// [`crate::Config::durability`].
    pub durability: Option<Durability>,
    /// What to do if the commit queue is full. Only [`crate::Namespace::submit`] uses this;
    /// [`crate::Namespace::write`] waits.
    pub queue_full: QueueFull,
}

/// One write, ready to be committed.
pub(crate) struct WriteRequest {
    pub(crate) names: Names,
    pub(crate) frame: EncodedFrame,
    pub(crate) usage: Usage,
    /// The blob that the frame names, if any.
    pub(crate) blob: Option<UncommittedBlob>,
    pub(crate) precondition: Precondition,
    pub(crate) durability: Durability,
}

/// The namespace that a write goes to, and what the engine's settings say about writes.
pub(crate) struct WriteTarget<'a> {
    pub(crate) names: &'a Names,
    pub(crate) hash: NamespaceHash,
    pub(crate) table: &'a Table,
    pub(crate) default_durability: Durability,
}

impl WriteTarget<'_> {
    /// A write that makes this change, whose document was checked.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if limits far beyond the default ones let in a document
    /// whose metadata does not fit a frame.
    pub(crate) fn request(
        &self,
        document: Option<Prepared>,
        options: WriteOptions,
    ) -> Result<WriteRequest> {
        // The commit leader will need this cache line, and other writers may wait for it.
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
        let frame = frame.ok_or(Error::InvalidConfig {
            setting: "limits",
            reason: "let a document in whose metadata exceeds 16 MiB".to_owned(),
        })?;
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
