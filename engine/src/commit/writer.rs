//! The streaming writer: receives a document in chunks, validates the document, and prepares it for
//! a commit.
//!
//! The writer stores the body in the form that reads return: the keys and values as they were sent,
//! without whitespace outside keys and values. A body of up to `inline_bytes` stays in memory. A
//! larger body is written to a blob file. If a value in a blob file arrived in several chunks, the
//! complete value is read back for validation.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::one_pass;
use crate::format::checksums::ChunkChecksums;
use crate::format::frame::bounds::{MAX_ESCAPE_BYTES, MIN_MEMBER_BYTES};
use crate::format::frame::member::{EXTENT_CHUNK_BYTES, Extent, Member, ValueLocation};
use crate::json::scanner::{JsonScanner, ScanEvent};
use crate::json::validate;
use crate::model::error::{Error, Result};
use crate::model::ids::BlobId;
use crate::model::limits::{Limits, Usage, Violation};
use crate::platform::semaphore::Semaphore;
use crate::storage::blobs::{BlobStore, BlobWriter, UncommittedBlob};

/// The state that all writers of an engine share.
pub(crate) struct WriteContext {
    pub(crate) limits: Limits,
    pub(crate) inline_bytes: u32,
    pub(crate) blobs: Arc<BlobStore>,
    /// Limits the number of values that are read back into memory for validation at the same time.
    pub(crate) value_checks: Semaphore,
}

impl WriteContext {
    /// Approximate maximum memory of a writer that receives a document of `length` bytes.
    pub(crate) fn writer_bytes(&self, length: u64) -> u64 {
        let inline = length.min(self.inline_bytes.into());
        let blob = if length > inline { BLOB_BYTES } else { 0 };
        let Limits {
            max_keys,
            max_key_bytes,
            ..
        } = self.limits;
        let keys = u64::from(max_keys).min(length / MIN_MEMBER_BYTES);
        // A writer keeps the JSON text of each key, and the decoded key.
        let text = (MAX_ESCAPE_BYTES + 1) * u64::from(max_key_bytes);
        let texts = keys.saturating_mul(text).min(length.saturating_mul(2));
        let checksums = (length / EXTENT_CHUNK_BYTES as u64 + keys) * CHECKSUM_BYTES;
        inline + blob + keys * KEY_BYTES + texts + checksums
    }
}

/// Memory for writing a blob in bytes: the buffer, and its alignment.
const BLOB_BYTES: u64 = 132 * 1024;
/// Memory for each key in bytes, without its texts: the entries in the list of members, in the
/// list of the finished document and in the set of keys, and the allocations. The lists can be
/// twice as long as necessary.
const KEY_BYTES: u64 = 2 * size_of::<PendingMember>() as u64 + size_of::<Member>() as u64 + 128;
/// Memory for each checksum in bytes. The list of checksums can be twice as long as necessary.
const CHECKSUM_BYTES: u64 = 8;

/// Receives a document in chunks, and validates it against the [`Limits`] of the engine.
///
/// Use a `Writer` for a document that arrives piece by piece, for example from a socket. For a
/// document that is completely in memory, [`crate::Engine::prepare`] is simpler. The document can
/// be split into chunks at any byte, even inside a key or a number. Dropping a writer discards the
/// document.
///
/// # Memory
/// A writer needs up to [`crate::Config::inline_bytes`] plus 128 KiB of memory, and memory for the
/// keys and checksums. If the document is larger than `inline_bytes`, a value that arrived in more
/// than one chunk is read back into memory for validation. At most
/// [`crate::Config::value_checks`] writers read back values at the same time, and other writers
/// wait.
///
/// # Durability
/// The document is neither visible nor durable until the [`Prepared`] document is committed. If the
/// process crashes before the commit, the unused blob file is removed after the next open.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let mut writer = engine.writer();
/// for chunk in [&b"{\"the"[..], b"me\":\"da", b"rk\"}"] {
///     writer.write(chunk)?;
/// }
/// let document = writer.finish()?;
/// assert_eq!(document.usage().keys, 1);
/// engine
///     .namespace("alice", "editor")?
///     .write(document, WriteOptions::default())?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
pub struct Writer {
    context: Arc<WriteContext>,
    scanner: JsonScanner,
    body: BodyBuffer,
    members: Vec<PendingMember>,
    /// The error of an earlier call, which all later calls return.
    failed: Option<Error>,
}

