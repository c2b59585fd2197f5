//! Reads the engine's files with a second parser, which was written from docs/format.md and
//! shares no code with the engine. A failure means that the format changed without a new
//! version, or that docs/format.md is wrong.

use std::path::Path;
use std::time::Duration;

use prefd_engine::{Change, Config, Engine, WriteOptions};
use prefd_tests::format_reader::{FieldReader, Manifest, file_header, manifest, namespace_hash};
use prefd_tests::layout::crc32;
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, put};

struct Frame {
    offset: u64,
    bytes: u64,
    kind: u64,
    revision: u64,
    modified: u64,
    watermark: u64,
    user: String,
    client: String,
    keys: u64,
    blobs: Vec<u64>,
    /// The JSON text of the document. Empty for a delete.
    body: Vec<u8>,
}

/// Parses the frame at `offset`, checks its checksums, and rebuilds the document's text.
fn parse_frame(segment: &[u8], offset: usize, blob: &[u8]) -> Frame {
    let mut fields = FieldReader::new(&segment[offset..]);
    assert_eq!(fields.take(2), [0x1e, 0xff]);
    assert_eq!(fields.number(1), 3);
    let kind = fields.number(1);
    let head_crc = fields.number(4);
    let head_end = usize::try_from(fields.varint()).unwrap() + fields.at;
    let revision = fields.varint();
    // 2020-01-01, and the time that the revision contains.
    let modified = fields.delta(1_577_836_800_000 + revision / (1 << 21));
    let unsynced = fields.number(4);
    // A mark has no names.
    let mut name = || match kind {
        4 => String::new(),
        _ => fields.text(1).to_owned(),
    };
    let (user, client) = (name(), name());
    let (mut keys, mut blobs, mut body) = (0, Vec::new(), Vec::new());
    let mut inline = None;
    let mut metadata = None;
    match kind {
        1 => {
            let crc = fields.number(4);
            let mut texts = Vec::new();
            while fields.at < head_end {
                texts.push((fields.varint(), fields.varint()));
            }
            let sum: u64 = texts.iter().map(|(key, value)| key + value).sum();
            keys = texts.len() as u64;
            // The bytes of braces, colons and commas.
            let punctuation = if keys == 0 { 2 } else { 1 + 2 * keys };
            inline = Some((crc, texts, sum + punctuation));
        }
        2 => {
            let of_metadata = (fields.number(4), fields.varint());
            let of_inline = (fields.number(4), fields.varint());
            metadata = Some((of_metadata, of_inline));
        }
        3 | 4 => {}
        other => panic!("expected a frame kind from 1 to 4, found {other}"),
    }
    assert_eq!(fields.at, head_end);
    let head = &segment[offset..offset + head_end];
    let covered = [&head[..4], &head[8..]].concat();
    assert_eq!(head_crc, u64::from(crc32(&covered)));
    if let Some((crc, texts, bytes)) = inline {
        body = fields.take(usize::try_from(bytes).unwrap()).to_vec();
        assert_eq!(crc, u64::from(crc32(&body)));
        let mut at = 1;
        for (key, value) in texts {
            let key_end = at + usize::try_from(key).unwrap();
            assert_eq!(
                (body[at], body[key_end - 1], body[key_end]),
                (b'"', b'"', b':')
            );
            at = key_end + 1 + usize::try_from(value).unwrap() + 1;
        }
        assert!(keys == 0 || at == body.len());
    }
    if let Some(((metadata_crc, metadata_bytes), (inline_crc, inline_bytes))) = metadata {
        let section = fields.take(usize::try_from(metadata_bytes).unwrap());
        let inline = fields.take(usize::try_from(inline_bytes).unwrap());
        assert_eq!(metadata_crc, u64::from(crc32(section)));
        assert_eq!(inline_crc, u64::from(crc32(inline)));
        let mut meta = FieldReader::new(section);
        let mut inline = FieldReader::new(inline);
        assert_eq!(
            (meta.varint(), meta.varint()),
            (0, 0),
            "no member has its own revision"
        );
        while !meta.is_at_end() {
            let key_bytes = usize::try_from(meta.varint()).unwrap();
            let value_bytes = usize::try_from(meta.varint()).unwrap();
            assert_eq!(
                (meta.number(1), meta.number(1)),
                (2, 0),
                "an extent, as sent"
            );
            let (id, at) = (meta.number(8), usize::try_from(meta.varint()).unwrap());
            blobs.push(id);
            let value = &blob[at..at + value_bytes];
            for chunk in value.chunks(65_536) {
                assert_eq!(meta.number(4), u64::from(crc32(chunk)));
            }
            // The inline body contains everything except the values that are extents.
            body.extend_from_slice(inline.take(1 + key_bytes + 1));
            body.extend_from_slice(value);
            keys += 1;
        }
        body.extend_from_slice(inline.take(1));
        assert!(inline.is_at_end());
    }
    Frame {
        offset: offset as u64,
        bytes: fields.at as u64,
        kind,
        revision,
        modified,
        watermark: offset as u64 - unsynced,
        user,
        client,
        keys,
        blobs,
        body,
    }
}

