use bytes::Bytes;

use crate::format::frame::FrameHead;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::meta::{EXTENT_CHUNK_BYTES, Extent, ValueLocation};
use crate::format::frame::v2::*;
use crate::model::ids::BlobId;

const KEY: [u8; 16] = *b"of the unit test";
/// Where the frames are said to stand.
const AT: u64 = u32::MAX as u64;

fn member(key: &str, offset: usize, value: &str) -> Member {
    Member {
        key: key.to_owned(),
        value: ValueLocation::Inline {
            offset: u32::try_from(offset).unwrap(),
            bytes: u32::try_from(value.len()).unwrap(),
        },
    }
}

/// A body of these members.
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
        .map(|n| Member {
            key: format!("\"{n}\""),
            value: ValueLocation::Extent(Extent {
                blob: BlobId::new(3),
                offset: 28 + n,
                bytes: 70_000,
                crcs: vec![1, 2],
            }),
        })
        .collect()
}

fn draft(
    kind: FrameKind,
    (user, client): (&str, &str),
    members: &[Member],
    inline: Bytes,
) -> EncodedFrame {
    let hash = NamespaceHash::of(&KEY, user, client);
    EncodedFrame::new(kind, hash, (user, client), members, inline).unwrap()
}

const STAMP: CommitInfo = CommitInfo {
    revision: 1_000_000,
    modified_ms: 1_795_000_000_000,
    unsynced_bytes: 700,
};

/// The whole frame.
fn encoded(draft: &EncodedFrame, stamp: CommitInfo) -> Vec<u8> {
    let mut bytes = b"before".to_vec();
    let len = draft.encode(stamp, &mut bytes);
    let mut bytes = bytes.split_off(6);
    bytes.extend_from_slice(&draft.inline);
    assert_eq!(bytes.len() as u64, len);
    assert!(len <= draft.max_frame_bytes());
    bytes
}

/// Some frames of each kind.
fn frames() -> Vec<Vec<u8>> {
    let (members, inline) = some_body(3, 12);
    let names = ("user", "client");
    [
        draft(FrameKind::Put, names, &members, inline),
        draft(FrameKind::Put, names, &[], Bytes::from_static(b"{}")),
        draft(FrameKind::Put, names, &extents(2), Bytes::new()),
        draft(FrameKind::Delete, names, &[], Bytes::new()),
    ]
    .iter()
    .map(|draft| encoded(draft, STAMP))
    .collect()
}

