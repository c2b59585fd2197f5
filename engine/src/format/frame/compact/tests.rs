use bytes::Bytes;

use crate::format::frame::DecodedHeader;
use crate::format::frame::compact::*;
use crate::format::frame::encoded::{EncodedFrame, encode_mark};
use crate::format::frame::member::{Extent, ValueLocation, ValueOrigin};
use crate::model::ids::BlobId;
use crate::model::names::Name;

const KEY: [u8; 16] = *b"of the unit test";
/// The offset in the segment at which the frames are decoded.
const AT: u64 = u32::MAX as u64;

fn member(key: &str, offset: usize, value: &str) -> Member {
    let location = ValueLocation::Inline {
        offset: u32::try_from(offset).unwrap(),
        bytes: u32::try_from(value.len()).unwrap(),
    };
    Member::new(key.to_owned(), location)
}

/// Builds the members and the body of a document with these keys and values.
fn body(texts: &[(String, String)]) -> (Vec<Member>, Bytes) {
    let mut body = String::from("{");
    let mut members = Vec::new();
    for (key, value) in texts {
        if !members.is_empty() {
            body.push(',');
        }
        body.push_str(key);
        body.push(':');
        members.push(member(key, body.len(), value));
        body.push_str(value);
    }
    body.push('}');
    (members, body.into())
}

fn some_body(keys: usize, value_bytes: usize) -> (Vec<Member>, Bytes) {
    let value = format!("\"{}\"", "v".repeat(value_bytes));
    let texts: Vec<_> = (0..keys)
        .map(|n| (format!("\"{n}\""), value.clone()))
        .collect();
    body(&texts)
}

fn extents(count: u64) -> Vec<Member> {
    (0..count)
        .map(|n| {
            let extent = Extent {
                blob: BlobId::new(3),
                offset: 28 + n,
                bytes: 70_000,
                crcs: vec![1, 2],
            };
            Member::new(format!("\"{n}\""), ValueLocation::Extent(extent))
        })
        .collect()
}

