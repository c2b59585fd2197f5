//! The parts of docs/format.md that concern frames and checksums, implemented independently of
//! the engine.
//!
//! [`frames`] finds the frames of a segment. [`repair`] corrects the checksums of a modified file,
//! so that a fuzzer reaches the code behind the checksums.

/// Length of the file header of segments, summaries and blobs.
pub const FILE_HEADER_BYTES: usize = 28;
/// Length of the head of a version 1 frame, which precedes the metadata.
pub const FRAME_1_HEAD_BYTES: usize = 68;
/// Magic number of version 1 frames.
pub const MAGIC_1: &[u8] = b"PFRM";
/// Magic number of version 2 and version 3 frames.
pub const MAGIC_2: &[u8] = &[0x1e, 0xff];

/// Kind of a mark.
pub const KIND_MARK: u8 = 4;

/// CRC-32 lookup table, indexed by byte.
const CRC_OF_BYTES: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// Computes a CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320).
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        CRC_OF_BYTES[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8)
    })
}

/// Reads a little-endian number of up to eight bytes at `at`. Returns 0 if the bytes end before
/// the field does.
pub fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let field = bytes.get(at..at + len).unwrap_or_default();
    field
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn length(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number(bytes, at, 4)).unwrap()
}

/// Writes the checksum of the range `covered` to offset `at`. Does nothing if the bytes are too
/// short for either.
fn seal(bytes: &mut [u8], at: usize, covered: std::ops::Range<usize>) {
    let Some(crc) = bytes.get(covered).map(crc32) else {
        return;
    };
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Reads the varint at `at`. Returns the value and the offset of the next byte.
pub fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.get(at..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, at + index + 1));
        }
    }
    None
}

/// Appends a number as a varint.
pub fn push_varint(to: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The time that a revision contains, in milliseconds since 1970.
fn time_of_revision_ms(revision: u64) -> u64 {
    1_577_836_800_000 + revision / (1 << 21)
}

/// Encodes a difference as a zigzag number.
fn encode_delta(from: u64, to: u64) -> u64 {
    let delta = to.wrapping_sub(from).cast_signed();
    ((delta << 1) ^ (delta >> 63)).cast_unsigned()
}

/// Adds a zigzag-encoded difference.
pub fn decode_delta(from: u64, written: u64) -> u64 {
    let half = written / 2;
    if written.is_multiple_of(2) {
        from.wrapping_add(half)
    } else {
        from.wrapping_sub(half + 1)
    }
}

/// The fields of the head of a version 2 or version 3 frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHead {
    /// Format version: 2 or 3 unless a test changes it.
    pub version: u8,
    /// Kind of the frame: 1 is a plain put, 2 a put with metadata, 3 a delete, 4 a mark.
    pub kind: u8,
    /// Revision of the write.
    pub revision: u64,
    /// Time of the write, in milliseconds since 1970.
    pub modified_ms: u64,
    /// Distance in bytes from the watermark to the frame.
    pub unsynced_bytes: u32,
    /// User of the namespace. Empty in a mark, like the client.
    pub user: Vec<u8>,
    /// Client of the namespace.
    pub client: Vec<u8>,
    /// The bytes of the head after the names.
    pub after_names: Vec<u8>,
}

impl FrameHead {
    /// Reads the head at the start of a frame without checking its checksum. Returns the head and
    /// its length.
    pub fn read(frame: &[u8]) -> Option<(Self, usize)> {
        if frame.get(..2)? != MAGIC_2 {
            return None;
        }
        let (rest, at) = varint(frame, 8)?;
        let end = at.checked_add(usize::try_from(rest).ok()?)?;
        let frame = frame.get(..end)?;
        let (revision, at) = varint(frame, at)?;
        let (time, at) = varint(frame, at)?;
        let modified_ms = if frame[2] == 2 {
            time
        } else {
            decode_delta(time_of_revision_ms(revision), time)
        };
        frame.get(at..at + 4)?;
        let (unsynced_bytes, at) = (length(frame, at) as u32, at + 4);
        let text = |at: usize| {
            let end = at + 1 + usize::from(*frame.get(at)?);
            Some((frame.get(at + 1..end)?.to_vec(), end))
        };
        let (user, at, client) = if frame[3] == KIND_MARK {
            (Vec::new(), at, Vec::new())
        } else {
            let (user, at) = text(at)?;
            let (client, at) = text(at)?;
            (user, at, client)
        };
        let head = Self {
            version: frame[2],
            kind: frame[3],
            revision,
            modified_ms,
            unsynced_bytes,
            user,
            client,
            after_names: frame[at..].to_vec(),
        };
        Some((head, end))
    }

