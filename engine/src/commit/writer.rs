//! The way in: a document arrives in chunks, is split and checked as it passes, and
//! comes out ready to be committed.
//!
//! It writes down the body as it will be read: the members' own text, without the
//! whitespace between them. Up to the inline size that stays in memory; past it, it
//! goes to a blob, and a value is read back to be judged once it is complete.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::one_pass;
use crate::format::checksums::ChunkChecksums;
use crate::format::frame::meta::{Extent, Member, ValueLocation};
use crate::json::scanner::{JsonScanner, ScanEvent};
use crate::json::validate;
use crate::model::error::{Error, Result};
use crate::model::ids::BlobId;
use crate::model::limits::{Limits, Usage, Violation};
use crate::platform::semaphore::Semaphore;
use crate::storage::blobs::{BlobStore, BlobWriter, UncommittedBlob};

/// What writers share: the rules, and the few buffers for judging spooled values.
pub(crate) struct WriteContext {
    pub(crate) limits: Limits,
    pub(crate) inline_bytes: u32,
    pub(crate) blobs: Arc<BlobStore>,
    pub(crate) value_checks: Semaphore,
}

/// Takes a document in, chunk by chunk. Dropping it discards what was written.
///
/// Memory: up to [`crate::Config::inline_bytes`] and 128 KiB, however large the
/// document and however it is cut; and while a value of a spooled document is
/// checked, that value, for at most [`crate::Config::value_checks`] writers at once.
pub struct Writer {
    context: Arc<WriteContext>,
    splitter: JsonScanner,
    body: BodyBuffer,
    members: Vec<PendingMember>,
    failed: Option<Error>,
}

enum BodyBuffer {
    Memory(Vec<u8>),
    Spooled {
        blob: BlobWriter,
        /// Of the value that is being written.
        checksums: ChunkChecksums,
    },
}

/// A member whose value has begun at an offset in the body.
struct PendingMember {
    key: String,
    value_at: u64,
    value_bytes: u64,
    /// Of a complete value in a blob.
    crcs: Vec<u32>,
}

impl Writer {
    pub(crate) fn new(context: Arc<WriteContext>) -> Self {
        Self {
            splitter: JsonScanner::new(context.limits.clone()),
            context,
            body: BodyBuffer::Memory(Vec::new()),
            members: Vec::new(),
            failed: None,
        }
    }

    /// Takes in a document that is whole in memory.
    pub(crate) fn prepare(context: &Arc<WriteContext>, body: &[u8]) -> Result<Prepared> {
        if body.len() <= context.inline_bytes as usize
            && let Some(whole) = one_pass::check(body, &context.limits, context.inline_bytes)
        {
            return Ok(Prepared {
                members: whole.members,
                inline: whole.body,
                blob: None,
                usage: whole.usage,
            });
        }
        let mut writer = Self::new(Arc::clone(context));
        writer.write(body)?;
        writer.finish()
    }

    /// Whether nothing was written to it.
    pub fn is_empty(&self) -> bool {
        self.splitter.is_at_start()
    }

    /// Whether a write of `more` bytes, and a finish after it, touch no disk.
    pub fn stays_in_memory(&self, more: usize) -> bool {
        match &self.body {
            // What is kept is never longer than what was sent.
            BodyBuffer::Memory(body) => body.len() + more < self.context.inline_bytes as usize,
            BodyBuffer::Spooled { .. } => false,
        }
    }

