//! Directories of a version that this one does not know: it says so, with the file and
//! the versions, takes nothing of it for damage or for a torn tail, and leaves every
//! byte as it is.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use prefd_engine::{Engine, Error};
use prefd_tests::golden::{FORMATS, Golden};
use prefd_tests::layout::{FILE_HEADER_BYTES, Head, change_head, crc32, frames as places};

/// Of no kind of file is a version known that is as high.
const NEWER: u16 = 3;

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

fn is_format_1(segment: &[u8]) -> bool {
    segment[8] == 1
}

/// Makes the frame at this offset one of this version.
fn make_frame(bytes: &mut Vec<u8>, at: usize, version: u8) {
    if is_format_1(bytes) {
        bytes[at + 4] = version;
        sign_frame_1(bytes, at);
    } else {
        change_head(bytes, at, |head| head.version = version);
    }
}

fn make_frame_newer(bytes: &mut Vec<u8>, at: usize) {
    make_frame(bytes, at, NEWER.try_into().unwrap());
}

fn sign_frame_1(bytes: &mut [u8], at: usize) {
    let crc = crc32(&bytes[at..at + 64]);
    bytes[at + 64..at + 68].copy_from_slice(&crc.to_le_bytes());
}

/// Where the whole frames of a segment begin.
fn frames(segment: &[u8]) -> Vec<usize> {
    let places = places(segment);
    assert!(places[0].bytes.start == FILE_HEADER_BYTES);
    places.into_iter().map(|place| place.bytes.start).collect()
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

fn segment_version(path: &Path) -> u16 {
    fs::read(path).unwrap()[8].into()
}

fn expect_newer(error: &Error, path: &Path, context: &str) {
    match error {
        Error::UnsupportedFormat {
            path: named,
            found: NEWER,
            supported,
        } => {
            assert_eq!(named, path, "{context}");
            let is_of_2 = path.extension().is_some_and(|e| e == "seg" || e == "sum");
            let is_frame = context.contains("frame") || context.contains("much");
            let of_frames = if is_frame { segment_version(path) } else { 2 };
            let expected = if is_of_2 { of_frames } else { 1 };
            assert_eq!(*supported, expected, "{context}");
        }
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
    for listed in golden.listing() {
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
    for format in FORMATS {
        let golden = Golden::of(format);
        let manifest = golden.path("log/manifest");
        change(&manifest, |bytes| sign(bytes, 8..10, 0..20));
        refuses(&golden, &manifest, "manifest");
    }
}

#[test]
fn a_newer_summary_is_refused() {
    for format in FORMATS {
        for index in 0..Golden::of(format).files("log", "sum").len() {
            let golden = Golden::of(format);
            let summary = golden.files("log", "sum")[index].clone();
            make_header_newer(&summary);
            refuses(&golden, &summary, "summary");
        }
    }
}

#[test]
fn a_newer_unsealed_segment_is_refused() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = unsealed(&golden);
        make_header_newer(&segment);
        refuses(&golden, &segment, "unsealed segment");
    }
}

#[test]
fn a_newer_segment_that_the_manifest_does_not_list_is_refused() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let unlisted = golden.path("log/000000ff.seg");
        fs::copy(sealed(&golden), &unlisted).unwrap();
        make_header_newer(&unlisted);
        refuses(&golden, &unlisted, "unlisted segment");
    }
}

#[test]
fn a_newer_sealed_segment_is_told_where_it_is_read() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = sealed(&golden);
        make_header_newer(&segment);
        assert!(refuses_documents(&golden, &segment, "sealed segment") > 0);

        let golden = Golden::of(format);
        let segment = sealed(&golden);
        make_header_newer(&segment);
        fs::remove_file(segment.with_extension("sum")).unwrap();
        refuses(&golden, &segment, "sealed segment without its summary");
    }
}

#[test]
fn a_newer_blob_is_told_where_it_is_read() {
    for format in FORMATS {
        let mut refused = 0;
        for index in 0..Golden::of(format).files("blobs", "blob").len() {
            let golden = Golden::of(format);
            let blob = golden.files("blobs", "blob")[index].clone();
            make_header_newer(&blob);
            refused += refuses_documents(&golden, &blob, "blob");
        }
        assert!(refused > 0);
    }
}

