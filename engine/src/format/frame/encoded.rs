//! A frame that is to be written, in the layout of version 2.

use bytes::Bytes;

use crate::format::codec;
use crate::format::frame::header::{CommitInfo, EntryKind, FrameKind};
use crate::format::frame::meta::{self, Member, body_bytes};
use crate::format::frame::v2;
use crate::model::ids::BlobId;
use crate::model::names::NamespaceHash;

/// A frame that lacks only what the commit gives it: revision, time, watermark.
/// Made by the writer's own thread, so that the committer has little to do.
#[derive(Debug)]
pub(crate) struct EncodedFrame {
    pub(crate) kind: FrameKind,
    pub(crate) hash: NamespaceHash,
    pub(crate) blobs: Vec<BlobId>,
    /// The head, from the names on.
    tail: Vec<u8>,
    /// Of a document that lies in blobs.
    meta: Vec<u8>,
    pub(crate) inline: Bytes,
}

impl EncodedFrame {
    /// `None` where the lengths do not fit the format.
    pub(crate) fn new(
        kind: FrameKind,
        hash: NamespaceHash,
        (user, client): (&str, &str),
        members: &[Member],
        inline: Bytes,
    ) -> Option<Self> {
        let blobs = meta::blob_ids(members);
        let mut draft = Self {
            kind,
            hash,
            tail: v2::names(user, client, members.len()),
            meta: Vec::new(),
            inline: Bytes::new(),
            blobs,
        };
        match kind {
            FrameKind::Delete => {}
            FrameKind::Put if draft.blobs.is_empty() => {
                // The length is not written: it is what the members add up to.
                let bytes = body_bytes(members.iter().map(Member::bytes));
                if bytes != inline.len() as u64 || u32::try_from(bytes).is_err() {
                    return None;
                }
                v2::push_inline(&mut draft.tail, crc32fast::hash(&inline), members);
                draft.inline = inline;
            }
            FrameKind::Put => {
                draft.meta = codec::encode(&members).ok()?;
                v2::push_extents(&mut draft.tail, &draft.meta);
            }
        }
        (draft.tail.len() <= v2::MAX_TAIL_BYTES).then_some(draft)
    }

    pub(crate) fn entry_kind(&self) -> EntryKind {
        EntryKind::new(self.kind, !self.blobs.is_empty())
    }

    /// Appends all but the inline bytes to `to`; the length of the whole frame.
    pub(crate) fn encode(&self, stamp: CommitInfo, to: &mut Vec<u8>) -> u64 {
        let has_blobs = !self.blobs.is_empty();
        let head_bytes = v2::encode_head((self.kind, has_blobs), stamp, &self.tail, to);
        to.extend_from_slice(&self.meta);
        (head_bytes + self.meta.len() + self.inline.len()) as u64
    }

    /// Bytes of the whole frame, at most.
    pub(crate) fn max_frame_bytes(&self) -> u64 {
        let head = v2::MAX_STAMP_BYTES + self.tail.len();
        (head + self.meta.len() + self.inline.len()) as u64
    }
}
