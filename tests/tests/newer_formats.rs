//! Data directories of future format versions. The engine refuses them with an error that names
//! the file and the versions. The engine does not treat newer data as damage or as a torn tail,
//! and changes no byte of `log/` and `blobs/`.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use prefd_engine::{Engine, Error};
use prefd_tests::golden::{FORMATS, Golden};
use prefd_tests::layout::{FILE_HEADER_BYTES, FrameHead, change_head, crc32, frames};

/// A version that the engine supports for no kind of file.
const NEWER_VERSION: u16 = 4;

/// Sets the version to [`NEWER_VERSION`], and updates the checksum that follows the `covered`
/// bytes.
fn set_newer_version(bytes: &mut [u8], version: Range<usize>, covered: Range<usize>) {
    let len = version.len();
    bytes[version].copy_from_slice(&NEWER_VERSION.to_le_bytes()[..len]);
    let end = covered.end;
    let crc = crc32(&bytes[covered]);
    bytes[end..end + 4].copy_from_slice(&crc.to_le_bytes());
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn make_header_newer(path: &Path) {
    change_file(path, |bytes| set_newer_version(bytes, 8..10, 0..24));
}

fn is_format_1(segment: &[u8]) -> bool {
    segment[8] == 1
}

/// Sets the version of the frame at this offset.
fn set_frame_version(bytes: &mut Vec<u8>, at: usize, version: u8) {
    if is_format_1(bytes) {
        bytes[at + 4] = version;
        update_frame_1_checksum(bytes, at);
    } else {
        change_head(bytes, at, |head| head.version = version);
    }
}

fn make_frame_newer(bytes: &mut Vec<u8>, at: usize) {
    set_frame_version(bytes, at, NEWER_VERSION.try_into().unwrap());
}

fn update_frame_1_checksum(bytes: &mut [u8], at: usize) {
    let crc = crc32(&bytes[at..at + 64]);
    bytes[at + 64..at + 68].copy_from_slice(&crc.to_le_bytes());
}

/// The offsets of the complete frames of a segment.
fn frame_offsets(segment: &[u8]) -> Vec<usize> {
    let frames = frames(segment);
    assert!(frames[0].bytes.start == FILE_HEADER_BYTES);
    frames.into_iter().map(|frame| frame.bytes.start).collect()
}

/// The path of the unsealed segment.
fn unsealed(golden: &Golden) -> PathBuf {
    let last = golden.files("log", "seg").pop().unwrap();
    assert!(!last.with_extension("sum").exists());
    last
}

/// The path of the last sealed segment, which contains current documents.
fn sealed(golden: &Golden) -> PathBuf {
    let segments = golden.files("log", "seg");
    segments[segments.len() - 2].clone()
}

fn segment_version(path: &Path) -> u16 {
    fs::read(path).unwrap()[8].into()
}

/// Panics unless `error` says that this file has [`NEWER_VERSION`], and which version is
/// supported.
fn expect_newer(error: &Error, path: &Path, context: &str) {
    match error {
        Error::UnsupportedFormat {
            path: named,
            found: NEWER_VERSION,
            supported,
        } => {
            assert_eq!(named, path, "{context}");
            let is_frame = context.contains("frame");
            let is_blob = path.extension().is_some_and(|e| e == "blob");
            let expected = if is_frame {
                segment_version(path)
            } else if is_blob {
                1
            } else {
                3
            };
            assert_eq!(*supported, expected, "{context}");
        }
        other => panic!("{context}: expected an unsupported format, found {other:?}"),
    }
}

/// Panics unless opening fails because of this file and leaves the directory unchanged.
fn assert_open_is_refused(golden: &Golden, path: &Path, context: &str) {
    let before = golden.image();
    let lock = golden.path("lock");
    let owner = "an earlier owner";
    fs::write(&lock, owner).unwrap();
    let error = Engine::open(golden.config()).expect_err(context);
    expect_newer(&error, path, context);
    assert!(golden.image() == before, "{context}: the directory changed");
    assert_eq!(fs::read_to_string(lock).unwrap(), owner, "{context}");
}

/// Opens the directory. Documents in this file must be refused, and all others must be read
/// unchanged. Returns the number of refused documents.
fn count_refused_documents(golden: &Golden, path: &Path, context: &str) -> usize {
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
fn newer_manifest_is_refused() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let manifest = golden.path("log/manifest");
        change_file(&manifest, |bytes| set_newer_version(bytes, 8..10, 0..20));
        assert_open_is_refused(&golden, &manifest, "manifest");
    }
}

