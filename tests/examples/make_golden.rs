//! Creates a golden data directory in the current format version. Each directory in
//! `tests/fixtures` was created once with this program.
//!
//! Never recreate the directory of an existing format version. The golden directories test that
//! later versions can read files that an old version wrote.
//!
//! `cargo run -p prefd-tests --example make_golden -- tests/fixtures/format-N`
//!
//! The directory contains segments that were sealed because they were full, segments that were
//! sealed by a close, an unsealed segment with a torn tail, overwritten documents, tombstones,
//! documents above the inline size, and a mark. The unsealed segment also contains a frame that the
//! engine does not write yet: a document with extents, inline values, and values of earlier writes.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use prefd_engine::{Change, Config, Engine, WriteOptions};
use prefd_tests::layout::{FrameHead, frames, push_varint, varint};
use prefd_tests::put_ext::PutExt;
use serde_json::json;

/// A small inline size, so that small documents are stored in blobs.
const INLINE_BYTES: u32 = 2048;
const NAMESPACES: u64 = 24;
/// The write numbers at which the engine is closed and opened again. The writes before the first
/// close fill one segment and begin a second.
const CLOSES_AT: [u64; 2] = [60, 80];
/// The write number at which the engine crashes.
const CRASH_AT: u64 = 88;
/// Number of bytes that the crash cuts off the last frame.
const TORN_BYTES: usize = 30;
/// The write number after which the program waits for a mark.
const MARK_AFTER: u64 = 84;
/// User and client of the document with extents, inline values, and values of earlier writes.
const MIXED: (&str, &str) = ("user-0", "mixed");

/// Revision and text of each document, by (user, client). `None` if the document was deleted.
type Listing = BTreeMap<(String, String), Option<(u64, String)>>;

fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args_os().nth(1).ok_or("usage: make_golden DIR")?;
    let target = Path::new(&target);
    if target.exists() {
        return Err(format!(
            "{} already exists, and a golden directory must not be overwritten",
            target.display()
        )
        .into());
    }
    let live = tempfile::tempdir()?;
    let mut config = Config::new(live.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = INLINE_BYTES;
    // Superseded frames must stay, and no reserve file is needed.
    config.background_compaction = false;
    config.reserve_bytes = 0;
    let mut listing = Listing::new();

    let mut write = 0;
    for end in CLOSES_AT {
        let engine = Engine::open(config.clone())?;
        for write in write..end {
            change(&engine, write, &mut listing)?;
        }
        engine.close()?;
        write = end;
    }
    let engine = Engine::open(config)?;
    for write in write..CRASH_AT {
        change(&engine, write, &mut listing)?;
        if write == MARK_AFTER {
            while engine.metrics().marks == 0 {
                std::thread::yield_now();
            }
        }
    }
    let mixed = engine.namespace(MIXED.0, MIXED.1)?;
    let large = format!(r#"{{"large":"{}"}}"#, "0123456789".repeat(700));
    mixed.put(large.as_bytes(), WriteOptions::default())?;
    // The frame of this write is torn below, so the write is not listed.
    let torn = engine.namespace("user-0", "client-0")?;
    torn.put(br#"{"torn":true}"#, WriteOptions::default())?;
    let newest = copy_log_and_blobs(live.path(), &target.join("data"))?;
    let mut segment = fs::read(&newest)?;
    let end = frames(&segment).pop().ok_or("no frame to tear")?.bytes.end;
    segment.truncate(end - TORN_BYTES);
    let (revision, text) = insert_mixed_frame(&mut segment).ok_or("no frame to change")?;
    fs::write(newest, segment)?;
    let (user, client) = (MIXED.0.to_owned(), MIXED.1.to_owned());
    listing.insert((user, client), Some((revision, text)));

    let mut lines = fs::File::create(target.join("documents.jsonl"))?;
    for ((user, client), found) in &listing {
        let (revision, text) = found.as_ref().map(|(r, t)| (*r, t.as_str())).unzip();
        let line = json!({"user": user, "client": client, "revision": revision, "text": text});
        writeln!(lines, "{line}")?;
    }
    Ok(())
}

/// Inserts a frame after the last complete frame of the segment, whose document has one value in a
/// blob. The new document has the same value in the blob, and three inline values. Returns the
/// revision and the text of the new document.
fn insert_mixed_frame(segment: &mut Vec<u8>) -> Option<(u64, String)> {
    let last = frames(segment).pop()?;
    let (head, head_bytes) = FrameHead::read(segment.get(last.bytes.clone())?)?;
    let metadata_at = last.bytes.start + head_bytes;
    // The metadata of the document begins with the highest revision 0 and the highest time 0. One
    // record follows: the lengths of the key and the value, the attributes, the codec, the extent.
    let metadata = segment
        .get(metadata_at..)?
        .get(..usize::try_from(head.lengths()?.0).ok()?)?;
    let (value_bytes, extent_at) = varint(metadata, 3)?;
    let extent = metadata.get(extent_at + 2..)?;
    let (revision, modified_ms) = (head.revision, head.modified_ms);
    let mut mixed = Vec::new();
    push_varint(&mut mixed, revision);
    push_varint(&mut mixed, modified_ms);
    // "old" was set two writes before, "large" by the write before, "new" and "" by this write.
    mixed.extend_from_slice(&[5, 4, 1, 0, 1, 100]);
    mixed.push(7);
    push_varint(&mut mixed, value_bytes);
    mixed.extend_from_slice(&[3, 0, 0, 0]);
    mixed.extend_from_slice(extent);
    mixed.extend_from_slice(&[5, 7, 0, 0]);
    mixed.extend_from_slice(&[2, 2, 0, 0]);
    let inline = r#"{"old":1e-2,"large":,"new":[ 1, 2],"":{}}"#;
    let head = FrameHead {
        revision: revision + 1,
        modified_ms: modified_ms + 1000,
        unsynced_bytes: 0,
        ..head
    };
    let frame = head.with_metadata(&mixed, inline.as_bytes());
    segment.splice(last.bytes.end..last.bytes.end, frame);
    let large = format!(r#""large":"{}""#, "0123456789".repeat(700));
    Some((revision + 1, inline.replace(r#""large":"#, &large)))
}

/// Makes the change with the given number, which is the same in every run.
fn change(engine: &Engine, write: u64, listing: &mut Listing) -> Result<(), Box<dyn Error>> {
    let index = (write * 7 + write / NAMESPACES) % NAMESPACES;
    let (user, client) = (format!("user-{}", index % 3), format!("client-{index}"));
    let namespace = engine.namespace(&user, &client)?;
    let found = if write % 11 == 7 {
        namespace.write(Change::Delete, WriteOptions::default())?;
        None
    } else {
        let text = document(write);
        let revision = namespace.put(text.as_bytes(), WriteOptions::default())?;
        Some((revision.get(), text))
    };
    listing.insert((user, client), found);
    Ok(())
}

/// Creates a document. Some documents are stored in a blob, and some are empty. All others contain
/// whitespace and escapes that a JSON serializer would not reproduce.
fn document(write: u64) -> String {
    let pad = match write % 30 {
        11 => 5_000,
        15 => return "{}".to_owned(),
        // A value with more than one checksum.
        25 if write > 80 => 66_000,
        other => 900 + other * 30,
    };
    let pad = "0123456789".repeat(usize::try_from(pad / 10).unwrap_or_default());
    format!(
        "{{\"write\":{write},\"k\\u00e9y\":1.50e+1,\"\u{e9}\":[ true , null ],\"pad\":\"{pad}\"}}"
    )
}

/// Copies log and blobs as a crash at this moment would leave them. Returns the newest segment.
fn copy_log_and_blobs(from: &Path, to: &Path) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let mut newest = None;
    for folder in ["log", "blobs"] {
        fs::create_dir_all(to.join(folder))?;
        for file in fs::read_dir(from.join(folder))? {
            let file = file?;
            let copy = to.join(folder).join(file.file_name());
            fs::copy(file.path(), &copy)?;
            if copy.extension().is_some_and(|extension| extension == "seg") {
                newest = newest.max(Some(copy));
            }
        }
    }
    Ok(newest.ok_or("no segment was written")?)
}