    /// Encodes the head with a correct checksum.
    pub fn write(&self) -> Vec<u8> {
        let mut rest = Vec::new();
        push_varint(&mut rest, self.revision);
        let time = if self.version == 2 {
            self.modified_ms
        } else {
            encode_delta(time_of_revision_ms(self.revision), self.modified_ms)
        };
        push_varint(&mut rest, time);
        rest.extend_from_slice(&self.unsynced_bytes.to_le_bytes());
        if self.kind != KIND_MARK {
            for name in [&self.user, &self.client] {
                rest.push(name.len() as u8);
                rest.extend_from_slice(name);
            }
        }
        rest.extend_from_slice(&self.after_names);
        let mut bytes = MAGIC_2.to_vec();
        bytes.extend_from_slice(&[self.version, self.kind, 0, 0, 0, 0]);
        push_varint(&mut bytes, rest.len() as u64);
        bytes.extend_from_slice(&rest);
        seal_head(&mut bytes);
        bytes
    }

    /// Encodes a put with metadata of version 3 that has the revision, time and names of this head.
    pub fn with_metadata(&self, metadata: &[u8], inline: &[u8]) -> Vec<u8> {
        let mut after_names = Vec::new();
        for part in [metadata, inline] {
            after_names.extend_from_slice(&crc32(part).to_le_bytes());
            push_varint(&mut after_names, part.len() as u64);
        }
        let head = Self {
            version: 3,
            kind: 2,
            after_names,
            ..self.clone()
        };
        [&head.write(), metadata, inline].concat()
    }

    /// The lengths of the keys and values of a document that is stored in the frame.
    pub fn members(&self) -> Option<Vec<(u64, u64)>> {
        let (mut members, mut at) = (Vec::new(), 4);
        while at < self.after_names.len() {
            let (key, next) = varint(&self.after_names, at)?;
            let (value, next) = varint(&self.after_names, next)?;
            members.push((key, value));
            at = next;
        }
        Some(members)
    }

    /// The lengths of the metadata and the inline body of a put with metadata.
    pub fn lengths(&self) -> Option<(u64, u64)> {
        if self.version == 2 {
            // The length follows a codec byte and a checksum. Version 2 has no inline body here.
            return Some((varint(&self.after_names, 5)?.0, 0));
        }
        let (metadata, at) = varint(&self.after_names, 4)?;
        Some((metadata, varint(&self.after_names, at + 4)?.0))
    }

    /// Number of bytes between the head and the end of the frame. `None` if the head does not
    /// contain valid lengths.
    pub fn body_bytes(&self) -> Option<usize> {
        let bytes = match self.kind {
            1 => {
                let members = self.members()?;
                let texts = members.iter().try_fold(0_u64, |sum, (key, value)| {
                    sum.checked_add(*key)?.checked_add(*value)
                })?;
                texts.checked_add((1 + 2 * members.len() as u64).max(2))?
            }
            2 => {
                let lengths = self.lengths()?;
                lengths.0.checked_add(lengths.1)?
            }
            _ => 0,
        };
        usize::try_from(bytes).ok()
    }
}

/// Writes the checksum of the head of a version 2 or version 3 frame.
fn seal_head(head: &mut [u8]) {
    let mut covered = head.to_vec();
    covered.drain(4..8);
    let crc = crc32(&covered);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Changes the head of the frame at offset `at` of a segment, and corrects its checksum. If the
/// length of the head changes, the bytes after the head move.
pub fn change_head(segment: &mut Vec<u8>, at: usize, change: impl FnOnce(&mut FrameHead)) {
    let (mut head, len) =
        FrameHead::read(&segment[at..]).expect("a frame of version 2 or 3 begins at this offset");
    change(&mut head);
    segment.splice(at..at + len, head.write());
}

/// The location of a frame in a segment, computed from the lengths in its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSpan {
    /// Byte range of the frame in the segment.
    pub bytes: std::ops::Range<usize>,
    /// Length of the head.
    pub head_bytes: usize,
    /// Offset up to which the segment was synced when the frame was written.
    pub watermark: usize,
}

/// Finds the complete frames of a segment, up to its end or to the first torn frame.
pub fn frames(segment: &[u8]) -> Vec<FrameSpan> {
    let mut frames = Vec::new();
    let mut at = FILE_HEADER_BYTES;
    while let Some(frame) = segment.get(at..).filter(|rest| !rest.is_empty()) {
        let found = if segment[8] == 1 {
            frame_1(frame)
        } else {
            frame_2(frame, at)
        };
        let Some((head_bytes, bytes, watermark)) = found else {
            break;
        };
        if bytes > frame.len() {
            break;
        }
        frames.push(FrameSpan {
            bytes: at..at + bytes,
            head_bytes,
            watermark,
        });
        at += bytes;
    }
    frames
}

