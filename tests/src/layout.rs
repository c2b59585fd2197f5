//! The layouts of docs/format.md as far as their checksums go, written down again
//! from there: where frames lie, and how to make what was changed check out again, so
//! that a fuzzer gets past the checksums.

/// Bytes of the header of segments, summaries and blobs.
pub const FILE_HEADER_BYTES: usize = 28;
/// Bytes of a frame before its metadata.
pub const FRAME_HEADER_BYTES: usize = 68;

/// What a byte does to a checksum.
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

/// CRC-32, IEEE 802.3, reflected polynomial 0xEDB88320.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        CRC_OF_BYTES[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8)
    })
}

/// A number of up to eight bytes; zero where the bytes end before it.
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

/// Puts the checksum of `covered` at `at`, if all of it is there.
fn seal(bytes: &mut [u8], at: usize, covered: std::ops::Range<usize>) {
    let Some(crc) = bytes.get(covered).map(crc32) else {
        return;
    };
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

/// A frame, by the lengths in its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FramePlace {
    /// Its bytes in the segment.
    pub bytes: std::ops::Range<usize>,
    /// The offset up to which the segment was synced before it.
    pub watermark: usize,
}

/// The frames of a segment that is whole.
pub fn frames(segment: &[u8]) -> Vec<FramePlace> {
    let mut frames = Vec::new();
    let mut at = FILE_HEADER_BYTES;
    while at < segment.len() {
        let frame = &segment[at..];
        let end = at + FRAME_HEADER_BYTES + length(frame, 48) + length(frame, 52);
        frames.push(FramePlace {
            bytes: at..end,
            watermark: usize::try_from(number(frame, 40, 8)).unwrap(),
        });
        at = end;
    }
    frames
}

/// Makes the checksums of a file right, whichever file of a store it is, or those of a
/// single frame; what is too short for them is left.
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
        Some(b"PREFDSUM") => {
            seal(bytes, 24, 0..24);
            let blobs_at = 64 + length(bytes, 36) * 37;
            let details_at = blobs_at + length(bytes, 40) * 12;
            let end = details_at + length(bytes, 44);
            seal(bytes, 48, 64..blobs_at);
            seal(bytes, 52, details_at..end);
            seal(bytes, 56, blobs_at..details_at);
            seal(bytes, 60, 28..60);
        }
        Some(b"PREFDBLB") => seal(bytes, 24, 0..24),
        _ => drop(repair_frame(bytes)),
    }
}

/// Makes the checksums of the frame that `bytes` begins with right, and returns its
/// length.
fn repair_frame(bytes: &mut [u8]) -> usize {
    let meta_end = FRAME_HEADER_BYTES + length(bytes, 48);
    let end = meta_end + length(bytes, 52);
    seal(bytes, 56, FRAME_HEADER_BYTES..meta_end);
    seal(bytes, 60, meta_end..end);
    seal(bytes, 64, 0..64);
    end
}