#[test]
fn newer_summary_is_refused() {
    for format in FORMATS {
        for index in 0..Golden::of(format).files("log", "sum").len() {
            let golden = Golden::of(format);
            let summary = golden.files("log", "sum")[index].clone();
            make_header_newer(&summary);
            assert_open_is_refused(&golden, &summary, "summary");
        }
    }
}

#[test]
fn newer_unsealed_segment_is_refused() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = unsealed(&golden);
        make_header_newer(&segment);
        assert_open_is_refused(&golden, &segment, "unsealed segment");
    }
}

#[test]
fn newer_segment_is_refused_even_if_the_manifest_omits_it() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let unlisted = golden.path("log/000000ff.seg");
        fs::copy(sealed(&golden), &unlisted).unwrap();
        make_header_newer(&unlisted);
        assert_open_is_refused(&golden, &unlisted, "unlisted segment");
    }
}

#[test]
fn newer_sealed_segment_is_refused_when_it_is_read() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = sealed(&golden);
        make_header_newer(&segment);
        assert!(count_refused_documents(&golden, &segment, "sealed segment") > 0);

        let golden = Golden::of(format);
        let segment = sealed(&golden);
        make_header_newer(&segment);
        fs::remove_file(segment.with_extension("sum")).unwrap();
        assert_open_is_refused(&golden, &segment, "sealed segment without its summary");
    }
}

#[test]
fn newer_blob_is_refused_when_it_is_read() {
    for format in FORMATS {
        let mut refused = 0;
        for index in 0..Golden::of(format).files("blobs", "blob").len() {
            let golden = Golden::of(format);
            let blob = golden.files("blobs", "blob")[index].clone();
            make_header_newer(&blob);
            refused += count_refused_documents(&golden, &blob, "blob");
        }
        assert!(refused > 0);
    }
}

/// Format 2 has segments of version 2, but blobs of version 1.
#[test]
fn blob_of_version_2_is_refused_when_it_is_read() {
    let golden = Golden::of(2);
    for blob in golden.files("blobs", "blob") {
        change_file(&blob, |bytes| {
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
            let is_newer = matches!(
                error,
                Error::UnsupportedFormat {
                    found: 2,
                    supported: 1,
                    ..
                }
            );
            assert!(is_newer, "expected an unsupported format, found {error:?}");
            refused += 1;
        }
    }
    assert!(refused > 0);
}

#[test]
fn newer_frame_in_the_unsealed_segment_is_not_a_torn_tail() {
    for format in FORMATS {
        let offsets = frame_offsets(&fs::read(unsealed(&Golden::of(format))).unwrap());
        assert!(offsets.len() > 3);
        // The last frame is above the watermark, so nothing shows that it was synced.
        for at in offsets {
            let golden = Golden::of(format);
            let segment = unsealed(&golden);
            change_file(&segment, |bytes| make_frame_newer(bytes, at));
            assert_open_is_refused(&golden, &segment, &format!("frame at {at}"));
        }
    }
}

#[test]
fn newer_frame_after_damage_is_not_a_torn_tail() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = unsealed(&golden);
        change_file(&segment, |bytes| {
            let offsets = frame_offsets(bytes);
            let [.., damaged, newer] = offsets[..] else {
                panic!("expected two frames");
            };
            bytes[damaged + 30] ^= 1;
            make_frame_newer(bytes, newer);
        });
        assert_open_is_refused(&golden, &segment, "frame after damage");
    }
}

/// A change of a frame's header.
type HeadChange = fn(&mut FrameHead);

/// Changes the last frame of the unsealed segment to an invalid one with a valid checksum. Panics
/// unless opening fails at this frame and leaves the directory unchanged.
fn assert_invalid_frame_is_refused(format: u32, what: &str, change: impl Fn(&mut Vec<u8>, usize)) {
    let golden = Golden::of(format);
    let segment = unsealed(&golden);
    let last = *frame_offsets(&fs::read(&segment).unwrap()).last().unwrap();
    change_file(&segment, |bytes| change(bytes, last));
    let before = golden.image();
    let error = Engine::open(golden.config()).expect_err("the frame is invalid");
    match &error {
        Error::Corrupt { path, offset, .. } => {
            assert_eq!((path, *offset), (&segment, last as u64), "{what}");
        }
        other => panic!("{what}: expected damage, found {other:?}"),
    }
    assert!(golden.image() == before, "{what}");
}

