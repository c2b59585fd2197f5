//! The encoding of new frames, in the layout of version 3.

use bytes::Bytes;

use crate::format::codec;
use crate::format::frame::compact;
use crate::format::frame::header::{CommitInfo, EntryKind, FrameKind};
use crate::format::frame::inline_body::{self, body_bytes};
use crate::format::frame::member::{self, Member};
use crate::format::frame::records;
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
    /// The blobs that contain values of the document.
    pub(crate) blobs: Vec<BlobId>,
    /// The part of the frame header from the user name to the end of the header.
    tail: Vec<u8>,
    /// The metadata. `None` for a plain put and for a delete.
    meta: Option<Vec<u8>>,
    /// The inline body, which is empty for a delete.
    pub(crate) inline: Bytes,
}

impl EncodedFrame {
    /// Encodes a frame. `inline` contains the inline values at the offsets in `members`. Returns
    /// `None` if a length or the number of blobs exceeds the limits of the format, or if the
    /// lengths of the members do not match `inline`.
    pub(crate) fn new(
        kind: FrameKind,
        hash: NamespaceHash,
        (user, client): (&str, &str),
        members: &[Member],
        inline: Bytes,
    ) -> Option<Self> {
        let mut frame = Self {
            kind,
            hash,
            tail: compact::encode_names(user, client, members.len()),
            meta: None,
            inline: Bytes::new(),
            blobs: member::blob_ids(members),
        };
        match kind {
            FrameKind::Delete | FrameKind::Mark => {}
            FrameKind::Put if members.iter().all(Member::is_plain) => {
                // A plain put does not store the length of the inline body. A reader computes the
                // length of the body from the lengths of the members.
                let bytes = body_bytes(members.iter().map(Member::bytes));
                if bytes != inline.len() as u64 || u32::try_from(bytes).is_err() {
                    return None;
                }
                compact::push_inline(&mut frame.tail, crc32fast::hash(&inline), members);
                frame.inline = inline;
            }
            FrameKind::Put => {
                let body = Bytes::from(inline_body::build(members, &inline)?);
                let meta = records::encode(members)?;
                if meta.len() as u64 > codec::MAX_ENCODED_BYTES {
                    return None;
                }
                compact::push_metadata(&mut frame.tail, &meta, &body);
                frame.meta = Some(meta);
                frame.inline = body;
            }
        }
        (frame.tail.len() <= compact::MAX_TAIL_BYTES).then_some(frame)
    }

    pub(crate) fn entry_kind(&self) -> EntryKind {
        EntryKind::new(self.kind, self.meta.is_some())
    }

    /// Appends the header and the metadata of the frame to `to`, but not the inline body. Returns
    /// the length of the complete frame in bytes, including the inline body.
    pub(crate) fn encode(&self, commit: CommitInfo, to: &mut Vec<u8>) -> u64 {
        let meta = self.meta.as_deref();
        let kind = (self.kind, meta.is_some());
        let header_bytes = compact::encode_header(kind, commit, &self.tail, to);
        let meta = meta.unwrap_or_default();
        to.extend_from_slice(meta);
        (header_bytes + meta.len() + self.inline.len()) as u64
    }

    /// Upper bound of the length of the complete frame in bytes.
    pub(crate) fn max_frame_bytes(&self) -> u64 {
        let header = compact::MAX_LEAD_BYTES + self.tail.len();
        let meta = self.meta.as_ref().map_or(0, Vec::len);
        (header + meta + self.inline.len()) as u64
    }
}

/// Appends a mark to `to`, and returns its length in bytes.
pub(crate) fn encode_mark(commit: CommitInfo, to: &mut Vec<u8>) -> u64 {
    compact::encode_header((FrameKind::Mark, false), commit, &[], to) as u64
}
