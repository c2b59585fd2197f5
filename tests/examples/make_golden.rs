//! Makes a golden data directory of the format that this version writes: what those in
//! `tests/fixtures` were made with, each once. Never run it for a format that has
//! its directory already: what it is for is that later versions read old bytes.
//!
//! `cargo run -p prefd-tests --example make_golden -- tests/fixtures/format-N`
//!
//! It holds sealed segments (by growth and by a close), an unsealed one with a torn
//! tail, overwrites, tombstones, and documents past the inline size.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use prefd_engine::{Change, Config, Engine, WriteOptions};
use prefd_tests::put::Put;
use serde_json::json;

/// Small, so that few bytes make many segments and blobs.
const INLINE_BYTES: u32 = 2048;
const NAMESPACES: u64 = 24;
/// Where each life's writes end. The first fills a segment and begins a second; the last
/// one ends in a crash.
const LIVES: [u64; 2] = [60, 80];
const CRASHED_LIFE: u64 = 88;
/// What a crash tore off the last frame.
const TORN_BYTES: u64 = 30;

/// (user, client) → revision and text, `None` where it was deleted.
type Listing = BTreeMap<(String, String), Option<(u64, String)>>;

fn main() -> Result<(), Box<dyn Error>> {
    let target = std::env::args_os().nth(1).ok_or("usage: make_golden DIR")?;
    let target = Path::new(&target);
    if target.exists() {
        return Err(format!("{} is there, and stays as it is", target.display()).into());
    }
    let live = tempfile::tempdir()?;
    let mut config = Config::new(live.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = INLINE_BYTES;
    // Nothing that is superseded is to go, and nothing to take up space.
    config.background_compaction = false;
    config.reserve_bytes = 0;
    let mut listing = Listing::new();

    let mut write = 0;
    for end in LIVES {
        let engine = Engine::open(config.clone())?;
        for write in write..end {
            change(&engine, write, &mut listing)?;
        }
        engine.close()?;
        write = end;
    }
    let engine = Engine::open(config)?;
    for write in write..CRASHED_LIFE {
        change(&engine, write, &mut listing)?;
    }
    // This one's frame is torn below: no listing has it.
    let torn = engine.namespace("user-0", "client-0")?;
    torn.put(br#"{"torn":true}"#, WriteOptions::default())?;
    let newest = copy_log_and_blobs(live.path(), &target.join("data"))?;
    let file = fs::OpenOptions::new().write(true).open(newest)?;
    file.set_len(file.metadata()?.len() - TORN_BYTES)?;

    let mut lines = fs::File::create(target.join("documents.jsonl"))?;
    for ((user, client), found) in &listing {
        let (revision, text) = found.as_ref().map(|(r, t)| (*r, t.as_str())).unzip();
        let line = json!({"user": user, "client": client, "revision": revision, "text": text});
        writeln!(lines, "{line}")?;
    }
    Ok(())
}

/// The change with this number, the same whenever it is made.
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

/// Some go to a blob, one is empty, and none reads back as a parser would write it.
fn document(write: u64) -> String {
    let pad = match write % 30 {
        11 => 5_000,
        15 => return "{}".to_owned(),
        // More than one checksum covers.
        25 if write > 80 => 66_000,
        other => 900 + other * 30,
    };
    let pad = "0123456789".repeat(usize::try_from(pad / 10).unwrap_or_default());
    format!(
        "{{\"write\":{write},\"k\\u00e9y\":1.50e+1,\"\u{e9}\":[ true , null ],\"pad\":\"{pad}\"}}"
    )
}

/// Copies what counts, as a crash at this moment leaves it; the newest segment.
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