const SMALL: &str = "{ \"a\\u00e9\" : 1.0 , \"b\":{} }";

fn large() -> String {
    format!("{{\"big\":\"{}\",\"small\":[1]}}", "x".repeat(150_000))
}

/// Writes a small document, a document in a blob, a delete, an empty document and a document
/// with 200 keys, in this order.
fn write_samples(engine: &Engine) {
    put(engine, "c", SMALL).unwrap();
    put(engine, "large", &large()).unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    namespace
        .write(Change::Delete, WriteOptions::default())
        .unwrap();
    put(engine, "c", "{}").unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("\"{n}\":{n}")).collect();
    let many = engine.namespace("another", "large").unwrap();
    let body = format!("{{{}}}", keys.join(","));
    many.write(body.as_bytes(), WriteOptions::default())
        .unwrap();
}

fn open(store: &Store) -> Engine {
    let mut config = store.config();
    config.limits.max_keys = 1000;
    Engine::open(config).unwrap()
}

#[test]
fn files_on_disk_match_format_md() {
    let store = Store::new();
    let engine = open(&store);
    write_samples(&engine);
    engine.close().unwrap();

    let manifest_bytes = store.disk.bytes(&store.path("log/manifest"));
    assert_eq!(manifest_bytes[8], 3, "version of the manifest");
    let read = manifest(&manifest_bytes);
    let first = read.reserved_revision - 5;
    assert_eq!(read.next_segment, 2);
    let [(1, Some((segment_bytes, last)))] = read.segments[..] else {
        panic!("expected one sealed segment, found {read:?}");
    };
    assert_eq!(last, first + 4);

    let blob = store.disk.bytes(&store.path("blobs/0000000000000001.blob"));
    let mut fields = FieldReader::new(&blob);
    assert_eq!(file_header(&mut fields, "PREFDBLB", 1, 1), read.store);
    assert_eq!(&blob[28..], large().as_bytes());
    let segment = store.disk.bytes(&store.path("log/00000001.seg"));
    assert_eq!(segment.len() as u64, segment_bytes);
    let mut fields = FieldReader::new(&segment);
    assert_eq!(file_header(&mut fields, "PREFDSEG", 3, 1), read.store);
    let mut frames = Vec::new();
    let mut at = 28;
    while at < segment.len() {
        let frame = parse_frame(&segment, at, &blob);
        at += usize::try_from(frame.bytes).unwrap();
        frames.push(frame);
    }
    let kinds: Vec<_> = frames
        .iter()
        .map(|f| (f.kind, f.revision - first, f.keys))
        .collect();
    assert_eq!(
        kinds,
        [(1, 0, 2), (2, 1, 2), (3, 2, 0), (1, 3, 0), (1, 4, 200)]
    );
    assert_eq!(frames[0].body, "{\"a\\u00e9\":1.0,\"b\":{}}".as_bytes());
    assert_eq!(frames[1].body, large().as_bytes());
    assert_eq!(frames[3].body, b"{}");
    for frame in &frames {
        assert_eq!(
            frame.watermark, frame.offset,
            "every earlier frame was synced first"
        );
    }
    let times = frames.iter().map(|frame| frame.modified);
    assert_eq!(read.highest_modified_ms, times.max());
    let names: Vec<_> = frames
        .iter()
        .map(|f| (f.user.as_str(), f.client.as_str()))
        .collect();
    let expected = [("u", "c"), ("u", "large"), ("u", "c"), ("u", "c")];
    assert_eq!(names[..4], expected);
    assert_eq!(names[4], ("another", "large"));

    let summary = store.disk.bytes(&store.path("log/00000001.sum"));
    check_summary(&summary, &read, segment_bytes, &frames);
}