/// Their layout is that of version 1, whatever the version of the segments.
#[test]
fn a_blob_of_the_version_of_the_segments_is_told_where_it_is_read() {
    let golden = Golden::of(2);
    for blob in golden.files("blobs", "blob") {
        change(&blob, |bytes| {
            bytes[8] = 2;
            let crc = crc32(&bytes[..24]);
            bytes[24..28].copy_from_slice(&crc.to_le_bytes());
        });
    }
    let engine = Engine::open(golden.config()).unwrap();
    let mut refused = 0;
    for listed in golden.listing() {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        if let Err(error) = namespace.get() {
            let is_told = matches!(
                error,
                Error::UnsupportedFormat {
                    found: 2,
                    supported: 1,
                    ..
                }
            );
            assert!(is_told, "{error:?}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_newer_frame_of_the_unsealed_segment_is_no_torn_tail() {
    for format in FORMATS {
        let offsets = frames(&fs::read(unsealed(&Golden::of(format))).unwrap());
        assert!(offsets.len() > 3);
        // The last of them lies above the watermark: nothing says that it was synced.
        for at in offsets {
            let golden = Golden::of(format);
            let segment = unsealed(&golden);
            change(&segment, |bytes| make_frame_newer(bytes, at));
            refuses(&golden, &segment, &format!("frame at {at}"));
        }
    }
}

#[test]
fn a_newer_frame_behind_damage_is_no_torn_tail() {
    for format in FORMATS {
        let golden = Golden::of(format);
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
}

type Change = fn(&mut Head);

/// Changes the last frame of the unsealed segment to one that says what is not known.
fn refuses_what_is_not_known(format: u32, what: &str, say: impl Fn(&mut Vec<u8>, usize)) {
    let golden = Golden::of(format);
    let segment = unsealed(&golden);
    let last = *frames(&fs::read(&segment).unwrap()).last().unwrap();
    change(&segment, |bytes| say(bytes, last));
    let before = golden.image();
    let error = Engine::open(golden.config()).expect_err("it is not known");
    match &error {
        Error::Corrupt { path, offset, .. } => {
            assert_eq!((path, *offset), (&segment, last as u64), "{what}");
        }
        other => panic!("{what}: {other:?}"),
    }
    assert!(golden.image() == before, "{what}");
}

#[test]
fn a_frame_that_says_what_is_not_known_is_no_torn_tail() {
    for (field, value) in [(5, 2), (6, 3), (7, 0x80)] {
        refuses_what_is_not_known(1, &format!("byte {field}"), |bytes, last| {
            bytes[last + field] = value;
            sign_frame_1(bytes, last);
        });
    }
    let changes: [(&str, Change); 5] = [
        ("a kind", |head| head.kind = 4),
        ("a flag", |head| head.kind |= 0x80),
        ("a codec", |head| {
            (head.kind, head.behind) = (2, vec![2, 0, 0, 0, 0, 1]);
        }),
        ("a delete with members", |head| {
            (head.kind, head.behind) = (3, vec![0, 0, 0, 0, 3, 1]);
        }),
        ("a name that is none", |head| head.client = b"\n".to_vec()),
    ];
    for (what, change) in changes {
        refuses_what_is_not_known(2, what, |bytes, last| change_head(bytes, last, change));
    }
}

#[test]
fn a_newer_frame_of_a_sealed_segment_is_told_where_it_is_read() {
    for format in FORMATS {
        let make_newer = |golden: &Golden| {
            let segment = sealed(golden);
            change(&segment, |bytes| {
                for at in frames(bytes) {
                    make_frame_newer(bytes, at);
                }
            });
            segment
        };
        let golden = Golden::of(format);
        let segment = make_newer(&golden);
        assert!(refuses_documents(&golden, &segment, "frames") > 0);

        let golden = Golden::of(format);
        let segment = make_newer(&golden);
        fs::remove_file(segment.with_extension("sum")).unwrap();
        refuses(&golden, &segment, "frames without their summary");
    }
}

#[test]
fn an_open_that_fails_has_mended_and_removed_nothing() {
    for format in FORMATS {
        let golden = Golden::of(format);
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
            make_frame(bytes, last, format.try_into().unwrap());
        });
        let mut config = golden.config();
        // Which would remove a segment that is mostly stale.
        config.background_compaction = false;
        Engine::open(config).unwrap().close().unwrap();
        assert!(!golden.path("log/000000ff.seg").exists());
        assert!(!golden.path("blobs/00000000000000ff.blob").exists());
        assert!(golden.path("log/00000001.sum").exists());
    }
}
