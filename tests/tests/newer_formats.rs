//! Directories of a version that this one does not know: it says so, with the file and
//! the versions, takes nothing of it for damage or for a torn tail, and leaves every
//! byte as it is.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use prefd_engine::{Engine, Error};
use prefd_tests::golden::{Golden, listing};
use prefd_tests::layout::crc32;

const NEWER: u16 = 2;

/// Replaces a version, and signs what covers it anew.
fn sign(bytes: &mut [u8], version: Range<usize>, covered: Range<usize>) {
    let len = version.len();
    bytes[version].copy_from_slice(&NEWER.to_le_bytes()[..len]);
    let end = covered.end;
    let crc = crc32(&bytes[covered]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn make_header_newer(path: &Path) {
    change(path, |bytes| sign(bytes, 8..10, 0..24));
}

/// Makes the frame at this offset one of a newer version.
fn make_frame_newer(bytes: &mut [u8], at: usize) {
    sign(bytes, at + 4..at + 5, at..at + 64);
}

/// Where the whole frames of a segment begin.
fn frames(segment: &[u8]) -> Vec<usize> {
    let field = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()) as usize;
    let mut frames = Vec::new();
    let mut at = 28;
    while at + 68 <= segment.len() {
        let next = at + 68 + field(at + 48) + field(at + 52);
        if next <= segment.len() {
            frames.push(at);
        }
        at = next;
    }
    frames
}

/// The segment that was being written.
fn unsealed(golden: &Golden) -> PathBuf {
    let last = golden.files("log", "seg").pop().unwrap();
    assert!(!last.with_extension("sum").exists());
    last
}

/// A sealed one, with current documents.
fn sealed(golden: &Golden) -> PathBuf {
    let segments = golden.files("log", "seg");
    segments[segments.len() - 2].clone()
}

fn expect_newer(error: &Error, path: &Path, context: &str) {
    match error {
        Error::UnsupportedFormat {
            path: named,
            found: NEWER,
            supported: 1,
        } => assert_eq!(named, path, "{context}"),
        other => panic!("{context}: {other:?}"),
    }
}

/// It does not open because of this file, and is as it was.
fn refuses(golden: &Golden, path: &Path, context: &str) {
    let before = golden.image();
    let error = Engine::open(golden.config()).expect_err(context);
    expect_newer(&error, path, context);
    assert!(golden.image() == before, "{context}: the directory changed");
}

/// It opens. What does not lie in this file is read, and what does is refused; how much.
fn refuses_documents(golden: &Golden, path: &Path, context: &str) -> usize {
    let engine = Engine::open(golden.config()).unwrap_or_else(|e| panic!("{context}: {e}"));
    let mut refused = 0;
    for listed in listing() {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        match namespace.get() {
            Ok(found) => {
                let bytes = found.map(|document| document.read().unwrap());
                let expected = listed.text.as_ref().map(String::as_bytes);
                assert!(bytes.as_deref() == expected, "{context}: {listed:?}");
            }
            Err(error) => {
                expect_newer(&error, path, context);
                refused += 1;
            }
        }
    }
    refused
}

#[test]
fn a_newer_manifest_is_refused() {
    let golden = Golden::new();
    let manifest = golden.path("log/manifest");
    change(&manifest, |bytes| sign(bytes, 8..10, 0..20));
    refuses(&golden, &manifest, "manifest");
}

#[test]
fn a_newer_summary_is_refused() {
    for index in 0..Golden::new().files("log", "sum").len() {
        let golden = Golden::new();
        let summary = golden.files("log", "sum")[index].clone();
        make_header_newer(&summary);
        refuses(&golden, &summary, "summary");
    }
}

#[test]
fn a_newer_unsealed_segment_is_refused() {
    let golden = Golden::new();
    let segment = unsealed(&golden);
    make_header_newer(&segment);
    refuses(&golden, &segment, "unsealed segment");
}

#[test]
fn a_newer_segment_that_the_manifest_does_not_list_is_refused() {
    let golden = Golden::new();
    let unlisted = golden.path("log/000000ff.seg");
    fs::copy(sealed(&golden), &unlisted).unwrap();
    make_header_newer(&unlisted);
    refuses(&golden, &unlisted, "unlisted segment");
}

#[test]
fn a_newer_sealed_segment_is_told_where_it_is_read() {
    let golden = Golden::new();
    let segment = sealed(&golden);
    make_header_newer(&segment);
    assert!(refuses_documents(&golden, &segment, "sealed segment") > 0);

    let golden = Golden::new();
    let segment = sealed(&golden);
    make_header_newer(&segment);
    fs::remove_file(segment.with_extension("sum")).unwrap();
    refuses(&golden, &segment, "sealed segment without its summary");
}

#[test]
fn a_newer_blob_is_told_where_it_is_read() {
    let mut refused = 0;
    for index in 0..Golden::new().files("blobs", "blob").len() {
        let golden = Golden::new();
        let blob = golden.files("blobs", "blob")[index].clone();
        make_header_newer(&blob);
        refused += refuses_documents(&golden, &blob, "blob");
    }
    assert!(refused > 0);
}

#[test]
fn a_newer_frame_of_the_unsealed_segment_is_no_torn_tail() {
    let offsets = frames(&fs::read(unsealed(&Golden::new())).unwrap());
    assert!(offsets.len() > 3);
    // The last of them lies above the watermark: nothing says that it was synced.
    for at in offsets {
        let golden = Golden::new();
        let segment = unsealed(&golden);
        change(&segment, |bytes| make_frame_newer(bytes, at));
        refuses(&golden, &segment, &format!("frame at {at}"));
    }
}

#[test]
fn a_newer_frame_behind_damage_is_no_torn_tail() {
    let golden = Golden::new();
    let segment = unsealed(&golden);
    change(&segment, |bytes| {
        let offsets = frames(bytes);
        let [.., damaged, newer] = offsets[..] else {
            panic!("two frames");
        };
        bytes[damaged + 30] ^= 1;
        make_frame_newer(bytes, newer);
    });
    refuses(&golden, &segment, "frame behind damage");
}

#[test]
fn a_frame_that_says_what_is_not_known_is_no_torn_tail() {
    for (field, value) in [(5, 2), (6, 3), (7, 0x80)] {
        let golden = Golden::new();
        let segment = unsealed(&golden);
        let last = *frames(&fs::read(&segment).unwrap()).last().unwrap();
        change(&segment, |bytes| {
            bytes[last + field] = value;
            let crc = crc32(&bytes[last..last + 64]);
            bytes[last + 64..last + 68].copy_from_slice(&crc.to_le_bytes());
        });
        let before = golden.image();
        let error = Engine::open(golden.config()).expect_err("it is not known");
        match &error {
            Error::Corrupt { path, offset, .. } => {
                assert_eq!((path, *offset), (&segment, last as u64));
            }
            other => panic!("byte {field}: {other:?}"),
        }
        assert!(golden.image() == before, "byte {field}");
    }
}

#[test]
fn a_newer_frame_of_a_sealed_segment_is_told_where_it_is_read() {
    let make_newer = |golden: &Golden| {
        let segment = sealed(golden);
        change(&segment, |bytes| {
            for at in frames(bytes) {
                make_frame_newer(bytes, at);
            }
        });
        segment
    };
    let golden = Golden::new();
    let segment = make_newer(&golden);
    assert!(refuses_documents(&golden, &segment, "frames") > 0);

    let golden = Golden::new();
    let segment = make_newer(&golden);
    fs::remove_file(segment.with_extension("sum")).unwrap();
    refuses(&golden, &segment, "frames without their summary");
}

#[test]
fn an_open_that_fails_has_mended_and_removed_nothing() {
    let golden = Golden::new();
    let segment = unsealed(&golden);
    // A summary to be made again, and a segment and a blob that nothing names.
    fs::remove_file(&golden.files("log", "sum")[0]).unwrap();
    fs::copy(sealed(&golden), golden.path("log/000000ff.seg")).unwrap();
    fs::copy(
        &golden.files("blobs", "blob")[0],
        golden.path("blobs/00000000000000ff.blob"),
    )
    .unwrap();
    change(&segment, |bytes| {
        let last = *frames(bytes).last().unwrap();
        make_frame_newer(bytes, last);
    });
    refuses(&golden, &segment, "much to be done");

    // The same directory, its frame as it was, is put in order.
    change(&segment, |bytes| {
        let last = *frames(bytes).last().unwrap();
        bytes[last + 4] = 1;
        let crc = crc32(&bytes[last..last + 64]);
        bytes[last + 64..last + 68].copy_from_slice(&crc.to_le_bytes());
    });
    Engine::open(golden.config()).unwrap().close().unwrap();
    assert!(!golden.path("log/000000ff.seg").exists());
    assert!(!golden.path("blobs/00000000000000ff.blob").exists());
    assert!(golden.path("log/00000001.sum").exists());
}
