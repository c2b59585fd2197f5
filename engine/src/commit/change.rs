//! One write, ready to be queued: a put or a delete of a whole document.

use bytes::Bytes;

use crate::commit::writer::Prepared;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::FrameKind;
use crate::format::frame::meta::Member;
use crate::index::table::Table;
use crate::model::config::Durability;
use crate::model::error::{Error, Result};
use crate::model::limits::Usage;
use crate::model::names::{Names, NamespaceHash};
use crate::model::revision::Precondition;
use crate::storage::blobs::UncommittedBlob;

/// Options of one write.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// What must hold of the current revision for the write to happen.
    pub precondition: Precondition,
    /// What the write waits for. `None` means [`crate::Config::durability`].
    pub durability: Option<Durability>,
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
    /// A write that replaces the document.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if limits far beyond the default ones let in a document
    /// whose metadata does not fit a frame.
    pub(crate) fn put(&self, document: Prepared, options: WriteOptions) -> Result<WriteRequest> {
        let usage = document.usage();
        let frame = self.frame(FrameKind::Put, &document.members, document.inline);
        self.request(frame, usage, document.blob, options)
    }

    /// A write that deletes the document.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(crate) fn delete(&self, options: WriteOptions) -> Result<WriteRequest> {
        let frame = self.frame(FrameKind::Delete, &[], Bytes::new());
        self.request(frame, Usage::default(), None, options)
    }

    fn frame(&self, kind: FrameKind, members: &[Member], inline: Bytes) -> Option<EncodedFrame> {
        let names = (&*self.names.user, &*self.names.client);
        EncodedFrame::new(kind, self.hash, names, members, inline)
    }

    fn request(
        &self,
        frame: Option<EncodedFrame>,
        usage: Usage,
        blob: Option<UncommittedBlob>,
        options: WriteOptions,
    ) -> Result<WriteRequest> {
        // The commit leader will need this cache line, and other writers may wait for it.
        self.table.prefetch(self.hash);
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