/// The received part of the body, in its stored form.
enum BodyBuffer {
    Memory(Vec<u8>),
    Blob {
        blob: BlobWriter,
        /// The checksums of the value that is being received.
        checksums: ChunkChecksums,
    },
}

/// A member whose value is complete, or is being received.
struct PendingMember {
    key: String,
    /// Offset of the value: in the body if the body is in memory, and in the blob file otherwise.
    value_offset: u64,
    /// Length of the received part of the value, in bytes.
    value_bytes: u64,
    /// The checksums of a complete value in a blob. Empty for other values.
    crcs: Vec<u32>,
}

impl Writer {
    pub(crate) fn new(context: Arc<WriteContext>) -> Self {
        Self {
            scanner: JsonScanner::new(context.limits.clone()),
            context,
            body: BodyBuffer::Memory(Vec::new()),
            members: Vec::new(),
            failed: None,
        }
    }

    /// Validates a document that is completely in memory.
    pub(crate) fn prepare(context: &Arc<WriteContext>, body: &[u8]) -> Result<Prepared> {
        if body.len() <= context.inline_bytes as usize
            && let Some(document) = one_pass::check(body, &context.limits, context.inline_bytes)
        {
            return Ok(Prepared {
                members: document.members,
                inline: document.body,
                blob: None,
                usage: document.usage,
            });
        }
        let mut writer = Self::new(Arc::clone(context));
        writer.write(body)?;
        writer.finish()
    }

    /// Returns true if no bytes have been written yet. Never blocks.
    pub fn is_empty(&self) -> bool {
        self.scanner.is_at_start()
    }

    /// Returns true if neither a [`write`](Self::write) of `more` bytes nor a subsequent
    /// [`finish`](Self::finish) accesses the disk, so that both can be called on an async worker
    /// thread. Never blocks.
    pub fn stays_in_memory(&self, more: usize) -> bool {
        match &self.body {
            // The stored body is never longer than the received body.
            BodyBuffer::Memory(body) => body.len() + more < self.context.inline_bytes as usize,
            BodyBuffer::Blob { .. } => false,
        }
    }

