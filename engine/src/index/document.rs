//! Reads return stored documents as values of the type [`Document`]. A `Document` holds the entire
//! body of a small document in memory. A large document is read from its blobs as a stream of
//! verified chunks.
//!
//! A `Document` keeps its blob files open, so later writes and deletes do not affect it.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use triomphe::ThinArc;

use crate::format::frame::header::FrameHeader;
use crate::format::frame::member::{self, EXTENT_CHUNK_BYTES, Extent, Member, ValueLocation};
use crate::model::error::{Error, Result};
use crate::model::ids::BlobId;
use crate::model::stat::Stat;
use crate::platform::aligned::{MAX_ALIGNMENT_PADDING, alignment_padding};
use crate::platform::fs::File;
use crate::storage::blobs::{self, BlobStore};
use crate::storage::io::read_into;
use crate::storage::log::reader::Frame;

/// A document at one revision. Later writes and deletes do not change the document.
///
/// Cloning is cheap: clones share memory and open files. A small document has its body in memory
/// ([`Self::in_memory`]). A large document keeps its blob files (usually one) open until its last
/// clone and its last [`Chunks`] are dropped. A `Document` stays readable after the engine is
/// closed.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "web")?;
/// namespace.write(br#"{"theme":"dark","zoom":2}"#, WriteOptions::default())?;
///
/// let document = namespace.get()?.ok_or("not found")?;
/// namespace.write(prefd_engine::Change::Delete, WriteOptions::default())?;
/// assert_eq!(document.read()?, br#"{"theme":"dark","zoom":2}"#);
/// assert_eq!(document.keys().collect::<Vec<_>>(), ["theme", "zoom"]);
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Document(ThinArc<DocumentHead, u8>);

/// All data of a document except the body. The body follows in the same allocation, which avoids a
/// second cache miss when a document is read.
struct DocumentHead {
    /// True if the document has been read since the document cache last examined it for eviction.
    is_marked_read: AtomicBool,
    stat: Stat,
    members: Vec<Member>,
    blobs: Vec<OpenBlob>,
}

/// An open blob file of a large document.
struct OpenBlob {
    id: BlobId,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Document {
    /// Creates a document from its frame, and opens the blobs that the frame refers to.
    pub(crate) fn new(frame: Frame, blobs: &BlobStore) -> Result<Self> {
        let FrameHeader {
            revision,
            modified_ms,
            ..
        } = frame.header;
        let stat = Stat::new(revision, modified_ms, frame.usage);
        let blobs = member::blob_ids(&frame.members)
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
            is_marked_read: AtomicBool::new(false),
            stat,
            members: frame.members,
            blobs,
        };
        Ok(Self(ThinArc::from_header_and_slice(head, &frame.inline)))
    }

    /// Creates a document that is not in a store.
    #[cfg(test)]
    pub(crate) fn in_memory_only(stat: Stat, body: &[u8]) -> Self {
        let head = DocumentHead {
            is_marked_read: AtomicBool::new(false),
            stat,
            members: Vec::new(),
            blobs: Vec::new(),
        };
        Self(ThinArc::from_header_and_slice(head, body))
    }

    fn head(&self) -> &DocumentHead {
        &self.0.header.header
    }

    /// Returns true if both values are clones of the same `Document`.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// Returns true if the document has no other clones.
    pub(crate) fn is_unshared(&self) -> bool {
        ThinArc::strong_count(&self.0) == 1
    }

    /// Marks the document as read.
    pub(crate) fn mark_read(&self) {
        // The check avoids an unnecessary write, which would invalidate the cache line on
        // other processors.
        if !self.head().is_marked_read.load(Ordering::Relaxed) {
            self.head().is_marked_read.store(true, Ordering::Relaxed);
        }
    }

    /// Clears the read mark and returns whether it was set.
    pub(crate) fn take_read_mark(&self) -> bool {
        self.head().is_marked_read.swap(false, Ordering::Relaxed)
    }

    /// Returns the document's revision, modification time and size. Never blocks.
    pub fn stat(&self) -> &Stat {
        &self.head().stat
    }

