//! Reads files of format version 1 with a second parser, which was written from
//! docs/format.md and shares no code with the engine. The files are those of the golden
//! directory, because the engine no longer writes version 1.

use std::collections::BTreeMap;
use std::fs;

use prefd_tests::format_reader::{
    FieldReader, Manifest, extent, file_header, manifest, namespace_hash,
};
use prefd_tests::golden::{Golden, listing};
use prefd_tests::layout::crc32;

struct Frame {
    offset: u64,
    bytes: u64,
    kind: u64,
    hash: Vec<u8>,
    revision: u64,
    modified: u64,
    user: String,
    client: String,
    keys: u64,
    /// The JSON text of the document. Empty for a delete.
    body: Vec<u8>,
}

type Blobs = BTreeMap<u64, Vec<u8>>;

/// Parses the frame at `offset`, checks its checksums, and rebuilds the document's text from
/// its members.
fn parse_frame(segment: &[u8], offset: usize, blobs: &Blobs) -> Frame {
    let mut fields = FieldReader::new(&segment[offset..]);
    assert_eq!(fields.take(4), b"PFRM");
    assert_eq!((fields.number(1), fields.number(1)), (1, 1));
    let (kind, flags) = (fields.number(1), fields.number(1));
    let hash = fields.take(16).to_vec();
    let (revision, modified, watermark) = (fields.number(8), fields.number(8), fields.number(8));
    assert_eq!(
        watermark, offset as u64,
        "every earlier frame was synced first"
    );
    let is_current = listing(1).iter().any(|l| l.revision == Some(revision));
    let meta_bytes = usize::try_from(fields.number(4)).unwrap();
    let inline_bytes = usize::try_from(fields.number(4)).unwrap();
    let (meta_crc, inline_crc) = (fields.number(4), fields.number(4));
    fields.check_crc(0);
    assert_eq!(fields.at, 68);
    let meta = fields.take(meta_bytes);
    let inline = fields.take(inline_bytes);
    assert_eq!(meta_crc, u64::from(crc32(meta)));
    assert_eq!(inline_crc, u64::from(crc32(inline)));
    let mut meta = FieldReader::new(meta);
    let (user, client) = (meta.text(8).to_owned(), meta.text(8).to_owned());
    let keys = meta.number(8);
    let mut body = Vec::new();
    for index in 0..keys {
        body.push(if index == 0 { b'{' } else { b',' });
        body.extend_from_slice(meta.text(8).as_bytes());
        body.push(b':');
        match meta.number(4) {
            0 => {
                let offset = usize::try_from(meta.number(4)).unwrap();
                let len = usize::try_from(meta.number(4)).unwrap();
                body.extend_from_slice(&inline[offset..offset + len]);
            }
            1 => {
                // The blob of a replaced document was removed, and its id may be in use again.
                let blob = |id| blobs.get(&id).map(Vec::as_slice);
                let (_, value) = extent(&mut meta, |id| blob(id).filter(|_| is_current));
                body.extend_from_slice(&value);
            }
            other => panic!("expected value tag 0 (inline) or 1 (extent), found {other}"),
        }
    }
    assert!(meta.is_at_end());
    if kind == 1 {
        body.extend_from_slice(if keys == 0 { b"{}" } else { b"}" });
    }
    if flags == 0 {
        assert_eq!(inline, body);
    } else {
        assert_eq!((flags, inline.len()), (1, 0));
    }
    Frame {
        offset: offset as u64,
        bytes: fields.at as u64,
        kind: if kind == 1 { 1 + flags } else { 3 },
        hash,
        revision,
        modified,
        user,
        client,
        keys,
        body,
    }
}

fn check_summary(summary: &[u8], manifest: &Manifest, id: u64, frames: &[Frame]) {
    let mut fields = FieldReader::new(summary);
    let store = file_header(&mut fields, "PREFDSUM", 1, id);
    assert_eq!(store, manifest.store);
    let last = frames.last().unwrap();
    assert_eq!(
        (fields.number(8), fields.number(4)),
        (last.offset + last.bytes, frames.len() as u64)
    );
    let blobs_bytes = usize::try_from(fields.number(4)).unwrap() * 12;
    let details_bytes = usize::try_from(fields.number(4)).unwrap();
    let crcs = [fields.number(4), fields.number(4), fields.number(4)];
    fields.check_crc(28);
    assert_eq!(fields.at, 64);
    let entries = fields.take(frames.len() * 37);
    let blobs = fields.take(blobs_bytes);
    let details = fields.take(details_bytes);
    assert!(fields.is_at_end());
    let sections = [entries, details, blobs];
    assert_eq!(crcs, sections.map(|section| u64::from(crc32(section))));
    let (mut entries, mut details) = (FieldReader::new(entries), FieldReader::new(details));
    for frame in frames {
        assert_eq!(entries.take(16), frame.hash);
        assert_eq!(entries.number(8), frame.revision);
        let location = (entries.number(4), entries.number(4));
        assert_eq!(location, (frame.offset, frame.bytes));
        let kind_and_keys = (entries.number(1), entries.number(4));
        assert_eq!(kind_and_keys, (frame.kind, frame.keys));
        let names = (details.text(1), details.text(1));
        assert_eq!(names, (frame.user.as_str(), frame.client.as_str()));
        let sizes = (details.number(8), details.number(8));
        assert_eq!(sizes, (frame.body.len() as u64, frame.modified));
    }
    assert!(entries.is_at_end() && details.is_at_end());
}

#[test]
fn files_of_format_1_match_format_md() {
    let golden = Golden::of(1);
    let read = manifest(&fs::read(golden.path("log/manifest")).unwrap());
    let mut blobs = Blobs::new();
    for path in golden.files("blobs", "blob") {
        let id = blobs.len() as u64 + 1;
        let bytes = fs::read(path).unwrap();
        let store = file_header(&mut FieldReader::new(&bytes), "PREFDBLB", 1, id);
        assert_eq!(store, read.store);
        blobs.insert(id, bytes);
    }
    let mut newest = BTreeMap::new();
    for (id, sealed) in &read.segments {
        let path = golden.path(&format!("log/{id:08x}.seg"));
        let segment = fs::read(&path).unwrap();
        let store = file_header(&mut FieldReader::new(&segment), "PREFDSEG", 1, *id);
        assert_eq!(store, read.store);
        let mut frames: Vec<Frame> = Vec::new();
        let mut at = 28;
        for location in &prefd_tests::layout::frames(&segment) {
            assert_eq!(location.bytes.start, at);
            let frame = parse_frame(&segment, at, &blobs);
            at += usize::try_from(frame.bytes).unwrap();
            let hash = namespace_hash(&read.hash_key, &frame.user, &frame.client);
            assert_eq!(frame.hash, hash);
            frames.push(frame);
        }
        if let Some((bytes, last_revision)) = sealed {
            assert_eq!(at as u64, *bytes);
            let highest = frames.iter().map(|frame| frame.revision).max();
            assert_eq!(highest, Some(*last_revision));
            let summary = fs::read(path.with_extension("sum")).unwrap();
            check_summary(&summary, &read, *id, &frames);
        } else {
            assert!(
                at < segment.len(),
                "expected a torn frame at the end of the unsealed segment"
            );
        }
        for frame in frames {
            let text = (frame.kind != 3).then(|| String::from_utf8(frame.body).unwrap());
            newest.insert((frame.user, frame.client), text);
        }
    }
    for listed in listing(1) {
        let found = &newest[&(listed.user, listed.client)];
        assert_eq!(*found, listed.text);
    }
}