    /// Adds the next bytes of the document, and validates them.
    ///
    /// May block on the disk if [`Self::stays_in_memory`] returns false for the length of the
    /// chunk. A call that may block on the disk may also wait for other writers that are validating
    /// large values.
    ///
    /// # Errors
    /// - [`Error::Rejected`]: contains the first violation, by byte offset.
    /// - [`Error::StorageFull`], [`Error::Io`]: the blob file cannot be written or read back.
    ///
    /// After an error, every later call returns the same error.
    pub fn write(&mut self, chunk: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.scan_chunk(chunk);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn scan_chunk(&mut self, mut chunk: &[u8]) -> Result<()> {
        if let BodyBuffer::Memory(body) = &mut self.body {
            let room = (self.context.inline_bytes as usize).saturating_sub(body.len());
            body.reserve(chunk.len().min(room));
        }
        // The text of the current value, if all of it is in this chunk.
        let mut complete = None;
        loop {
            match self.scanner.next(&mut chunk) {
                Ok(None) => return Ok(()),
                Ok(Some(ScanEvent::Key(key))) => {
                    let separator = if self.members.is_empty() { b"{" } else { b"," };
                    self.append(separator)?;
                    self.append(key.as_bytes())?;
                    self.append(b":")?;
                    self.members.push(PendingMember {
                        key,
                        value_offset: self.offset(),
                        value_bytes: 0,
                        crcs: Vec::new(),
                    });
                    if let BodyBuffer::Blob { checksums, .. } = &mut self.body {
                        *checksums = ChunkChecksums::default();
                    }
                }
                Ok(Some(ScanEvent::Value(piece))) => {
                    self.append(piece)?;
                    if let BodyBuffer::Blob { checksums, .. } = &mut self.body {
                        checksums.update(piece);
                    }
                    if let Some(member) = self.members.last_mut() {
                        complete = (member.value_bytes == 0).then_some(piece);
                        member.value_bytes += piece.len() as u64;
                    }
                }
                Ok(Some(ScanEvent::ValueEnd)) => self.end_value(complete.take())?,
                Err(violation) => return Err(self.first_violation(violation)),
            }
        }
    }

    /// Checks that the document is complete, and returns it as a [`Prepared`] document.
    ///
    /// If [`Self::stays_in_memory`] returns false for 0 bytes, `finish` blocks, because it syncs
    /// the document's blob file and the `blobs` directory.
    ///
    /// # Errors
    /// The errors of [`Self::write`]. If the sync of the blob file fails with [`Error::Io`], only
    /// this document is affected, and the engine remains writable.
    pub fn finish(mut self) -> Result<Prepared> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(violation) = self.scanner.end() {
            return Err(self.first_violation(violation));
        }
        let end: &[u8] = if self.members.is_empty() { b"{}" } else { b"}" };
        match &mut self.body {
            BodyBuffer::Memory(body) => body.extend_from_slice(end),
            BodyBuffer::Blob { blob, .. } => blob.write(end)?,
        }
        let bytes = self.body_bytes();
        let keys = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let usage = Usage { keys, bytes };
        match self.body {
            BodyBuffer::Memory(body) => Ok(Prepared {
                members: self
                    .members
                    .into_iter()
                    .map(PendingMember::inline)
                    .collect::<Result<_>>()?,
                inline: body.into(),
                blob: None,
                usage,
            }),
            BodyBuffer::Blob { blob, .. } => {
                let id = blob.id();
                let members = self.members.into_iter().map(|m| m.extent(id)).collect();
                Ok(Prepared {
                    members,
                    inline: Bytes::new(),
                    blob: Some(blob.finish()?),
                    usage,
                })
            }
        }
    }

    /// Appends bytes to the body. Moves the body to a blob file if the complete body would be
    /// longer than `inline_bytes`.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let BodyBuffer::Memory(body) = &mut self.body {
            // The comparison is strict, because the closing brace needs one more byte.
            if body.len() + bytes.len() < self.context.inline_bytes as usize {
                body.extend_from_slice(bytes);
                return Ok(());
            }
            let body = std::mem::take(body);
            self.move_to_blob(&body)?;
        }
        match &mut self.body {
            BodyBuffer::Blob { blob, .. } => blob.write(bytes),
            BodyBuffer::Memory(_) => Err(Error::internal(
                "a body longer than inline_bytes must be in a blob",
            )),
        }
    }

    fn move_to_blob(&mut self, body: &[u8]) -> Result<()> {
        let mut blob = self.context.blobs.create()?;
        let base = blob.offset();
        let mut checksums = ChunkChecksums::default();
        for member in &mut self.members {
            let value = member.value_in(body)?;
            member.crcs = ChunkChecksums::of(value).finish();
            member.value_offset += base;
            // If the last value is incomplete, later bytes are added to its checksums.
            checksums = ChunkChecksums::of(value);
        }
        blob.write(body)?;
        self.body = BodyBuffer::Blob { blob, checksums };
        Ok(())
    }

    /// Returns the offset at which the next byte will be appended: in the body if the body is in
    /// memory, and in the blob file otherwise.
    fn offset(&self) -> u64 {
        match &self.body {
            BodyBuffer::Memory(body) => body.len() as u64,
            BodyBuffer::Blob { blob, .. } => blob.offset(),
        }
    }

    /// Returns the length of the received part of the stored body, in bytes.
    fn body_bytes(&self) -> u64 {
        match &self.body {
            BodyBuffer::Memory(body) => body.len() as u64,
            BodyBuffer::Blob { blob, .. } => blob.offset() - crate::index::document::BODY_AT,
        }
    }

    /// Validates the value that has just ended. If all of the value was in the last chunk,
    /// `complete` is the text of the value, so that the value need not be read back.
    fn end_value(&mut self, complete: Option<&[u8]>) -> Result<()> {
        let start = self.scanner.value_start();
        match (&mut self.body, complete) {
            (BodyBuffer::Blob { blob, .. }, Some(text)) => {
                blob.sync_during(text.len(), || validate::check_value(text, start))??;
            }
            _ => self.with_value(|text| validate::check_value(text, start))??,
        }
        if let (BodyBuffer::Blob { checksums, .. }, Some(member)) =
            (&mut self.body, self.members.last_mut())
        {
            member.crcs = std::mem::take(checksums).finish();
        }
        Ok(())
    }

    /// Returns the first violation of the document: either `violation`, or an earlier violation in
    /// the value that is being received. Complete values have already been validated.
    fn first_violation(&mut self, violation: Violation) -> Error {
        if !self.scanner.is_in_value() {
            return violation.into();
        }
        let start = self.scanner.value_start();
        match self.with_value(|text| validate::check_prefix(text, start)) {
            Ok(Ok(())) => violation.into(),
            Ok(Err(earlier)) => earlier.into(),
            Err(error) => error,
        }
    }

    /// Calls `validate` with the received part of the last value. If the value is in a blob, the
    /// value is read back. A blob with a large value is synced during the validation, so that the
    /// final sync has fewer bytes to write.
    fn with_value<T>(&mut self, validate: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let Some(member) = self.members.last() else {
            return Err(Error::internal("a value must have a key"));
        };
        match &mut self.body {
            BodyBuffer::Memory(body) => Ok(validate(member.value_in(body)?)),
            BodyBuffer::Blob { blob, .. } => {
                let _permit = self.context.value_checks.acquire();
                let text = blob.read_back(member.value_offset, member.value_bytes)?;
                blob.sync_during(text.len(), || validate(&text))
            }
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("keys", &self.members.len())
            .field("bytes", &self.body_bytes())
            .finish_non_exhaustive()
    }
}