    /// Returns the entire body if it is in memory. The body is in memory if the document had at
    /// most [`crate::Config::inline_bytes`] bytes when it was written. Returns `None` for a larger
    /// document. Never blocks.
    pub fn in_memory(&self) -> Option<&[u8]> {
        self.head().blobs.is_empty().then(|| &self.0.slice)
    }

    /// Returns the entire body as [`Bytes`] that share the document's memory. Returns `None` if
    /// [`Self::in_memory`] returns `None`. The document stays in memory until the returned value
    /// and all its clones are dropped. Never blocks.
    pub fn to_bytes(&self) -> Option<Bytes> {
        self.in_memory()?;
        Some(Bytes::from_owner(BodyOwner(self.clone())))
    }

    /// Returns an iterator over the body in pieces of up to 64 KiB. Iterating blocks on the disk
    /// unless the body is [in memory](Self::in_memory). A large document is read in parts of up to
    /// 512 KiB, so the iterator needs a buffer of that size.
    ///
    /// Every piece is verified before it is returned. The iterator ends after an error.
    pub fn chunks(&self) -> Chunks {
        self.chunks_within(DEFAULT_READ_BYTES)
    }

    /// Returns an iterator like [`Self::chunks`], but with a read buffer of about `bytes` bytes. If
    /// `bytes` is less than 64 KiB, reads of 64 KiB are used, because a checksum covers up to 64
    /// KiB and can be verified only after all these bytes are read.
    pub fn chunks_within(&self, bytes: usize) -> Chunks {
        let mut sources = VecDeque::new();
        if let Some(body) = self.to_bytes() {
            sources.push_back(ChunkSource::Text(body));
        } else {
            let mut separator = "{";
            for member in &self.head().members {
                let text = format!("{separator}{}:", member.key);
                sources.push_back(ChunkSource::Text(text.into()));
                sources.push_back(self.value_source(&member.value));
                separator = ",";
            }
            sources.push_back(ChunkSource::Text(Bytes::from_static(b"}")));
        }
        self.chunks_from(sources, bytes)
    }

    /// Returns an iterator over the JSON text of one value, in pieces of up to 64 KiB. `key` is the
    /// decoded key. Returns `None` if the document does not have the key. Iterating reads only this
    /// value, and blocks on the disk unless the body is [in memory](Self::in_memory).
    pub fn value(&self, key: &str) -> Option<Chunks> {
        self.head()
            .members
            .iter()
            .find(|member| decode_key(&member.key) == key)
            .map(|member| {
                let sources = VecDeque::from([self.value_source(&member.value)]);
                self.chunks_from(sources, DEFAULT_READ_BYTES)
            })
    }

    /// Returns the decoded keys, in document order. Never blocks.
    pub fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.head()
            .members
            .iter()
            .map(|member| decode_key(&member.key))
    }

    /// Reads the entire body into memory. Blocks on the disk unless the body is [in
    /// memory](Self::in_memory).
    ///
    /// # Errors
    /// - [`Error::Corrupt`]: the stored bytes are damaged or missing.
    /// - [`Error::Unreadable`]: the disk does not return the stored bytes.
    pub fn read(&self) -> Result<Vec<u8>> {
        let bytes = usize::try_from(self.head().stat.usage.bytes).unwrap_or_default();
        let mut body = Vec::with_capacity(bytes);
        for chunk in self.chunks() {
            body.extend_from_slice(&chunk?);
        }
        Ok(body)
    }

    /// Returns the approximate memory of the document, in bytes.
    pub(crate) fn weight(&self) -> u64 {
        let members: usize = self
            .head()
            .members
            .iter()
            .map(|member| size_of::<Member>() + member.key.len())
            .sum();
        (size_of::<DocumentHead>() + members + self.0.slice.len()) as u64
    }

    fn value_source(&self, location: &ValueLocation) -> ChunkSource {
        match location {
            ValueLocation::Inline { offset, bytes } => {
                let start = *offset as usize;
                // The bounds of the value were checked when the frame was read.
                let body = Bytes::from_owner(BodyOwner(self.clone()));
                ChunkSource::Text(body.slice(start..start + *bytes as usize))
            }
            ValueLocation::Extent(extent) => ChunkSource::Extent {
                extent: extent.clone(),
                done: 0,
            },
        }
    }

    fn chunks_from(&self, sources: VecDeque<ChunkSource>, bytes: usize) -> Chunks {
        Chunks {
            document: self.clone(),
            sources,
            per_read: (bytes / EXTENT_CHUNK_BYTES).max(1),
            memory: Bytes::new(),
        }
    }
}