#[test]
fn a_frame_comes_back_at_the_limits_of_each_field() {
    let long = "n".repeat(names::MAX_NAME_BYTES);
    for names in [("u", "c"), (long.as_str(), long.as_str()), ("ü€", "日本")] {
        for (keys, value_bytes) in [(0, 0), (1, 0), (3, 125), (3, 126), (10, 20_000), (9_000, 1)] {
            for stamp in [
                STAMP,
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
                let draft = draft(FrameKind::Put, names, &members, inline.clone());
                let frame = encoded(&draft, stamp);
                let head = FrameHead::decode(FormatVersion::V2, &frame, AT).unwrap();
                assert_eq!(head.hash(&KEY), draft.hash);
                let header = head.header;
                assert_eq!(
                    (header.revision, header.modified_ms, header.watermark),
                    (
                        stamp.revision,
                        stamp.modified_ms,
                        AT - u64::from(stamp.unsynced_bytes)
                    )
                );
                assert_eq!(header.frame_bytes(), frame.len() as u64);
                let inline_at = header.meta_end();
                assert_eq!(frame[inline_at..], inline[..]);
                let (_, meta) = head.meta(&[]).unwrap();
                assert!(meta.is_of(names) && meta.blobs().is_empty());
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
fn a_document_in_blobs_and_a_delete_come_back() {
    for count in [1, 300] {
        let members = extents(count);
        let draft = draft(FrameKind::Put, ("u", "c"), &members, Bytes::new());
        let frame = encoded(&draft, STAMP);
        let head = FrameHead::decode(FormatVersion::V2, &frame, AT).unwrap();
        let header = head.header;
        assert!(header.has_blobs && header.inline_bytes == 0);
        let section = &frame[header.head_bytes as usize..];
        let (_, meta) = head.meta(section).unwrap();
        assert_eq!(
            (meta.blobs(), draft.blobs.clone()),
            (vec![BlobId::new(3)], vec![BlobId::new(3)])
        );
        assert_eq!(u64::from(meta.usage(FrameKind::Put).keys), count);
        assert_eq!(meta.into_members(FrameKind::Put, &[]), Some(members));
    }
    let draft = draft(FrameKind::Delete, ("u", "c"), &[], Bytes::new());
    let frame = encoded(&draft, STAMP);
    let head = FrameHead::decode(FormatVersion::V2, &frame, AT).unwrap();
    assert_eq!(head.header.kind, FrameKind::Delete);
    assert_eq!(head.header.frame_bytes(), frame.len() as u64);
}

/// The length of the inline bytes is not written, so it must be what the members say.
#[test]
fn a_draft_whose_members_do_not_add_up_is_none() {
    let (members, inline) = some_body(2, 5);
    let of = |members: &[Member], inline: &Bytes| {
        let hash = NamespaceHash::of(&KEY, "u", "c");
        EncodedFrame::new(FrameKind::Put, hash, ("u", "c"), members, inline.clone()).is_some()
    };
    assert!(of(&members, &inline));
    assert!(!of(&members, &inline.slice(1..)));
    assert!(!of(&members[1..], &inline));
    assert!(!of(&[], &Bytes::new()));
}

#[test]
fn a_small_document_takes_a_head_of_70_bytes() {
    let texts = [("\"n\"", 18), ("\"items\"", 120), ("\"fill\"", 130)]
        .map(|(key, bytes)| (key.to_owned(), "1".repeat(bytes)));
    let (members, inline) = body(&texts);
    let names = ("user-00000000042", "preferences-app");
    let stamp = CommitInfo {
        revision: 10_000_000,
        ..STAMP
    };
    let frame = encoded(
        &draft(FrameKind::Put, names, &members, inline.clone()),
        stamp,
    );
    let head_bytes = frame.len() - inline.len();
    assert!(head_bytes <= 70, "{head_bytes}");
}

#[test]
fn every_flipped_bit_of_a_head_is_noticed_and_its_namespace_told() {
    for frame in frames() {
        let head_bytes = head_bytes(&frame).unwrap();
        let whole = decode(&frame, AT).unwrap().0;
        let hash = NamespaceHash::of(&KEY, "user", "client");
        for bit in 0..head_bytes * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(&changed, AT), Err(HeadError::Invalid(_))),
                "bit {bit}"
            );
            let end = frame.len();
            assert_eq!(behind_damage(&changed, end, &KEY), Some((hash, end)));
            // Behind the frame there may be another one that is damaged.
            changed.extend_from_slice(&frame);
            changed[end + 12] ^= 1;
            let found = behind_damage(&changed, 2 * end, &KEY);
            let is_told = whole.kind == FrameKind::Put;
            assert_eq!(found, is_told.then_some((hash, end)), "bit {bit}");
            // Another frame within it holds: it is not as long as it says.
            assert_eq!(behind_damage(&changed, end - 1, &KEY), None);
            // What it says of the rest is not so.
            if frame.len() > head_bytes {
                changed[end - 1] ^= 4;
                assert_eq!(behind_damage(&changed, end, &KEY), None);
            }
        }
    }
}

#[test]
fn nothing_is_told_by_a_head_of_which_more_is_wrong() {
    for frame in frames() {
        let end = frame.len();
        for (at, other) in [(4, 9), (12, 20), (9, 10)] {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            changed[other] ^= 0x20;
            assert_eq!(behind_damage(&changed, end, &KEY), None);
        }
    }
}

#[test]
fn every_length_that_a_frame_is_cut_to_is_noticed() {
    for frame in frames() {
        for len in 0..head_bytes(&frame).unwrap() {
            let cut = decode(&frame[..len], AT);
            assert!(matches!(cut, Err(HeadError::Invalid(_))), "{len}");
            assert_eq!(behind_damage(&frame[..len], len, &KEY), None);
        }
    }
}

/// A head of these bytes behind its length, its checksum right.
fn forged(version: u8, kind: u8, behind: &[u8]) -> Vec<u8> {
    let mut head = vec![MAGIC[0], MAGIC[1], version, kind, 0, 0, 0, 0];
    push_varint(&mut head, behind.len() as u64);
    head.extend_from_slice(behind);
    let crc = head_crc(&head);
    head[CRC_AT..LENGTH_AT].copy_from_slice(&crc.to_le_bytes());
    head
}

#[test]
fn a_head_of_another_version_or_with_what_no_writer_writes_is_told_from_damage() {
    const RIGHT: &[u8] = b"\x01\x02\x03\0\0\0\x01u\x01c";
    let with = |behind: &[u8]| [RIGHT, behind].concat();
    let check = |version, kind, behind: &[u8]| {
        decode(&forged(version, kind, behind), AT).map(|(header, _)| header.inline_bytes)
    };
    assert_eq!(check(VERSION, KIND_DELETE, RIGHT), Ok(0));
    assert_eq!(check(VERSION, KIND_PUT, &with(b"CRC.")), Ok(2));
    assert_eq!(check(VERSION, KIND_PUT, &with(b"CRC.\x03\x01")), Ok(7));
    for version in [0, 1, 3, 255] {
        let no = HeadError::Version {
            found: version,
            supported: 2,
        };
        assert_eq!(check(version, KIND_PUT, b"whatever"), Err(no));
    }
    for (kind, behind) in [
        (0, RIGHT.to_vec()),
        (4, RIGHT.to_vec()),
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
        (KIND_PUT_WITH_BLOBS, with(b"\x01CRC.")),
        (KIND_PUT_WITH_BLOBS, with(b"\x02CRC.\x01")),
        (KIND_PUT_WITH_BLOBS, with(b"\x01CRC.\x01\0")),
    ] {
        let found = check(VERSION, kind, &behind);
        assert_eq!(found, Err(HeadError::Unknown), "{kind} {behind:02x?}");
    }
}

/// One that says it lies before its segment could have that sealed at any length.
#[test]
fn a_watermark_before_the_segment_comes_out_behind_the_frame() {
    let frame = forged(VERSION, KIND_DELETE, b"\x01\x02\x1d\0\0\0\x01u\x01c");
    let (header, _) = decode(&frame, 28).unwrap();
    assert!(header.watermark > 28);
    let (header, _) = decode(&frame, 29).unwrap();
    assert_eq!(header.watermark, 0);
}

#[test]
fn no_length_is_believed_that_no_head_has() {
    let mut bytes = vec![MAGIC[0], MAGIC[1], VERSION, KIND_PUT, 0, 0, 0, 0];
    push_varint(&mut bytes, (MAX_STAMP_BYTES + MAX_TAIL_BYTES) as u64);
    assert!(head_bytes(&bytes).is_some());
    for length in [(MAX_STAMP_BYTES + MAX_TAIL_BYTES + 1) as u64, u64::MAX] {
        bytes.truncate(LENGTH_AT);
        push_varint(&mut bytes, length);
        assert_eq!(head_bytes(&bytes), None);
        assert!(matches!(decode(&bytes, AT), Err(HeadError::Invalid(_))));
    }
}

#[test]
fn metadata_has_extents_and_nothing_else() {
    let inline = member("\"k\"", 5, "1");
    let extent = extents(1).remove(0);
    let mut uncovered = extent.clone();
    if let ValueLocation::Extent(extent) = &mut uncovered.value {
        extent.bytes = 1 + 2 * EXTENT_CHUNK_BYTES as u64;
    }
    for (members, is_right) in [
        (vec![extent.clone()], true),
        (vec![uncovered], false),
        (vec![extent.clone(), inline.clone()], false),
        (vec![inline], false),
        (vec![], false),
    ] {
        let section = codec::encode(&members).unwrap();
        let mut behind = b"\x01\x02\x03\0\0\0\x01u\x01c".to_vec();
        push_extents(&mut behind, &section);
        let head = FrameHead::decode(
            FormatVersion::V2,
            &forged(VERSION, KIND_PUT_WITH_BLOBS, &behind),
            AT,
        );
        let mut meta = head.unwrap().meta(&section);
        assert_eq!(meta.is_ok(), is_right, "{members:?}");
        if let Ok((_, meta)) = &mut meta {
            assert!(meta.fits(FrameKind::Put, &[]));
        }
    }
}