/// The members and the inline body of a document with an inline value that an earlier write set, an
/// extent that an earlier write set, and an inline value of this write.
fn mixed() -> (Vec<Member>, Bytes) {
    let origin = |revision, modified_ms| {
        Some(Box::new(ValueOrigin {
            revision,
            modified_ms,
        }))
    };
    let mut members = vec![
        member("\"a\"", 5, "1"),
        extents(1).remove(0),
        member("\"c\"", 16, "[2]"),
    ];
    members[0].origin = origin(999_999, 1_794_999_999_000);
    members[1].origin = origin(7, 1_600_000_000_000);
    (members, Bytes::from_static(br#"{"a":1,"0":,"c":[2]}"#))
}

fn new_frame(
    kind: FrameKind,
    (user, client): (&str, &str),
    members: &[Member],
    inline: Bytes,
) -> EncodedFrame {
    let hash = NamespaceHash::of(&KEY, user, client);
    EncodedFrame::new(kind, hash, (user, client), members, inline).unwrap()
}

const COMMIT: CommitInfo = CommitInfo {
    revision: 1_000_000,
    modified_ms: 1_795_000_000_000,
    unsynced_bytes: 700,
};

/// Encodes the complete frame.
fn bytes_of(frame: &EncodedFrame, commit: CommitInfo) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    let len = frame.encode(commit, &mut bytes);
    let mut bytes = bytes.split_off(6);
    bytes.extend_from_slice(&frame.inline);
    assert_eq!(bytes.len() as u64, len);
    assert!(len <= frame.max_frame_bytes());
    bytes
}

fn decoded(frame: &[u8]) -> DecodedHeader {
    DecodedHeader::decode(FormatVersion::V3, frame, AT).unwrap()
}

fn mark() -> Vec<u8> {
    let mut bytes = Vec::new();
    let commit = CommitInfo {
        unsynced_bytes: 0,
        ..COMMIT
    };
    assert_eq!(encode_mark(commit, &mut bytes), bytes.len() as u64);
    bytes
}

/// Encodes one frame of each kind except a mark.
fn frames() -> Vec<Vec<u8>> {
    let (members, inline) = some_body(3, 12);
    let names = ("user", "client");
    let (mixed, mixed_inline) = mixed();
    [
        new_frame(FrameKind::Put, names, &mixed, mixed_inline),
        new_frame(FrameKind::Put, names, &members, inline),
        new_frame(FrameKind::Put, names, &[], Bytes::from_static(b"{}")),
        new_frame(FrameKind::Put, names, &extents(2), Bytes::new()),
        new_frame(FrameKind::Delete, names, &[], Bytes::new()),
    ]
    .iter()
    .map(|frame| bytes_of(frame, COMMIT))
    .collect()
}

#[test]
fn frame_round_trips_at_the_limits_of_each_field() {
    let long = "n".repeat(Name::MAX_BYTES);
    for names in [("u", "c"), (long.as_str(), long.as_str()), ("ü€", "日本")] {
        for (keys, value_bytes) in [(0, 0), (1, 0), (3, 125), (3, 126), (10, 20_000), (9_000, 1)] {
            for commit in [
                COMMIT,
                CommitInfo {
                    revision: 1,
                    modified_ms: 0,
                    unsynced_bytes: 0,
                },
                CommitInfo {
                    revision: 1 << 63,
                    modified_ms: u64::MAX,
                    unsynced_bytes: u32::MAX,
                },
            ] {
                let (members, inline) = some_body(keys, value_bytes);
                let written = new_frame(FrameKind::Put, names, &members, inline.clone());
                let frame = bytes_of(&written, commit);
                let decoded = decoded(&frame);
                assert_eq!(decoded.hash(&KEY), Some(written.hash));
                let header = decoded.header;
                assert_eq!(
                    (header.revision, header.modified_ms, header.watermark),
                    (
                        commit.revision,
                        commit.modified_ms,
                        AT - u64::from(commit.unsynced_bytes)
                    )
                );
                assert_eq!(header.frame_bytes(), frame.len() as u64);
                let inline_at = header.meta_end();
                assert_eq!(frame[inline_at..], inline[..]);
                let (_, meta) = decoded.meta(&[]).unwrap();
                assert!(meta.belongs_to(names) && meta.blobs().is_empty());
                let usage = meta.usage(FrameKind::Put);
                assert_eq!(
                    (usage.keys as usize, usage.bytes),
                    (keys, inline.len() as u64)
                );
                assert_eq!(meta.into_members(FrameKind::Put, &inline), Some(members));
            }
        }
    }
}

#[test]
fn put_with_extents_and_delete_round_trip() {
    for count in [1, 300] {
        let members = extents(count);
        let written = new_frame(FrameKind::Put, ("u", "c"), &members, Bytes::new());
        let frame = bytes_of(&written, COMMIT);
        let decoded = decoded(&frame);
        let header = decoded.header;
        assert!(header.has_metadata);
        let section = &frame[header.header_bytes as usize..header.meta_end()];
        let inline = &frame[header.meta_end()..];
        assert_eq!(inline, &written.inline[..]);
        let (_, meta) = decoded.meta(section).unwrap();
        assert_eq!(
            (meta.blobs(), written.blobs.clone()),
            (vec![BlobId::new(3)], vec![BlobId::new(3)])
        );
        assert_eq!(u64::from(meta.usage(FrameKind::Put).keys), count);
        assert!(meta.matches_body(FrameKind::Put, inline));
        assert_eq!(meta.into_members(FrameKind::Put, inline), Some(members));
    }
    let written = new_frame(FrameKind::Delete, ("u", "c"), &[], Bytes::new());
    let frame = bytes_of(&written, COMMIT);
    let decoded = decoded(&frame);
    assert_eq!(decoded.header.kind, FrameKind::Delete);
    assert_eq!(decoded.header.frame_bytes(), frame.len() as u64);
}

#[test]
fn document_with_extents_and_values_of_earlier_writes_round_trips() {
    let (members, inline) = mixed();
    let written = new_frame(FrameKind::Put, ("u", "c"), &members, inline.clone());
    assert_eq!(written.inline, inline);
    assert_eq!(written.blobs, [BlobId::new(3)]);
    let frame = bytes_of(&written, COMMIT);
    let decoded = decoded(&frame);
    let header = decoded.header;
    let section = &frame[header.header_bytes as usize..header.meta_end()];
    let (_, meta) = decoded.meta(section).unwrap();
    let usage = meta.usage(FrameKind::Put);
    let body_bytes = inline.len() as u64 + 70_000;
    assert_eq!((usage.keys, usage.bytes), (3, body_bytes));
    assert!(meta.matches_body(FrameKind::Put, &inline));
    assert!(!meta.matches_body(FrameKind::Put, br#"{"a":1,"0":3,"c":2}"#));
    let found = meta.into_members(FrameKind::Put, &inline).unwrap();
    assert_eq!(found, members);
    // A copy of the frame, as compaction makes it, is the same frame.
    let copy = new_frame(FrameKind::Put, ("u", "c"), &found, inline);
    assert_eq!(bytes_of(&copy, COMMIT), frame);
}

#[test]
fn mark_round_trips_and_has_no_namespace() {
    let bytes = mark();
    let decoded = decoded(&bytes);
    assert_eq!(decoded.hash(&KEY), None);
    let header = decoded.header;
    assert_eq!(header.kind, FrameKind::Mark);
    assert_eq!(
        (header.revision, header.modified_ms, header.watermark),
        (COMMIT.revision, COMMIT.modified_ms, AT)
    );
    assert_eq!(header.frame_bytes(), bytes.len() as u64);
    assert!(decoded.meta(&[]).is_err());
}

#[test]
fn mark_with_any_single_bit_flipped_is_recognized_as_a_mark() {
    let bytes = mark();
    let end = bytes.len();
    for bit in 0..end * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let found = decode(FormatVersion::V3, &changed, AT);
        assert!(matches!(found, Err(FrameError::Invalid(_))), "bit {bit}");
        let salvage = |to_next| salvage(FormatVersion::V3, &changed, to_next, &KEY);
        assert_eq!(salvage(end), Some((Salvaged::Mark, end)));
        assert_eq!(salvage(end - 1), None);
    }
}

/// A plain put does not store the length of the inline body. If the lengths of the members
/// were wrong, a reader could not find the end of the body.
#[test]
fn frame_whose_members_do_not_add_up_to_its_body_is_rejected() {
    let (members, inline) = some_body(2, 5);
    let is_accepted = |members: &[Member], inline: &Bytes| {
        let hash = NamespaceHash::of(&KEY, "u", "c");
        EncodedFrame::new(FrameKind::Put, hash, ("u", "c"), members, inline.clone()).is_some()
    };
    assert!(is_accepted(&members, &inline));
    assert!(!is_accepted(&members, &inline.slice(1..)));
    assert!(!is_accepted(&members[1..], &inline));
    assert!(!is_accepted(&[], &Bytes::new()));
}

#[test]
fn header_of_a_small_document_has_at_most_74_bytes() {
    let texts = [("\"n\"", 18), ("\"items\"", 120), ("\"fill\"", 130)]
        .map(|(key, bytes)| (key.to_owned(), "1".repeat(bytes)));
    let (members, inline) = body(&texts);
    let names = ("user-00000000042", "preferences-app");
    // A write in the year 2099, one day after the store was opened.
    let opened_ms = 80 * 365 * 86_400_000;
    let commit = CommitInfo {
        revision: opened_ms << 21,
        modified_ms: 1_577_836_800_000 + opened_ms + 86_400_000,
        ..COMMIT
    };
    let frame = bytes_of(
        &new_frame(FrameKind::Put, names, &members, inline.clone()),
        commit,
    );
    let header_bytes = frame.len() - inline.len();
    assert!(header_bytes <= 74, "{header_bytes}");
}

#[test]
fn header_with_any_single_bit_flipped_is_invalid_and_salvaged() {
    for frame in frames() {
        let header_bytes = header_bytes(&frame).unwrap();
        let intact = decode(FormatVersion::V3, &frame, AT).unwrap().0;
        let hash = NamespaceHash::of(&KEY, "user", "client");
        for bit in 0..header_bytes * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(
                    decode(FormatVersion::V3, &changed, AT),
                    Err(FrameError::Invalid(_))
                ),
                "bit {bit}"
            );
            let end = frame.len();
            let salvage = |bytes: &[u8], to_next| salvage(FormatVersion::V3, bytes, to_next, &KEY);
            let found = Some((Salvaged::Frame(hash), end));
            assert_eq!(salvage(&changed, end), found);
            // A second damaged frame is appended. The first frame can now be salvaged only if its
            // body or metadata confirms its length. A delete has neither a body nor metadata, so it
            // cannot be salvaged if a second damaged frame follows.
            changed.extend_from_slice(&frame);
            changed[end + 12] ^= 1;
            let is_salvaged = intact.kind == FrameKind::Put;
            let expected = found.filter(|_| is_salvaged);
            assert_eq!(salvage(&changed, 2 * end), expected, "bit {bit}");
            // If a valid frame begins inside the damaged frame, the length in the damaged header is
            // wrong.
            assert_eq!(salvage(&changed, end - 1), None);
            // A body or metadata with a wrong checksum cannot confirm the repair of a header.
            if frame.len() > header_bytes {
                changed[end - 1] ^= 4;
                assert_eq!(salvage(&changed, end), None);
            }
        }
    }
}