/// Returns the length of the head, the length of the frame, and the watermark.
fn frame_1(frame: &[u8]) -> Option<(usize, usize, usize)> {
    let bytes_after_head = length(frame, 48).checked_add(length(frame, 52))?;
    let watermark = usize::try_from(number(frame, 40, 8)).ok()?;
    (frame.len() >= FRAME_1_HEAD_BYTES).then_some((
        FRAME_1_HEAD_BYTES,
        FRAME_1_HEAD_BYTES + bytes_after_head,
        watermark,
    ))
}

fn frame_2(frame: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    let (head, len) = FrameHead::read(frame)?;
    let bytes = len.checked_add(head.body_bytes()?)?;
    let unsynced = usize::try_from(head.unsynced_bytes).ok()?;
    Some((len, bytes, at.checked_sub(unsynced)?))
}

/// Corrects the checksums of any file of a store, or of a single frame. Leaves out checksums for
/// which the bytes are too short.
pub fn repair(bytes: &mut [u8]) {
    match bytes.get(..8) {
        Some(b"PREFDMAN") => {
            seal(bytes, 16, 24..bytes.len().max(24));
            seal(bytes, 20, 0..20);
        }
        Some(b"PREFDSEG") => {
            seal(bytes, 24, 0..24);
            let mut at = FILE_HEADER_BYTES;
            while let Some(frame) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
                at += repair_frame(frame);
            }
        }
        Some(b"PREFDSUM") if bytes.get(8) == Some(&1) => {
            seal(bytes, 24, 0..24);
            let blobs_at = 64 + length(bytes, 36) * 37;
            let details_at = blobs_at + length(bytes, 40) * 12;
            let end = details_at + length(bytes, 44);
            seal(bytes, 48, 64..blobs_at);
            seal(bytes, 52, details_at..end);
            seal(bytes, 56, blobs_at..details_at);
            seal(bytes, 60, 28..60);
        }
        Some(b"PREFDSUM") => {
            seal(bytes, 24, 0..24);
            let details_at = 64 + length(bytes, 40) + length(bytes, 44) * 12;
            seal(bytes, 52, 64..details_at);
            seal(bytes, 56, details_at..details_at + length(bytes, 48));
            seal(bytes, 60, 28..60);
        }
        Some(b"PREFDBLB") => seal(bytes, 24, 0..24),
        _ => drop(repair_frame(bytes)),
    }
}

/// Corrects the checksums of the frame at the start of `bytes`. Returns the length of the frame.
fn repair_frame(bytes: &mut [u8]) -> usize {
    if bytes.starts_with(MAGIC_1) {
        let meta_end = FRAME_1_HEAD_BYTES + length(bytes, 48);
        let end = meta_end + length(bytes, 52);
        seal(bytes, 56, FRAME_1_HEAD_BYTES..meta_end);
        seal(bytes, 60, meta_end..end);
        seal(bytes, 64, 0..64);
        return end;
    }
    let Some((rest, at)) = varint(bytes, 8) else {
        return bytes.len();
    };
    let head_end = at.saturating_add(usize::try_from(rest).unwrap_or(usize::MAX));
    if head_end > bytes.len() {
        return bytes.len();
    }
    let mut end = head_end;
    if let Some((head, _)) = FrameHead::read(bytes) {
        end = head_end.saturating_add(head.body_bytes().unwrap_or_default());
        let fields_at = head_end - head.after_names.len();
        let lengths = head
            .lengths()
            .filter(|_| head.kind == 2 && head.version == 3);
        if let Some((metadata, _)) = lengths {
            let metadata = usize::try_from(metadata).unwrap_or(usize::MAX);
            let inline_at = head_end.saturating_add(metadata).min(end);
            seal(bytes, fields_at, head_end..inline_at);
            let (_, crc_at) = varint(&head.after_names, 4).unwrap_or_default();
            if fields_at + crc_at + 4 <= head_end {
                seal(bytes, fields_at + crc_at, inline_at..end);
            }
        } else {
            // In a put with extents of version 2, the checksum follows the codec byte.
            let crc_at = fields_at + usize::from(head.kind == 2);
            if matches!(head.kind, 1 | 2) && crc_at + 4 <= head_end {
                seal(bytes, crc_at, head_end..end);
            }
        }
    }
    seal_head(&mut bytes[..head_end]);
    end.min(bytes.len())
}
