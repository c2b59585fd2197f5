use crate::format::summary::compact::*;

fn entry(kind: EntryKind, revision: u64, offset: u32, bytes: u32, keys: u32) -> SummaryEntry {
    let hash = match kind {
        EntryKind::Lost | EntryKind::Mark => [0; NamespaceHash::BYTES],
        _ => [u8::try_from(revision % 251).unwrap(); NamespaceHash::BYTES],
    };
    SummaryEntry {
        hash: NamespaceHash::from_bytes(hash),
        revision,
        offset: Offset::from_u32(offset),
        bytes,
        kind,
        keys,
    }
}

fn some_entries() -> Vec<SummaryEntry> {
    vec![
        entry(EntryKind::Put, 1 << 63, 28, 300, 3),
        entry(EntryKind::Put, 1, 328, 70, 0),
        entry(EntryKind::PutWithMetadata, u64::MAX, 398, 16_384, 30),
        entry(EntryKind::Put, 0, 16_782, 100, 31),
        entry(EntryKind::Put, 7, 16_882, 100, u32::MAX),
        entry(EntryKind::Delete, 8, 16_982, 50, 0),
        entry(EntryKind::Mark, 9, 17_032, 33, 0),
        entry(EntryKind::Damaged, 8, 17_065, 1, 0),
        entry(EntryKind::Lost, 6, 17_066, u32::MAX, 0),
    ]
}

fn v1_details(details: &[(&str, &str, u64, u64)]) -> Vec<u8> {
    let mut encoded = Vec::new();
    for (user, client, body_bytes, modified_ms) in details {
        push_short_text(&mut encoded, user);
        push_short_text(&mut encoded, client);
        encoded.extend_from_slice(&body_bytes.to_le_bytes());
        encoded.extend_from_slice(&modified_ms.to_le_bytes());
    }
    encoded
}

#[test]
fn entries_round_trip_at_the_limits_of_each_field() {
    let written = some_entries();
    let bytes = encode_entries(&written);
    assert_eq!(
        entries(FormatVersion::V3, &bytes, written.len()),
        Some(written.clone())
    );
    // A wrong number of entries and a truncated entry are rejected.
    assert_eq!(entries(FormatVersion::V3, &bytes, written.len() - 1), None);
    assert_eq!(entries(FormatVersion::V3, &bytes, written.len() + 1), None);
    assert_eq!(
        entries(FormatVersion::V3, &bytes[..bytes.len() - 1], written.len()),
        None
    );
    // The last entry ends beyond the highest possible offset, so no other entry can follow.
    let mut beyond = written;
    beyond.push(entry(EntryKind::Delete, 9, 0, 1, 0));
    assert_eq!(
        entries(FormatVersion::V3, &encode_entries(&beyond), beyond.len()),
        None
    );
}

#[test]
fn details_round_trip_at_the_limits_of_each_field() {
    let long = "n".repeat(255);
    let written = [
        ("u", "c", 0, u64::MAX),
        ("u", "c", u64::MAX, 0),
        (long.as_str(), long.as_str(), 300, 1 << 63),
        ("", "", 0, 0),
        ("u", long.as_str(), 300, 1_795_000_000_000),
    ];
    let written_v1 = v1_details(&written);
    let bytes = encode_details(&written_v1);
    let found = details(&bytes, written.len()).unwrap();
    assert_eq!(Some(&found), v1::details(&written_v1).as_ref());
    assert_eq!(details(&bytes, written.len() - 1), None);
    assert_eq!(details(&bytes, written.len() + 1), None);
    assert_eq!(details(&bytes[..bytes.len() - 1], written.len()), None);
}

#[test]
fn summary_of_a_small_document_has_at_most_42_bytes() {
    let (mut written, mut names) = (Vec::new(), Vec::new());
    for n in 0..1000_u32 {
        let revision = 10_000_000 + u64::from(n);
        written.push(entry(EntryKind::Put, revision, 28 + n * 370, 370, 3));
        let user = format!("user-{:011}", u64::from(n) * 7919 % 100_000);
        names.push((user, 1_795_000_000_000 + u64::from(n) / 20));
    }
    let written_details: Vec<_> = names
        .iter()
        .map(|(user, time)| (user.as_str(), "preferences-app", 300, *time))
        .collect();
    let details = encode_details(&v1_details(&written_details));
    let bytes = encode_entries(&written).len() + details.len();
    assert!(bytes <= 42 * 1000, "{bytes}");
}

#[test]
fn entries_that_are_never_written_are_rejected() {
    let hash = [7; 16];
    let put = |first: &[u8], rest: &[u8]| [first, &hash, rest].concat();
    assert!(entries(FormatVersion::V3, &put(&[1], &[2, 9]), 1).is_some());
    assert!(entries(FormatVersion::V3, &put(&[1 | 31 << 3, 0], &[2, 9]), 1).is_some());
    for (wrong, what) in [
        (put(&[0], &[2, 9]), "an undefined kind"),
        (put(&[6], &[2, 9]), "an undefined kind"),
        (put(&[3 | 1 << 3], &[2, 9]), "a delete with keys"),
        (
            put(&[1 | 31 << 3, 0x80, 0], &[2, 9]),
            "a second encoding of the number of keys",
        ),
        (
            put(&[1 | 31 << 3, 0xff, 0xff, 0xff, 0xff, 0x0f], &[2, 9]),
            "a number of keys above 32 bits",
        ),
        (
            put(&[1], &[0x82, 0, 9]),
            "a second encoding of the revision",
        ),
        (
            put(&[1], &[2, 0xff, 0xff, 0xff, 0xff, 0x1f]),
            "a length above 32 bits",
        ),
        (put(&[1], &[2, 9, 0]), "bytes after the last entry"),
    ] {
        assert_eq!(entries(FormatVersion::V3, &wrong, 1), None, "{what}");
    }
}

#[test]
fn details_that_are_never_written_are_rejected() {
    assert!(details(b"\x01u\0\x01c\x02\x02\x01u\x01\x01d\x02\x02", 2).is_some());
    for (wrong, what) in [
        (
            &b"\x01u\0\x01c\x02\x02\x01u\x01\x01c\x02\x02"[..],
            "a client that is already in the list",
        ),
        (
            b"\x01u\0\x01c\x02\x02\x01u\x02\x02\x02\x02\x02",
            "an index beyond the list of clients",
        ),
        (
            b"\x01\xff\0\x01c\x02\x02\x01u\0\x02\x02\0\0",
            "a user that is not UTF-8",
        ),
        (
            b"\x01u\0\x01\xff\x02\x02\x01u\0\x02\x02",
            "a client that is not UTF-8",
        ),
    ] {
        assert_eq!(details(wrong, 2), None, "{what}");
    }
}

/// The forged counts require more memory than can be allocated, so an attempted allocation would
/// fail the test.
#[test]
fn forged_count_does_not_cause_an_allocation() {
    assert_eq!(entries(FormatVersion::V3, &[0; 30], usize::MAX / 64), None);
    assert_eq!(details(&[0; 30], usize::MAX / 64), None);
}
