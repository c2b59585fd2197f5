//! The decoders of what is on the disk, one by one: whatever the bytes, none panics,
//! and what decodes encodes to the very bytes it came from. So nothing in a file is
//! ignored, and two files never mean the same.
//!
//! The input is a file of a store (manifest, segment, summary) or a frame, by its
//! magic. It is taken as it is, and again with its checksums made right.

use std::path::Path;

use prefd_engine::fuzzing;

use crate::layout::{FILE_HEADER_BYTES, FRAME_1_HEAD_BYTES, Head, MAGIC_1, number, repair};
use crate::sim_disk::SimDisk;

/// Judges a whole input.
pub fn run(input: &[u8]) {
    decode(input);
    let mut repaired = input.to_vec();
    repair(&mut repaired);
    decode(&repaired);
}

/// Decodes `bytes` as what its magic says, and returns whether that could be done.
///
/// # Panics
/// Where it does not encode to the same bytes again.
pub fn decode(bytes: &[u8]) -> bool {
    let (id, store) = (number(bytes, 12, 4), number(bytes, 16, 8));
    let id = u32::try_from(id).unwrap();
    let dir = Path::new("/log");
    let place = |name: &str| {
        let disk = SimDisk::new();
        disk.place(&dir.join(name), bytes.to_vec());
        disk
    };
    match bytes.get(..8) {
        Some(b"PREFDMAN") => {
            let again = fuzzing::manifest(&place("manifest"), dir);
            same(again.ok().flatten().as_ref(), bytes)
        }
        Some(b"PREFDSUM") => {
            let disk = place(&format!("{id:08x}.sum"));
            same(fuzzing::summary(&disk, dir, id, store).ok().as_ref(), bytes)
        }
        Some(b"PREFDSEG") => {
            let again = fuzzing::segment_header(bytes, id, store).ok();
            let header = bytes.get(..FILE_HEADER_BYTES).unwrap_or(bytes);
            let is_header = same(again.as_ref(), header);
            is_header && frame(bytes.get(FILE_HEADER_BYTES..).unwrap_or_default())
        }
        _ => frame(bytes),
    }
}

/// The frame that `bytes` begins with, of either version.
fn frame(bytes: &[u8]) -> bool {
    if bytes.starts_with(MAGIC_1) {
        return frame_1(bytes);
    }
    let Ok(again) = fuzzing::frame(bytes) else {
        return false;
    };
    let (head, len) = Head::read(bytes).expect("it was decoded");
    let meta_bytes = match head.kind {
        2 => head.behind_bytes().unwrap_or_default(),
        _ => 0,
    };
    let whole = bytes.get(..len + meta_bytes).unwrap_or(bytes);
    // Metadata that does not decode is not encoded.
    let is_whole = again.len() == whole.len();
    let expected = if is_whole { whole } else { &bytes[..len] };
    same(Some(&again), expected) && is_whole
}

fn frame_1(bytes: &[u8]) -> bool {
    let header = bytes.get(..FRAME_1_HEAD_BYTES).unwrap_or(bytes);
    let meta_bytes = usize::try_from(number(bytes, 48, 4)).unwrap();
    let meta = FRAME_1_HEAD_BYTES..FRAME_1_HEAD_BYTES + meta_bytes;
    // Where the length is not one, all that follows is tried.
    let behind = bytes.get(FRAME_1_HEAD_BYTES..).unwrap_or_default();
    let meta = bytes.get(meta).unwrap_or(behind);
    let is_meta = same(fuzzing::frame_metadata_1(meta).ok().as_ref(), meta);
    same(fuzzing::frame_header_1(bytes).ok().as_ref(), header) && is_meta
}

fn same(again: Option<&Vec<u8>>, bytes: &[u8]) -> bool {
    if let Some(again) = again {
        assert!(
            again == bytes,
            "{bytes:02x?} was decoded, and encoded again it is {again:02x?}"
        );
    }
    again.is_some()
}