#[test]
fn frame_with_an_unknown_field_value_is_not_a_torn_tail() {
    for (field, value) in [(5, 2), (6, 3), (7, 0x80)] {
        assert_invalid_frame_is_refused(1, &format!("byte {field}"), |bytes, last| {
            bytes[last + field] = value;
            update_frame_1_checksum(bytes, last);
        });
    }
    let in_version_2: [(&str, HeadChange); 2] = [
        ("a mark", |head| (head.kind, head.after_names) = (4, vec![])),
        ("an unknown codec", |head| {
            (head.kind, head.after_names) = (2, vec![2, 0, 0, 0, 0, 1]);
        }),
    ];
    let in_version_3: [(&str, HeadChange); 2] = [
        ("an unknown kind", |head| head.kind = 5),
        ("a mark with members", |head| {
            (head.kind, head.after_names) = (4, vec![0, 0, 0, 0, 3, 1]);
        }),
    ];
    let in_both: [(&str, HeadChange); 3] = [
        ("an unknown flag", |head| head.kind |= 0x80),
        ("a delete with members", |head| {
            (head.kind, head.after_names) = (3, vec![0, 0, 0, 0, 3, 1]);
        }),
        ("an invalid name", |head| head.client = b"\n".to_vec()),
    ];
    for (format, changes) in [(2, in_version_2), (3, in_version_3)] {
        for (what, change) in changes.into_iter().chain(in_both) {
            assert_invalid_frame_is_refused(format, what, |bytes, last| {
                change_head(bytes, last, change);
            });
        }
    }
}

/// A later prefd may compress values without a new format version. This prefd must not drop such a
/// frame from the end of the log.
#[test]
fn frame_with_an_unknown_codec_of_a_value_is_not_a_torn_tail() {
    let inline = br#"{"k":1}"#;
    let metadata = |attributes, codec| vec![0, 0, 3, 1, attributes, codec];
    for (what, metadata) in [
        ("a compressed value", metadata(0, 1)),
        ("an unknown attribute", metadata(4, 0)),
    ] {
        assert_invalid_frame_is_refused(3, what, |bytes, last| {
            let (head, _) = FrameHead::read(&bytes[last..]).unwrap();
            bytes.truncate(last);
            bytes.extend(head.with_metadata(&metadata, inline));
        });
    }
}

#[test]
fn newer_frame_in_a_sealed_segment_is_refused_when_it_is_read() {
    for format in FORMATS {
        let make_newer = |golden: &Golden| {
            let segment = sealed(golden);
            change_file(&segment, |bytes| {
                for at in frame_offsets(bytes) {
                    make_frame_newer(bytes, at);
                }
            });
            segment
        };
        let golden = Golden::of(format);
        let segment = make_newer(&golden);
        assert!(count_refused_documents(&golden, &segment, "frames") > 0);

        let golden = Golden::of(format);
        let segment = make_newer(&golden);
        fs::remove_file(segment.with_extension("sum")).unwrap();
        assert_open_is_refused(&golden, &segment, "frames without their summary");
    }
}

#[test]
fn refused_open_repairs_and_removes_nothing() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let segment = unsealed(&golden);
        // Prepare work for an open: a missing summary, and a segment and a blob that nothing
        // refers to.
        fs::remove_file(&golden.files("log", "sum")[0]).unwrap();
        fs::copy(sealed(&golden), golden.path("log/000000ff.seg")).unwrap();
        fs::copy(
            &golden.files("blobs", "blob")[0],
            golden.path("blobs/00000000000000ff.blob"),
        )
        .unwrap();
        change_file(&segment, |bytes| {
            let last = *frame_offsets(bytes).last().unwrap();
            make_frame_newer(bytes, last);
        });
        assert_open_is_refused(&golden, &segment, "last frame, with repairs pending");

        // With the original frame, an open repairs the directory.
        change_file(&segment, |bytes| {
            let last = *frame_offsets(bytes).last().unwrap();
            set_frame_version(bytes, last, format.try_into().unwrap());
        });
        let mut config = golden.config();
        // Background compaction could rewrite the segment whose summary is checked below.
        config.background_compaction = false;
        Engine::open(config).unwrap().close().unwrap();
        assert!(!golden.path("log/000000ff.seg").exists());
        assert!(!golden.path("blobs/00000000000000ff.blob").exists());
        assert!(golden.path("log/00000001.sum").exists());
    }
}