fn check_summary(summary: &[u8], manifest: &Manifest, segment_bytes: u64, frames: &[Frame]) {
    let mut fields = FieldReader::new(summary);
    let store = file_header(&mut fields, "PREFDSUM", 3, 1);
    assert_eq!(store, manifest.store);
    assert_eq!(
        (fields.number(8), fields.number(4)),
        (segment_bytes, frames.len() as u64)
    );
    let len = |number: u64| usize::try_from(number).unwrap();
    let (entries_bytes, blobs) = (len(fields.number(4)), fields.number(4));
    let details_bytes = len(fields.number(4));
    let crcs = [fields.number(4), fields.number(4)];
    fields.check_crc(28);
    assert_eq!((fields.at, blobs), (64, 1));
    let entries_and_references = fields.take(entries_bytes + 12);
    let details = fields.take(details_bytes);
    assert!(fields.is_at_end());
    assert_eq!(
        crcs,
        [entries_and_references, details].map(|section| u64::from(crc32(section)))
    );
    let (entries, references) = entries_and_references.split_at(entries_bytes);
    let mut references = FieldReader::new(references);
    let reference = (references.number(4), references.number(8));
    assert_eq!(reference, (1, frames[1].blobs[0]));
    let (mut entries, mut details) = (FieldReader::new(entries), FieldReader::new(details));
    let (mut offset, mut revision, mut modified) = (28, 0, 0);
    let mut clients: Vec<String> = Vec::new();
    for frame in frames {
        let first = entries.number(1);
        let mut keys = first >> 3;
        if keys == 31 {
            keys += entries.varint();
        }
        assert_eq!((first & 7, keys), (frame.kind, frame.keys));
        let hash = namespace_hash(&manifest.hash_key, &frame.user, &frame.client);
        assert_eq!(entries.take(16), hash);
        revision = entries.delta(revision);
        let bytes = entries.varint();
        assert_eq!(
            (revision, offset, bytes),
            (frame.revision, frame.offset, frame.bytes)
        );
        offset += bytes;

        assert_eq!(details.text(1), frame.user);
        let client_index = len(details.varint());
        if client_index == clients.len() {
            clients.push(details.text(1).to_owned());
        }
        assert_eq!(clients[client_index], frame.client);
        assert_eq!(details.varint(), frame.body.len() as u64);
        modified = details.delta(modified);
        assert_eq!(modified, frame.modified);
    }
    assert!(entries.is_at_end() && details.is_at_end());
    assert_eq!(offset, segment_bytes);
    assert_eq!(clients, ["c", "large"]);
}