    /// Takes the next bytes of the body. Blocks on the disk once the document is
    /// past the inline size ([`Self::stays_in_memory`] tells).
    ///
    /// # Errors
    /// [`Error::Rejected`] with the first violation in the order of the bytes, as
    /// soon as it is seen; [`Error::StorageFull`] or [`Error::Io`] from the spool
    /// file. Every later call returns the same error.
    pub fn write(&mut self, chunk: &[u8]) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let outcome = self.take_in(chunk);
        if let Err(error) = &outcome {
            self.failed = Some(error.clone());
        }
        outcome
    }

    fn take_in(&mut self, mut chunk: &[u8]) -> Result<()> {
        if let BodyBuffer::Memory(body) = &mut self.body {
            let room = (self.context.inline_bytes as usize).saturating_sub(body.len());
            body.reserve(chunk.len().min(room));
        }
        // The value that ends next, where all of it is in this chunk.
        let mut whole = None;
        loop {
            match self.splitter.next(&mut chunk) {
                Ok(None) => return Ok(()),
                Ok(Some(ScanEvent::Key(key))) => {
                    let separator = if self.members.is_empty() { b"{" } else { b"," };
                    self.append(separator)?;
                    self.append(key.text.as_bytes())?;
                    self.append(b":")?;
                    self.members.push(PendingMember {
                        key: key.text,
                        value_at: self.offset(),
                        value_bytes: 0,
                        crcs: Vec::new(),
                    });
                    if let BodyBuffer::Spooled { checksums, .. } = &mut self.body {
                        *checksums = ChunkChecksums::default();
                    }
                }
                Ok(Some(ScanEvent::Value(piece))) => {
                    self.append(piece)?;
                    if let BodyBuffer::Spooled { checksums, .. } = &mut self.body {
                        checksums.update(piece);
                    }
                    if let Some(member) = self.members.last_mut() {
                        whole = (member.value_bytes == 0).then_some(piece);
                        member.value_bytes += piece.len() as u64;
                    }
                }
                Ok(Some(ScanEvent::ValueEnd)) => self.end_value(whole.take())?,
                Err(violation) => return Err(self.first_violation(violation)),
            }
        }
    }

    /// Checks the end of the body. Blocks where [`Self::stays_in_memory`] is false:
    /// a spooled document is put on stable storage here.
    ///
    /// # Errors
    /// As [`Self::write`]; a failed sync of the spool file fails this document only.
    pub fn finish(mut self) -> Result<Prepared> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Err(violation) = self.splitter.end() {
            return Err(self.first_violation(violation));
        }
        let end: &[u8] = if self.members.is_empty() { b"{}" } else { b"}" };
        match &mut self.body {
            BodyBuffer::Memory(body) => body.extend_from_slice(end),
            BodyBuffer::Spooled { blob, .. } => blob.write(end)?,
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
            BodyBuffer::Spooled { blob, .. } => {
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

    /// Appends to the body, moving it to a blob where it outgrows the memory.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let BodyBuffer::Memory(body) = &mut self.body {
            // One byte short of the limit: the closing brace must fit too.
            if body.len() + bytes.len() < self.context.inline_bytes as usize {
                body.extend_from_slice(bytes);
                return Ok(());
            }
            let body = std::mem::take(body);
            self.spill(&body)?;
        }
        match &mut self.body {
            BodyBuffer::Spooled { blob, .. } => blob.write(bytes),
            BodyBuffer::Memory(_) => Err(Error::internal("a body that outgrew memory is spilled")),
        }
    }

    fn spill(&mut self, body: &[u8]) -> Result<()> {
        let mut blob = self.context.blobs.create()?;
        let base = blob.offset();
        let mut checksums = ChunkChecksums::default();
        for member in &mut self.members {
            let value = member.value_in(body)?;
            member.crcs = ChunkChecksums::of(value).finish();
            member.value_at += base;
            // The last value may go on; its checksum goes on with it.
            checksums = ChunkChecksums::of(value);
        }
        blob.write(body)?;
        self.body = BodyBuffer::Spooled { blob, checksums };
        Ok(())
    }

    fn offset(&self) -> u64 {
        match &self.body {
            BodyBuffer::Memory(body) => body.len() as u64,
            BodyBuffer::Spooled { blob, .. } => blob.offset(),
        }
    }

    fn body_bytes(&self) -> u64 {
        match &self.body {
            BodyBuffer::Memory(body) => body.len() as u64,
            BodyBuffer::Spooled { blob, .. } => blob.offset() - crate::index::document::BODY_AT,
        }
    }

    /// `whole`: the value's text, where it came in one piece.
    fn end_value(&mut self, whole: Option<&[u8]>) -> Result<()> {
        let start = self.splitter.value_start();
        match (&mut self.body, whole) {
            (BodyBuffer::Spooled { blob, .. }, Some(text)) => {
                blob.sync_during(text.len(), || validate::value(text, start))??;
            }
            _ => self.with_value(|text| validate::value(text, start))??,
        }
        if let (BodyBuffer::Spooled { checksums, .. }, Some(member)) =
            (&mut self.body, self.members.last_mut())
        {
            member.crcs = std::mem::take(checksums).finish();
        }
        Ok(())
    }

    /// The violation that comes first: one in the begun value, or this one behind it.
    fn first_violation(&mut self, violation: Violation) -> Error {
        if !self.splitter.in_value() {
            return violation.into();
        }
        let start = self.splitter.value_start();
        match self.with_value(|text| validate::prefix(text, start)) {
            Ok(Ok(())) => violation.into(),
            Ok(Err(earlier)) => earlier.into(),
            Err(error) => error,
        }
    }

    /// Hands the last value's text, as far as it has come, to `judge`.
    fn with_value<T>(&mut self, judge: impl FnOnce(&[u8]) -> T) -> Result<T> {
        let Some(member) = self.members.last() else {
            return Err(Error::internal("a value follows its key"));
        };
        match &mut self.body {
            BodyBuffer::Memory(body) => Ok(judge(member.value_in(body)?)),
            BodyBuffer::Spooled { blob, .. } => {
                let _permit = self.context.value_checks.acquire();
                let text = blob.read_back(member.value_at, member.value_bytes)?;
                blob.sync_during(text.len(), || judge(&text))
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
    /// The value's text, as far as it has arrived, in a body that is in memory.
    fn value_in<'a>(&self, body: &'a [u8]) -> Result<&'a [u8]> {
        let range = usize::try_from(self.value_at)
            .ok()
            .zip(usize::try_from(self.value_bytes).ok());
        let value = range.and_then(|(start, len)| body.get(start..)?.get(..len));
        value.ok_or_else(|| Error::internal("a value lies in the body"))
    }

    fn inline(self) -> Result<Member> {
        let location = u32::try_from(self.value_at)
            .ok()
            .zip(u32::try_from(self.value_bytes).ok());
        let too_long = || Error::internal("an inline value lies within the inline size");
        let (offset, bytes) = location.ok_or_else(too_long)?;
        Ok(Member {
            key: self.key,
            value: ValueLocation::Inline { offset, bytes },
        })
    }

    fn extent(self, blob: BlobId) -> Member {
        Member {
            key: self.key,
            value: ValueLocation::Extent(Extent {
                blob,
                offset: self.value_at,
                bytes: self.value_bytes,
                crcs: self.crcs,
            }),
        }
    }
}

/// A checked document that has not been committed; see
/// [`crate::Namespace::submit`]. Dropping it discards it.
pub struct Prepared {
    pub(crate) members: Vec<Member>,
    pub(crate) inline: Bytes,
    pub(crate) blob: Option<UncommittedBlob>,
    usage: Usage,
}

impl Prepared {
    /// What it will take once it is stored.
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