#[test]
fn header_with_two_flipped_bits_is_not_salvaged() {
    for frame in frames() {
        let end = frame.len();
        for (at, other) in [(4, 9), (12, 20), (9, 10)] {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            changed[other] ^= 0x20;
            assert_eq!(salvage(FormatVersion::V3, &changed, end, &KEY), None);
        }
    }
}

#[test]
fn frame_truncated_inside_its_header_is_invalid_at_any_length() {
    for frame in frames() {
        for len in 0..header_bytes(&frame).unwrap() {
            let truncated = decode(FormatVersion::V3, &frame[..len], AT);
            assert!(matches!(truncated, Err(FrameError::Invalid(_))), "{len}");
            assert_eq!(salvage(FormatVersion::V3, &frame[..len], len, &KEY), None);
        }
    }
}

/// Builds a header with a correct length and checksum. `fields` contains the bytes that follow the
/// length field.
fn forged(version: u8, kind: u8, fields: &[u8]) -> Vec<u8> {
    let mut header = vec![MAGIC[0], MAGIC[1], version, kind, 0, 0, 0, 0];
    push_varint(&mut header, fields.len() as u64);
    header.extend_from_slice(fields);
    let crc = header_crc(&header);
    header[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
    header
}

#[test]
fn intact_header_with_unknown_version_or_field_is_not_damage() {
    const VALID: &[u8] = b"\x01\x02\x03\0\0\0\x01u\x01c";
    let with = |more: &[u8]| [VALID, more].concat();
    let check_in = |segment, version, kind, fields: &[u8]| {
        decode(segment, &forged(version, kind, fields), AT).map(|(header, _)| header.inline_bytes)
    };
    let check = |kind, fields: &[u8]| check_in(FormatVersion::V3, 3, kind, fields);
    assert_eq!(check(KIND_DELETE, VALID), Ok(0));
    assert_eq!(check(KIND_MARK, b"\x01\x02\x03\0\0\0"), Ok(0));
    assert_eq!(check(KIND_PUT, &with(b"CRC.")), Ok(2));
    assert_eq!(check(KIND_PUT, &with(b"CRC.\x03\x01")), Ok(7));
    let with_metadata = with(b"CRC.\x05CRC.\x0b");
    assert_eq!(check(KIND_PUT_WITH_METADATA, &with_metadata), Ok(11));
    for (segment, supported) in [(FormatVersion::V2, 2), (FormatVersion::V3, 3)] {
        for version in [0, 1, 2, 3, 4, 255] {
            let expected = FrameError::Version {
                found: version,
                supported,
            };
            if u16::from(version) != supported {
                let found = check_in(segment, version, KIND_PUT, b"whatever");
                assert_eq!(found, Err(expected));
            }
        }
    }
    let in_version_2 = |kind, fields: &[u8]| check_in(FormatVersion::V2, 2, kind, fields);
    assert_eq!(
        in_version_2(KIND_PUT_WITH_METADATA, &with(b"\x01CRC.\x01")),
        Ok(0)
    );
    for (kind, fields) in [
        (KIND_MARK, b"\x01\x02\x03\0\0\0".to_vec()),
        (KIND_MARK, VALID.to_vec()),
        (KIND_PUT_WITH_METADATA, with(b"\x01CRC.")),
        (KIND_PUT_WITH_METADATA, with(b"\x02CRC.\x01")),
        (KIND_PUT_WITH_METADATA, with(b"\x01CRC.\x01\0")),
    ] {
        let found = in_version_2(kind, &fields);
        assert_eq!(found, Err(FrameError::Unknown), "{kind} {fields:02x?}");
    }
    for (kind, fields) in [
        (0, VALID.to_vec()),
        (5, VALID.to_vec()),
        (KIND_MARK, VALID.to_vec()),
        (KIND_MARK, Vec::new()),
        (0x81, with(b"CRC.")),
        (KIND_DELETE, with(b"\0")),
        (KIND_DELETE, Vec::new()),
        (KIND_DELETE, b"\x01\x02\x03\0\0\0\x01u".to_vec()),
        (KIND_DELETE, b"\x81\0\x02\x03\0\0\0\x01u\x01c".to_vec()),
        (KIND_DELETE, b"\x01\x02\x03\0\0\0\x01\xff\x01c".to_vec()),
        (KIND_DELETE, b"\x01\x02\x03\0\0\0\x01\x07\x01c".to_vec()),
        (KIND_DELETE, b"\x01\x02\x03\0\0\0\0\x01c".to_vec()),
        (KIND_PUT, with(b"CRC")),
        (KIND_PUT, with(b"CRC.\x03")),
        (KIND_PUT, with(b"CRC.\x03\x81\0")),
        (KIND_PUT, with(b"CRC.\x03\xff\xff\xff\xff\x1f")),
        (
            KIND_PUT,
            with(b"CRC.\xff\xff\xff\xff\x0f\xff\xff\xff\xff\x0f"),
        ),
        (KIND_PUT_WITH_METADATA, with(b"CRC.")),
        (KIND_PUT_WITH_METADATA, with(b"CRC.\x01CRC.")),
        (KIND_PUT_WITH_METADATA, with(b"CRC.\x01CRC.\x01\0")),
    ] {
        let found = check(kind, &fields);
        assert_eq!(found, Err(FrameError::Unknown), "{kind} {fields:02x?}");
    }
}

/// Recovery seals the active segment at the highest watermark of its frames. If a watermark that
/// wraps around were not detected, recovery could seal the segment at a wrong length.
#[test]
fn watermark_before_the_start_of_the_segment_wraps_above_the_frame() {
    let frame = forged(3, KIND_DELETE, b"\x01\x02\x1d\0\0\0\x01u\x01c");
    let (header, _) = decode(FormatVersion::V3, &frame, 28).unwrap();
    assert!(header.watermark > 28);
    let (header, _) = decode(FormatVersion::V3, &frame, 29).unwrap();
    assert_eq!(header.watermark, 0);
}

#[test]
fn header_length_above_the_maximum_is_invalid() {
    let mut bytes = vec![MAGIC[0], MAGIC[1], 3, KIND_PUT, 0, 0, 0, 0];
    push_varint(&mut bytes, (MAX_LEAD_BYTES + MAX_TAIL_BYTES) as u64);
    assert!(header_bytes(&bytes).is_some());
    for length in [(MAX_LEAD_BYTES + MAX_TAIL_BYTES + 1) as u64, u64::MAX] {
        bytes.truncate(LENGTH_AT);
        push_varint(&mut bytes, length);
        assert_eq!(header_bytes(&bytes), None);
        assert!(matches!(
            decode(FormatVersion::V3, &bytes, AT),
            Err(FrameError::Invalid(_))
        ));
    }
}