impl PendingMember {
    /// Returns the received part of the value. `body` must be the body in memory.
    fn value_in<'a>(&self, body: &'a [u8]) -> Result<&'a [u8]> {
        let range = usize::try_from(self.value_offset)
            .ok()
            .zip(usize::try_from(self.value_bytes).ok());
        let value = range.and_then(|(start, len)| body.get(start..)?.get(..len));
        value.ok_or_else(|| Error::internal("a value must be inside the body"))
    }

    fn inline(self) -> Result<Member> {
        let location = u32::try_from(self.value_offset)
            .ok()
            .zip(u32::try_from(self.value_bytes).ok());
        let too_long = || Error::internal("an inline value must be at most inline_bytes long");
        let (offset, bytes) = location.ok_or_else(too_long)?;
        let value = ValueLocation::Inline { offset, bytes };
        Ok(Member::new(self.key, value))
    }

    fn extent(self, blob: BlobId) -> Member {
        let extent = Extent {
            blob,
            offset: self.value_offset,
            bytes: self.value_bytes,
            crcs: self.crcs,
        };
        Member::new(self.key, ValueLocation::Extent(extent))
    }
}

/// A validated document that has not been committed yet.
///
/// [`Writer::finish`] and [`crate::Engine::prepare`] return a `Prepared`, which can be committed to
/// any namespace of the same engine. Dropping a `Prepared` discards the document.
///
/// A document of up to [`crate::Config::inline_bytes`] bytes is in memory. The body of a larger
/// document is in a blob file that is already synced, and only the keys and checksums of the
/// document are in memory.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let document = engine.prepare(br#"{"theme": "dark", "tab_width": 4}"#)?;
/// assert_eq!(document.usage().keys, 2);
/// let namespace = engine.namespace("alice", "editor")?;
/// namespace.write(document, WriteOptions::default())?;
/// # Ok::<(), prefd_engine::Error>(())
/// ```
pub struct Prepared {
    pub(crate) members: Vec<Member>,
    pub(crate) inline: Bytes,
    pub(crate) blob: Option<UncommittedBlob>,
    usage: Usage,
}

impl Prepared {
    /// Returns the number of keys in the document, and the size of the document as stored. Never
    /// blocks.
    pub fn usage(&self) -> Usage {
        self.usage
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared")
            .field("usage", &self.usage)
            .finish_non_exhaustive()
    }
}
