//! A stored document, as a reader uses it. A small document is entirely in memory. A large one
//! is read from its blobs as a stream of verified chunks.
//!
//! A document keeps its blob files open, so a later write or delete does not affect it.

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
use crate::platform::aligned::{MAX_ALIGNMENT_PADDING, alignment_padding};
use crate::platform::fs::File;
use crate::storage::blobs::{self, BlobStore};
use crate::storage::io::read_into;
use crate::storage::log::reader::Frame;

/// A document at one revision. Later writes and deletes do not change it.
///
/// Cloning is cheap: clones share memory and open files. A small document has its body in
/// memory ([`Self::in_memory`]). A large one keeps its blob files open, usually one file
/// descriptor, until its last clone and its last [`Chunks`] are dropped. It stays readable
/// after the engine was closed.
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

/// Everything but the body. The body follows the head in the same allocation: reading a
/// document that is not in the processor's caches costs memory latency, and a second
/// allocation would double it.
struct DocumentHead {
    /// The document was read since the document cache last examined it.
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
    /// Creates the document that `frame` contains, and opens the blobs that it refers to.
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
            is_marked_read: AtomicBool::new(false),
            stat,
            members: frame.members,
            blobs,
        };
        Ok(Self(ThinArc::from_header_and_slice(head, &frame.inline)))
    }

    /// A document that is not in a store.
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

    /// Returns whether both are clones of the same document.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        std::ptr::eq(self.head(), other.head())
    }

    /// Returns whether there is no other clone.
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

    /// The document's revision, modification time and size. Does not block.
    pub fn stat(&self) -> &Stat {
        &self.head().stat
    }

    /// The entire body, if it is in memory. This is the case for documents of up to
    /// [`crate::Config::inline_bytes`]. Returns `None` for larger ones. Does not block.
    pub fn in_memory(&self) -> Option<&[u8]> {
        self.head().blobs.is_empty().then(|| &self.0.slice)
    }

    /// The entire body as [`Bytes`] that share the document's memory, if [`Self::in_memory`]
    /// has it. The document stays in memory as long as the returned value. Does not block.
    pub fn to_bytes(&self) -> Option<Bytes> {
        self.in_memory()?;
        Some(Bytes::from_owner(BodyOwner(self.clone())))
    }

    /// The body in pieces of up to 64 KiB, in order. Iterating blocks on the disk unless the
    /// body is [in memory](Self::in_memory). A large document is read 512 KiB at a time, into
    /// a buffer of that size.
    ///
    /// Every piece is verified before it is returned. After an error the iterator ends.
    pub fn chunks(&self) -> Chunks {
        self.chunks_within(DEFAULT_READ_BYTES)
    }

    /// The body in pieces, as [`Self::chunks`] returns it, but with a read buffer of `bytes`
    /// bytes. The minimum is 64 KiB, because each checksum covers that many bytes.
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

    /// The JSON text of one value in pieces, as [`Self::chunks`] returns them. `key` is the
    /// decoded key. Returns `None` if the document does not have the key. Iterating reads this
    /// value only.
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

    /// The decoded keys, in the document's order. Does not block.
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

    /// Approximate memory of the document, in bytes.
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
                // The bounds were checked when the frame was read. Only documents without
                // blobs have inline values.
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

/// Decodes a key. Keys are validated when they are written; one that does not decode anyway is
/// returned as stored.
fn decode_key(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(self.stat()).finish()
    }
}

/// A part of the text that [`Chunks`] returns.
enum ChunkSource {
    Text(Bytes),
    Extent {
        extent: Extent,
        /// Number of chunks of the extent that were read.
        done: usize,
    },
}

/// An iterator over the bytes of a document or of one of its values. See [`Document::chunks`]
/// and [`Document::value`].
///
/// Each item is a piece of up to 64 KiB. For a large document, advancing the iterator blocks
/// on the disk, and its files stay open until it is dropped. An item is an error if the stored
/// bytes are damaged ([`Error::Corrupt`]) or the disk does not return them
/// ([`Error::Unreadable`]). The iterator ends after an error.
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
    /// Number of extent chunks per read.
    per_read: usize,
    /// The buffer of the last read. It is reused if no returned piece refers to it any more.
    memory: Bytes,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunks").finish_non_exhaustive()
    }
}

impl Chunks {
    /// Reads and verifies the next chunks of an extent, of which `done` chunks were read
    /// before. Returns the bytes and the number of chunks, or `None` at the end of the extent.
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
        let most = self.per_read * EXTENT_CHUNK_BYTES;
        let len = usize::try_from(rest).unwrap_or(most).min(most);
        let mut buffer = std::mem::take(&mut self.memory)
            .try_into_mut()
            .unwrap_or_default();
        if buffer.len() < len + MAX_ALIGNMENT_PADDING {
            buffer = BytesMut::zeroed(len + MAX_ALIGNMENT_PADDING);
        }
        let start = alignment_padding(&buffer, offset);
        let too_short = || Error::internal("a read buffer is as long as the read");
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

/// Default size of a read from a blob. It is large enough that system calls take little of the
/// time, and small enough that the bytes are still in the processor's cache when their
/// checksums are verified.
const DEFAULT_READ_BYTES: usize = 512 * 1024;

/// Offset of the body in a blob's file.
pub(crate) const BODY_AT: u64 = blobs::HEADER_BYTES;
