use crate::format::summary::v2::*;

fn entry(kind: EntryKind, revision: u64, offset: u32, bytes: u32, keys: u32) -> SummaryEntry {
    let hash = match kind {
        EntryKind::Lost => [0; NamespaceHash::BYTES],
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
        entry(EntryKind::PutWithBlobs, u64::MAX, 398, 16_384, 30),
        entry(EntryKind::Put, 0, 16_782, 100, 31),
        entry(EntryKind::Put, 7, 16_882, 100, u32::MAX),
        entry(EntryKind::Delete, 8, 16_982, 50, 0),
        entry(EntryKind::Damaged, 8, 17_032, 1, 0),
        entry(EntryKind::Lost, 6, 17_033, u32::MAX, 0),
    ]
}

fn gathered(details: &[(&str, &str, u64, u64)]) -> Vec<u8> {
    let mut gathered = Vec::new();
    for (user, client, body_bytes, modified_ms) in details {
        push_short_text(&mut gathered, user);
        push_short_text(&mut gathered, client);
        gathered.extend_from_slice(&body_bytes.to_le_bytes());
        gathered.extend_from_slice(&modified_ms.to_le_bytes());
    }
    gathered
}

#[test]
fn entries_come_back_at_the_limits_of_each_field() {
    let written = some_entries();
    let bytes = encode_entries(&written);
    assert_eq!(entries(&bytes, written.len()), Some(written.clone()));
    // Neither more nor fewer than there are, and none that is cut.
    assert_eq!(entries(&bytes, written.len() - 1), None);
    assert_eq!(entries(&bytes, written.len() + 1), None);
    assert_eq!(entries(&bytes[..bytes.len() - 1], written.len()), None);
    // Behind what reaches up to the last offset there is no place for another.
    let mut beyond = written;
    beyond.push(entry(EntryKind::Delete, 9, 0, 1, 0));
    assert_eq!(entries(&encode_entries(&beyond), beyond.len()), None);
}

#[test]
fn details_come_back_at_the_limits_of_each_field() {
    let long = "n".repeat(255);
    let written = [
        ("u", "c", 0, u64::MAX),
        ("u", "c", u64::MAX, 0),
        (long.as_str(), long.as_str(), 300, 1 << 63),
        ("", "", 0, 0),
        ("u", long.as_str(), 300, 1_795_000_000_000),
    ];
    let gathered = gathered(&written);
    let bytes = encode_details(&gathered);
    let found = details(&bytes, written.len()).unwrap();
    assert_eq!(Some(&found), v1::details(&gathered).as_ref());
    assert_eq!(details(&bytes, written.len() - 1), None);
    assert_eq!(details(&bytes, written.len() + 1), None);
    assert_eq!(details(&bytes[..bytes.len() - 1], written.len()), None);
}

#[test]
fn the_summary_of_a_small_document_takes_42_bytes() {
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
    let details = encode_details(&gathered(&written_details));
    let bytes = encode_entries(&written).len() + details.len();
    assert!(bytes <= 42 * 1000, "{bytes}");
}

#[test]
fn entries_that_no_writer_writes_are_refused() {
    let hash = [7; 16];
    let put = |first: &[u8], behind: &[u8]| [first, &hash, behind].concat();
    assert!(entries(&put(&[1], &[2, 9]), 1).is_some());
    assert!(entries(&put(&[1 | 31 << 3, 0], &[2, 9]), 1).is_some());
    for (wrong, what) in [
        (put(&[0], &[2, 9]), "a kind that is none"),
        (put(&[6], &[2, 9]), "a kind that is none"),
        (put(&[3 | 1 << 3], &[2, 9]), "a delete with keys"),
        (
            put(&[1 | 31 << 3, 0x80, 0], &[2, 9]),
            "keys in two spellings",
        ),
        (
            put(&[1 | 31 << 3, 0xff, 0xff, 0xff, 0xff, 0x0f], &[2, 9]),
            "keys beyond 32 bits",
        ),
        (put(&[1], &[0x82, 0, 9]), "a revision in two spellings"),
        (
            put(&[1], &[2, 0xff, 0xff, 0xff, 0xff, 0x1f]),
            "a length beyond 32 bits",
        ),
        (put(&[1], &[2, 9, 0]), "something behind the last one"),
    ] {
        assert_eq!(entries(&wrong, 1), None, "{what}");
    }
}

#[test]
fn details_that_no_writer_writes_are_refused() {
    assert!(details(b"\x01u\0\x01c\x02\x02\x01u\x01\x01d\x02\x02", 2).is_some());
    for (wrong, what) in [
        (
            &b"\x01u\0\x01c\x02\x02\x01u\x01\x01c\x02\x02"[..],
            "a name for the second time",
        ),
        (
            b"\x01u\0\x01c\x02\x02\x01u\x02\x02\x02\x02\x02",
            "a name that was not given",
        ),
        (
            b"\x01\xff\0\x01c\x02\x02\x01u\0\x02\x02\0\0",
            "a user that is no text",
        ),
        (
            b"\x01u\0\x01\xff\x02\x02\x01u\0\x02\x02",
            "a client that is no text",
        ),
    ] {
        assert_eq!(details(wrong, 2), None, "{what}");
    }
}

/// No allocator has as much: asking for it would end the process.
#[test]
fn a_forged_count_takes_no_memory() {
    assert_eq!(entries(&[0; 30], usize::MAX / 64), None);
    assert_eq!(details(&[0; 30], usize::MAX / 64), None);
}
