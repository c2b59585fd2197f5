//! The encoding of new frames, in the layout of version 2.

use bytes::Bytes;

use crate::format::codec;
use crate::format::frame::header::{CommitInfo, EntryKind, FrameKind};
use crate::format::frame::meta::{self, Member, body_bytes};
use crate::format::frame::v2;
use crate::model::ids::BlobId;
use crate::model::names::NamespaceHash;

/// An encoded frame without the revision, time and watermark, which become known only at the
/// commit.
///
/// The thread that submits a write encodes the frame, so that the commit leader has less work.
#[derive(Debug)]
pub(crate) struct EncodedFrame {
    pub(crate) kind: FrameKind,
    pub(crate) hash: NamespaceHash,
    /// The blobs that contain the values of the document. The list is empty for an inline document
    /// and for a delete.
    pub(crate) blobs: Vec<BlobId>,
    /// The part of the frame header from the user name to the end of the header.
    tail: Vec<u8>,
    /// The metadata, which is empty for an inline document and for a delete.
    meta: Vec<u8>,
    /// The inline body, which is empty for a document in a blob and for a delete.
    pub(crate) inline: Bytes,
}

impl EncodedFrame {
    /// Encodes a frame. Returns `None` if a length exceeds the limits of the format, or if the
    /// lengths of the members do not add up to the length of the inline body.
    pub(crate) fn new(
        kind: FrameKind,
        hash: NamespaceHash,
        (user, client): (&str, &str),
        members: &[Member],
        inline: Bytes,
    ) -> Option<Self> {
        let blobs = meta::blob_ids(members);
        let mut frame = Self {
            kind,
            hash,
            tail: v2::encode_names(user, client, members.len()),
            meta: Vec::new(),
            inline: Bytes::new(),
            blobs,
        };
        match kind {
            FrameKind::Delete => {}
            FrameKind::Put if frame.blobs.is_empty() => {
                // A version 2 frame does not store the length of the inline body. A reader computes
                // the length of the body from the lengths of the members.
                let bytes = body_bytes(members.iter().map(Member::bytes));
                if bytes != inline.len() as u64 || u32::try_from(bytes).is_err() {
                    return None;
                }
                v2::push_inline(&mut frame.tail, crc32fast::hash(&inline), members);
                frame.inline = inline;
            }
            FrameKind::Put => {
                frame.meta = codec::encode(&members).ok()?;
                v2::push_extents(&mut frame.tail, &frame.meta);
            }
        }
        (frame.tail.len() <= v2::MAX_TAIL_BYTES).then_some(frame)
    }

    pub(crate) fn entry_kind(&self) -> EntryKind {
        EntryKind::new(self.kind, !self.blobs.is_empty())
    }

    /// Appends the header and the metadata of the frame to `to`, but not the inline body. Returns
    /// the length of the complete frame in bytes, including the inline body.
    pub(crate) fn encode(&self, commit: CommitInfo, to: &mut Vec<u8>) -> u64 {
        let has_blobs = !self.blobs.is_empty();
        let header_bytes = v2::encode_header((self.kind, has_blobs), commit, &self.tail, to);
        to.extend_from_slice(&self.meta);
        (header_bytes + self.meta.len() + self.inline.len()) as u64
    }

    /// Upper bound of the length of the complete frame in bytes.
    pub(crate) fn max_frame_bytes(&self) -> u64 {
        let header = v2::MAX_LEAD_BYTES + self.tail.len();
        (header + self.meta.len() + self.inline.len()) as u64
    }
}