/// Owns the document whose body is shared as [`Bytes`].
struct BodyOwner(Document);

impl AsRef<[u8]> for BodyOwner {
    fn as_ref(&self) -> &[u8] {
        &self.0.0.slice
    }
}

/// Decodes a key. Decoding cannot fail, because keys are validated when they are written. If
/// decoding failed, the stored text of the key would be returned.
fn decode_key(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(self.stat()).finish()
    }
}

/// A part of the JSON text that [`Chunks`] returns.
enum ChunkSource {
    Text(Bytes),
    Extent {
        extent: Extent,
        /// Number of chunks of the extent that have already been read.
        done: usize,
    },
}

/// An iterator over the bytes of a document or of one of its values. A `Chunks` is returned by
/// [`Document::chunks`], [`Document::chunks_within`] and [`Document::value`].
///
/// Each item is a piece of up to 64 KiB. For a large document, advancing the iterator blocks on the
/// disk, and the blob files stay open until the iterator is dropped. An item is an error if the
/// stored bytes are damaged ([`Error::Corrupt`]) or cannot be read ([`Error::Unreadable`]). The
/// iterator ends after an error.
///
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
///
/// let dir = tempfile::tempdir()?;
/// let engine = Engine::open(Config::new(dir.path()))?;
/// let namespace = engine.namespace("alice", "web")?;
/// namespace.write(br#"{"zoom":2}"#, WriteOptions::default())?;
///
/// let document = namespace.get()?.ok_or("not found")?;
/// let mut zoom = Vec::new();
/// for chunk in document.value("zoom").ok_or("no such key")? {
///     zoom.extend_from_slice(&chunk?);
/// }
/// assert_eq!(zoom, b"2");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Chunks {
    document: Document,
    sources: VecDeque<ChunkSource>,
    /// Maximum number of chunks that one read of an extent returns.
    per_read: usize,
    /// The buffer of the previous read. The next read reuses the buffer if no returned piece refers
    /// to it any more.
    memory: Bytes,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// Reads and verifies the next chunks of an extent. `done` is the number of chunks of the
    /// extent that have already been read. Returns the bytes and the number of chunks that were
    /// read, or `None` at the end of the extent.
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
            return Err(Error::internal("a document must have all its blobs open"));
        };
        let offset = extent.offset.saturating_add(begun);
        let most = self.per_read * EXTENT_CHUNK_BYTES;
        let len = usize::try_from(rest).unwrap_or(most).min(most);
        let mut buffer = std::mem::take(&mut self.memory)
            .try_into_mut()
            .unwrap_or_default();
        if buffer.len() < len + MAX_ALIGNMENT_PADDING {
            buffer = BytesMut::zeroed(len + MAX_ALIGNMENT_PADDING);
        }
        let start = alignment_padding(&buffer, offset);
        let too_short = || Error::internal("a read buffer must be as long as the read");
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
            match self.sources.pop_front()? {
                ChunkSource::Text(mut text) => {
                    if text.len() > EXTENT_CHUNK_BYTES {
                        let first = text.split_to(EXTENT_CHUNK_BYTES);
                        self.sources.push_front(ChunkSource::Text(text));
                        return Some(Ok(first));
                    }
                    return Some(Ok(text));
                }
                ChunkSource::Extent { extent, done } => match self.read(&extent, done) {
                    Ok(Some((read, chunks))) => {
                        self.sources.push_front(ChunkSource::Extent {
                            extent,
                            done: done + chunks,
                        });
                        self.sources.push_front(ChunkSource::Text(read));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.sources.clear();
                        return Some(Err(error));
                    }
                },
            }
        }
    }
}

/// Default size of a read from a blob. Reads of this size make the cost of system calls
/// insignificant, but are small enough that the bytes are still in the processor's cache when their
/// checksums are verified.
const DEFAULT_READ_BYTES: usize = 512 * 1024;

/// Offset of the body in a blob file.
pub(crate) const BODY_AT: u64 = blobs::HEADER_BYTES;
