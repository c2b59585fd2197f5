//! A stored document, as a reader holds it: whole where it is small, a stream of
//! verified chunks where it lies in a blob.
//!
//! It holds the files it reads from open, so a later write or delete takes nothing
//! away from it.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use triomphe::ThinArc;

use crate::format::frame::header::FrameHeader;
use crate::format::frame::meta::{self, EXTENT_CHUNK_BYTES, Extent, Member, ValueLocation};
use crate::model::error::{Error, Result};
use crate::model::ids::BlobId;
use crate::model::stat::Stat;
use crate::platform::aligned::{LARGEST_SHIFT, misalignment};
use crate::platform::fs::File;
use crate::storage::blobs::{self, BlobStore};
use crate::storage::io::read_into;
use crate::storage::log::reader::Frame;

/// A document at one revision. Cheap to clone; a later write does not change it.
///
/// A small one holds its body in memory. A large one holds its blob file open, a
/// file descriptor, until the last clone and the last [`Chunks`] of it are gone.
///
/// The body lies behind the head, in one piece of memory: what a read of a document that
/// nobody has looked at lately takes is the memory's time, and two pieces take twice that.
#[derive(Clone)]
pub struct Document(ThinArc<DocumentHead, u8>);

struct DocumentHead {
    /// Whether it was read since the document cache looked.
    is_marked: AtomicBool,
    stat: Stat,
    members: Vec<Member>,
    blobs: Vec<OpenBlob>,
}

struct OpenBlob {
    id: BlobId,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Document {
    /// The document in `frame`. Opens the blobs that it names.
    pub(crate) fn new(frame: Frame, blobs: &BlobStore) -> Result<Self> {
        let FrameHeader {
            revision,
            modified_ms,
            ..
        } = frame.header;
        let stat = Stat::new(revision, modified_ms, frame.usage);
        let blobs = meta::blob_ids(&frame.members)
            .into_iter()
            .map(|id| {
                Ok(OpenBlob {
                    id,
                    path: blobs.path(id),
                    file: blobs.open_blob(id)?,
                })
            })
            .collect::<Result<_>>()?;
        let head = DocumentHead {
            is_marked: AtomicBool::new(false),
            stat,
            members: frame.members,
            blobs,
        };
        Ok(Self(ThinArc::from_header_and_slice(head, &frame.inline)))
    }

    /// One that no store holds.
    #[cfg(test)]
    pub(crate) fn in_memory_only(stat: Stat, body: &[u8]) -> Self {
        let head = DocumentHead {
            is_marked: AtomicBool::new(false),
            stat,
            members: Vec::new(),
            blobs: Vec::new(),
        };
        Self(ThinArc::from_header_and_slice(head, body))
    }

    fn head(&self) -> &DocumentHead {
        &self.0.header.header
    }

    /// Whether both are the same one in memory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// Whether nobody else has it.
    pub(crate) fn is_held_once(&self) -> bool {
        ThinArc::strong_count(&self.0) == 1
    }

    /// Marks it as read.
    pub(crate) fn mark(&self) {
        // A write that changes nothing would still take the line from other processors.
        if !self.head().is_marked.load(Ordering::Relaxed) {
            self.head().is_marked.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was marked; it is not any more.
    pub(crate) fn take_mark(&self) -> bool {
        self.head().is_marked.swap(false, Ordering::Relaxed)
    }

    /// Revision, time and size.
    pub fn stat(&self) -> &Stat {
        &self.head().stat
    }

    /// The whole body, where it is in memory: documents up to
    /// [`crate::Config::inline_bytes`].
    pub fn in_memory(&self) -> Option<&[u8]> {
        self.head().blobs.is_empty().then(|| &self.0.slice)
    }

    /// The same, to be kept: it shares the document's memory.
    pub fn to_bytes(&self) -> Option<Bytes> {
        self.in_memory()?;
        Some(Bytes::from_owner(BodyOwner(self.clone())))
    }

    /// The body in pieces of up to 64 KiB, in order. Blocks on the disk unless it
    /// is [in memory](Self::in_memory). Memory: up to 512 KiB, which is read at once.
    ///
    /// Every piece is verified before it is yielded. After an error there are no
    /// further pieces.
    pub fn chunks(&self) -> Chunks {
        self.chunks_within(READ_BYTES)
    }

    /// The same, in less memory: `bytes` of it (at least 64 KiB, since a checksum is of
    /// as much).
    pub fn chunks_within(&self, bytes: usize) -> Chunks {
        let mut pieces = VecDeque::new();
        if let Some(body) = self.to_bytes() {
            pieces.push_back(ChunkSource::Text(body));
        } else {
            let mut separator = "{";
            for member in &self.head().members {
                let text = format!("{separator}{}:", member.key);
                pieces.push_back(ChunkSource::Text(text.into()));
                pieces.push_back(self.value_piece(&member.value));
                separator = ",";
            }
            pieces.push_back(ChunkSource::Text(Bytes::from_static(b"}")));
        }
        self.pieces(pieces, bytes)
    }

    /// One value's JSON text, by its decoded key, in pieces as [`Self::chunks`]
    /// yields them; `None` where there is no such key. Reads nothing but that value.
    pub fn value(&self, key: &str) -> Option<Chunks> {
        self.head()
            .members
            .iter()
            .find(|member| decode_key(&member.key) == key)
            .map(|member| {
                let pieces = VecDeque::from([self.value_piece(&member.value)]);
                self.pieces(pieces, READ_BYTES)
            })
    }

    /// The decoded keys, in the document's order.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.head()
            .members
            .iter()
            .map(|member| decode_key(&member.key))
    }

    /// The whole body, in memory of its size. Blocks as [`Self::chunks`] does.
    pub fn read(&self) -> Result<Vec<u8>> {
        let bytes = usize::try_from(self.head().stat.usage.bytes).unwrap_or_default();
        let mut body = Vec::with_capacity(bytes);
        for chunk in self.chunks() {
            body.extend_from_slice(&chunk?);
        }
        Ok(body)
    }

    /// Bytes of memory that it takes, roughly.
    pub(crate) fn weight(&self) -> u64 {
        let members: usize = self
            .head()
            .members
            .iter()
            .map(|member| size_of::<Member>() + member.key.len())
            .sum();
        (size_of::<DocumentHead>() + members + self.0.slice.len()) as u64
    }

    fn value_piece(&self, location: &ValueLocation) -> ChunkSource {
        match location {
            ValueLocation::Inline { offset, bytes } => {
                let start = *offset as usize;
                // The bounds were checked when the frame was read, and only a document
                // without blobs has inline values.
                debug_assert!(self.in_memory().is_some());
                let body = Bytes::from_owner(BodyOwner(self.clone()));
                ChunkSource::Text(body.slice(start..start + *bytes as usize))
            }
            ValueLocation::Extent(extent) => ChunkSource::Extent {
                extent: extent.clone(),
                done: 0,
            },
        }
    }

    fn pieces(&self, pieces: VecDeque<ChunkSource>, bytes: usize) -> Chunks {
        Chunks {
            document: self.clone(),
            pieces,
            at_once: (bytes / EXTENT_CHUNK_BYTES).max(1),
            memory: Bytes::new(),
        }
    }
}

/// What keeps the memory of a body that is handed out.
struct BodyOwner(Document);

impl AsRef<[u8]> for BodyOwner {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.slice
    }
}

/// Keys were checked on their way in; one that does not decode is shown as it is.
fn decode_key(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(self.stat()).finish()
    }
}