/// A summary has entries of kinds 4 and 5 only if it was rebuilt from damaged frames.
#[test]
fn summary_of_a_damaged_segment_matches_format_md() {
    let store = Store::new();
    let engine = open(&store);
    write_samples(&engine);
    let after = store.crashed(Unsynced::Lost);
    let unsealed = after.files("log", ".seg").pop().unwrap();
    let mut segment = after.disk.bytes(&unsealed);
    let blob = after.disk.bytes(&after.path("blobs/0000000000000001.blob"));
    let first = parse_frame(&segment, 28, &blob);
    let second = parse_frame(&segment, usize::try_from(28 + first.bytes).unwrap(), &blob);
    // Damage the last byte of the first frame's body, and the head of the second frame.
    segment[usize::try_from(27 + first.bytes).unwrap()] ^= 1;
    let at = usize::try_from(second.offset).unwrap();
    segment[at..at + 20].fill(0xee);
    after.disk.overwrite(&unsealed, segment);
    open(&after).close().unwrap();

    let read = manifest(&after.disk.bytes(&after.path("log/manifest")));
    let summary = after.disk.bytes(&unsealed.with_extension("sum"));
    let mut entries = FieldReader::new(&summary[64..]);
    assert_eq!(
        entries.number(1),
        4,
        "expected a damaged frame of a known namespace"
    );
    assert_eq!(entries.take(16), namespace_hash(&read.hash_key, "u", "c"));
    // The next valid frame of this namespace is the third, so this one had at most the revision of
    // the second.
    let highest = entries.delta(0);
    assert_eq!(
        (highest, entries.varint()),
        (first.revision + 1, first.bytes)
    );
    assert_eq!(
        entries.number(1),
        5,
        "expected damaged bytes of an unknown namespace"
    );
    let highest = entries.delta(highest);
    assert_eq!(entries.varint(), second.bytes);
    assert!(highest >= second.revision);
    assert_eq!(
        entries.number(1),
        3,
        "expected the delete that follows the damage"
    );
}

#[test]
fn reserve_files_of_a_new_store_match_format_md() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).unwrap();
    let files = std::fs::read_dir(dir.path().join("log")).unwrap();
    let reserve: Vec<_> = files
        .map(|file| file.unwrap())
        .filter(|file| file.file_name().to_str().unwrap().starts_with("reserve"))
        .collect();
    let empty = reserve
        .iter()
        .filter(|file| file.metadata().unwrap().len() == 0)
        .count();
    assert_eq!(reserve.len(), empty + 1);
    engine.close().unwrap();
    for (page, sentence) in [
        ("format.md", format!("empty files (N: 1 to {empty})")),
        (
            "operations.md",
            format!("{empty} empty files (`log/reserve.1` to `log/reserve.{empty}`)"),
        ),
    ] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../docs")
            .join(page);
        let text = std::fs::read_to_string(&page).unwrap();
        assert!(text.contains(&sentence), "{}: {sentence}", page.display());
    }
}

#[test]
fn mark_and_its_summary_entry_match_format_md() {
    let store = Store::new();
    let mut config = store.config();
    config.mark_delay = Duration::from_millis(1);
    let engine = Engine::open(config).unwrap();
    put(&engine, "c", SMALL).unwrap();
    while engine.metrics().marks == 0 {
        std::thread::yield_now();
    }
    engine.close().unwrap();

    let segment = store.disk.bytes(&store.path("log/00000001.seg"));
    let document = parse_frame(&segment, 28, &[]);
    let mark_at = usize::try_from(28 + document.bytes).unwrap();
    let mark = parse_frame(&segment, mark_at, &[]);
    assert_eq!((mark.kind, mark.watermark), (4, mark_at as u64));
    assert_eq!(
        (mark.revision, mark.modified),
        (document.revision, document.modified)
    );
    assert_eq!(mark.offset + mark.bytes, segment.len() as u64);

    let summary = store.disk.bytes(&store.path("log/00000001.sum"));
    let mut entries = FieldReader::new(&summary[64..]);
    assert_eq!(entries.number(1), 1 | 2 << 3, "a plain put with two keys");
    entries.take(16);
    assert_eq!(entries.delta(0), document.revision);
    assert_eq!(entries.varint(), document.bytes);
    assert_eq!(entries.number(1), 6, "a mark");
    assert_eq!(entries.delta(document.revision), mark.revision);
    assert_eq!(entries.varint(), mark.bytes);
}
