//! The oracle for the decoders of the on-disk format.
//!
//! No bytes make a decoder panic. Everything that decodes encodes to the same bytes. So a decoder
//! ignores no part of a file, and two different files never decode to the same contents.
//!
//! The magic number of an input selects the decoder: manifest, segment, summary or frame. Each
//! input is decoded twice, the second time with corrected checksums.

use std::path::Path;

use prefd_engine::fuzzing;

use crate::layout::{FILE_HEADER_BYTES, FRAME_1_HEAD_BYTES, FrameHead, MAGIC_1, number, repair};
use crate::sim_disk::SimDisk;

/// Runs the oracle on an input.
pub fn run(input: &[u8]) {
    decode(input);
    let mut repaired = input.to_vec();
    repair(&mut repaired);
    decode(&repaired);
}

/// Decodes `bytes` with the decoder that their magic number selects. Returns true if decoding
/// succeeds.
///
/// # Panics
/// Panics if the decoded contents do not encode to the same bytes.
pub fn decode(bytes: &[u8]) -> bool {
    let (id, store) = (number(bytes, 12, 4), number(bytes, 16, 8));
    let id = u32::try_from(id).unwrap();
    let dir = Path::new("/log");
    let disk_with = |name: &str| {
        let disk = SimDisk::new();
        disk.place(&dir.join(name), bytes.to_vec());
        disk
    };
    match bytes.get(..8) {
        Some(b"PREFDMAN") => {
            let again = fuzzing::manifest(&disk_with("manifest"), dir);
            encodes_to(again.ok().flatten().as_ref(), bytes)
        }
        Some(b"PREFDSUM") => {
            let disk = disk_with(&format!("{id:08x}.sum"));
            encodes_to(fuzzing::summary(&disk, dir, id, store).ok().as_ref(), bytes)
        }
        Some(b"PREFDSEG") => {
            let again = fuzzing::segment_header(bytes, id, store).ok();
            let header = bytes.get(..FILE_HEADER_BYTES).unwrap_or(bytes);
            let is_header = encodes_to(again.as_ref(), header);
            is_header && frame(bytes.get(FILE_HEADER_BYTES..).unwrap_or_default())
        }
        _ => frame(bytes),
    }
}

/// Decodes the frame at the start of `bytes`, of any version.
fn frame(bytes: &[u8]) -> bool {
    if bytes.starts_with(MAGIC_1) {
        return frame_1(bytes);
    }
    let Ok(again) = fuzzing::frame(bytes) else {
        return false;
    };
    let (head, len) = FrameHead::read(bytes).expect("the engine decoded this head");
    let meta_bytes = match head.kind {
        2 => head.lengths().unwrap_or_default().0,
        _ => 0,
    };
    let meta_bytes = usize::try_from(meta_bytes).unwrap_or(usize::MAX);
    let head_and_metadata = bytes.get(..len.saturating_add(meta_bytes)).unwrap_or(bytes);
    // If only the head decodes, only the head is encoded.
    let has_metadata = again.len() == head_and_metadata.len();
    let expected = if has_metadata {
        head_and_metadata
    } else {
        &bytes[..len]
    };
    encodes_to(Some(&again), expected) && has_metadata
}

fn frame_1(bytes: &[u8]) -> bool {
    let header = bytes.get(..FRAME_1_HEAD_BYTES).unwrap_or(bytes);
    let meta_bytes = usize::try_from(number(bytes, 48, 4)).unwrap();
    let meta = FRAME_1_HEAD_BYTES..FRAME_1_HEAD_BYTES + meta_bytes;
    // If the length in the header is too large, all remaining bytes are tried.
    let rest = bytes.get(FRAME_1_HEAD_BYTES..).unwrap_or_default();
    let meta = bytes.get(meta).unwrap_or(rest);
    let is_meta = encodes_to(fuzzing::frame_metadata_1(meta).ok().as_ref(), meta);
    encodes_to(fuzzing::frame_header_1(bytes).ok().as_ref(), header) && is_meta
}

fn encodes_to(again: Option<&Vec<u8>>, bytes: &[u8]) -> bool {
    if let Some(again) = again {
        assert!(
            again == bytes,
            "{bytes:02x?} decodes, but encodes to {again:02x?}"
        );
    }
    again.is_some()
}