enum ChunkSource {
    Text(Bytes),
    Extent {
        extent: Extent,
        /// Chunks of it that were read.
        done: usize,
    },
}

/// The bytes of a document or of one value, piece by piece. See
/// [`Document::chunks`].
pub struct Chunks {
    document: Document,
    pieces: VecDeque<ChunkSource>,
    /// Of an extent, this many are read at once.
    at_once: usize,
    /// What was read last, to be used again once nobody else has any of it.
    memory: Bytes,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// What comes next of an extent of which `done` chunks were read, verified, and how
    /// many chunks that is; `None` at its end.
    fn read(&mut self, extent: &Extent, done: usize) -> Result<Option<(Bytes, usize)>> {
        let begun = (done * EXTENT_CHUNK_BYTES) as u64;
        let Some(rest) = extent.bytes.checked_sub(begun).filter(|rest| *rest > 0) else {
            return Ok(None);
        };
        let Some(blob) = self
            .document
            .head()
            .blobs
            .iter()
            .find(|blob| blob.id == extent.blob)
        else {
            return Err(Error::internal("a document has all its blobs open"));
        };
        let offset = extent.offset.saturating_add(begun);
        let most = self.at_once * EXTENT_CHUNK_BYTES;
        let len = usize::try_from(rest).unwrap_or(most).min(most);
        let mut buffer = std::mem::take(&mut self.memory)
            .try_into_mut()
            .unwrap_or_default();
        if buffer.len() < len + LARGEST_SHIFT {
            buffer = BytesMut::zeroed(len + LARGEST_SHIFT);
        }
        let start = misalignment(&buffer, offset);
        let too_short = || Error::internal("a read buffer is as long as what is read");
        let memory = buffer.get_mut(start..start + len).ok_or_else(too_short)?;
        read_into(&*blob.file, || blob.path.clone(), offset, memory)?;
        for (index, chunk) in memory.chunks(EXTENT_CHUNK_BYTES).enumerate() {
            if extent.crcs.get(done + index) != Some(&crc32fast::hash(chunk)) {
                return Err(Error::corrupt(
                    &blob.path,
                    offset + (index * EXTENT_CHUNK_BYTES) as u64,
                    "the value's checksum does not match",
                ));
            }
        }
        self.memory = buffer.freeze();
        let read = self.memory.slice(start..start + len);
        Ok(Some((read, len.div_ceil(EXTENT_CHUNK_BYTES))))
    }
}

impl Iterator for Chunks {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.pieces.pop_front()? {
                ChunkSource::Text(mut text) => {
                    if text.len() > EXTENT_CHUNK_BYTES {
                        let first = text.split_to(EXTENT_CHUNK_BYTES);
                        self.pieces.push_front(ChunkSource::Text(text));
                        return Some(Ok(first));
                    }
                    return Some(Ok(text));
                }
                ChunkSource::Extent { extent, done } => match self.read(&extent, done) {
                    Ok(Some((read, chunks))) => {
                        self.pieces.push_front(ChunkSource::Extent {
                            extent,
                            done: done + chunks,
                        });
                        self.pieces.push_front(ChunkSource::Text(read));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.pieces.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

/// What is read at once of a large document, where nobody asks for less: so much that the
/// calls take little, and so little that what was read is still in the processor's cache
/// when it is checked.
const READ_BYTES: usize = 512 * 1024;

/// Where in its blob the body begins.
pub(crate) const BODY_AT: u64 = blobs::HEADER_BYTES;
