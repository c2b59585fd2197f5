//! The oracle for opening a store with one damaged or forged file:
//!
//! - Opening the store does not panic.
//! - Every read returns the right bytes or an error.
//! - Undamaged data that was synced is still readable.
//! - A second open gives the same results, because an open may serve only data that it has made
//!   durable.
//!
//! An input is a file that replaces one of the store, selected by its magic number. Or the input is
//! a list of choices: the file, the changes to it, and whether to correct its checksums, so that
//! the fuzzer reaches the code behind them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use arbitrary::Unstructured;
use prefd_engine::{Change, Durability, Engine, Error, WriteOptions, fuzzing};

use crate::layout::{FILE_HEADER_BYTES, FrameSpan, MAGIC_2, frames, number, repair};
use crate::oracle::{Choices, choices};
use crate::sim_disk::Unsynced;
use crate::sim_store::{Store, body, read};

/// The document of each namespace.
type Contents = BTreeMap<String, Option<String>>;
/// The result of reading each namespace, or `Err` if the store did not open.
type ReadResults = Result<BTreeMap<String, Result<Option<String>, ()>>, ()>;

/// The key of the namespace hash and the id of the store. They are fixed, so that an input has the
/// same effect on every machine.
const HASH_KEY: [u8; 16] = *b"of the fuzzers'.";
const STORE: u64 = 0x0001_F022_5EED;
/// Number of writes to the sealed segment.
const SEALED: u64 = 6;
/// The write to the sealed segment after which a mark is written.
const MARK_AFTER: u64 = 2;
/// Number of synced writes to the unsealed segment.
const SYNCED: u64 = 4;
/// Number of writes in the last batch, which is not synced.
const LAST_BATCH: u64 = 3;

/// The store that each input damages, with a sealed segment, an unsealed segment, and blobs.
pub struct BaseStore {
    store: Store,
    /// Contents before the first write to the unsealed segment, and after each of these writes.
    history: Vec<Contents>,
}

impl BaseStore {
    /// Creates the store. Except for times and revisions, it is the same on every run.
    #[allow(clippy::new_without_default, reason = "it creates a directory")]
    pub fn new() -> Self {
        let store = Store::without_catalogue();
        let manifest = fuzzing::empty_manifest(HASH_KEY, STORE).unwrap();
        store.disk.place(&store.path("log/manifest"), manifest);
        let mut contents = Contents::new();
        let mut with_marks = store.config();
        with_marks.mark_delay = Duration::from_millis(1);
        let engine = Engine::open(with_marks).unwrap();
        for stamp in 0..SEALED {
            write(&engine, stamp, Durability::Sync, &mut contents);
            while stamp == MARK_AFTER && engine.metrics().marks == 0 {
                std::thread::yield_now();
            }
        }
        engine.close().unwrap();
        let engine = open(&store).unwrap();
        let mut history = vec![contents.clone()];
        for stamp in SEALED..SEALED + SYNCED + LAST_BATCH {
            let durability = if stamp < SEALED + SYNCED {
                Durability::Sync
            } else {
                Durability::Buffered
            };
            write(&engine, stamp, durability, &mut contents);
            history.push(contents.clone());
        }
        let store = store.crashed(Unsynced::Kept);
        Self { store, history }
    }

    /// The files of the store: paths relative to the data directory, and contents.
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let dir = self.store.dir.path();
        let name = |path: &PathBuf| {
            let name = path.strip_prefix(dir).unwrap();
            name.to_string_lossy().into_owned()
        };
        let files = self.store.disk.files();
        let with_bytes = files
            .iter()
            .map(|path| (name(path), self.store.disk.bytes(path)));
        with_bytes.collect()
    }
}

/// Writes a document or deletes one. Every fourth write is a large document.
fn write(engine: &Engine, stamp: u64, durability: Durability, contents: &mut Contents) {
    let is_delete = stamp % 5 == 3;
    // A delete removes the document of the previous write, because deleting an empty namespace
    // writes nothing.
    let client = (stamp - u64::from(is_delete)) * 3 % 5;
    // A large document is never replaced, because its blob is removed at an unpredictable time.
    let (client, size) = match stamp % 4 {
        1 => (format!("large{stamp}"), 2_500),
        _ => (format!("c{client}"), 20),
    };
    let value = (!is_delete).then(|| body(stamp, size));
    let namespace = engine.namespace("u", &client).unwrap();
    let options = WriteOptions {
        durability: Some(durability),
        ..WriteOptions::default()
    };
    let change = value
        .as_ref()
        .map_or(Change::Delete, |body| body.as_bytes().into());
    namespace.write(change, options).unwrap();
    contents.insert(client, value);
}

fn open(store: &Store) -> Result<Engine, Error> {
    store.open()
}

/// Runs the oracle on an input.
pub fn run(input: &[u8]) {
    thread_local! {
        static BASE_STORE: RefCell<Option<BaseStore>> = const { RefCell::new(None) };
    }
    BASE_STORE.with_borrow_mut(|base_store| {
        let base_store = base_store.get_or_insert_with(BaseStore::new);
        match choices(input) {
            Some((file, choices)) => base_store.damage(usize::from(file), choices),
            None => base_store.replace(input),
        }
    });
}

/// The kind of damage to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// Bytes were overwritten in place, cut off, or appended at the end.
    Ordinary,
    /// Arbitrary changes, possibly with correct checksums.
    Forged,
}

impl BaseStore {
    /// Replaces a file of the store.
    fn replace(&self, bytes: &[u8]) {
        let id = number(bytes, 12, 4);
        let name = match bytes.get(..8) {
            Some(b"PREFDMAN") => "log/manifest".to_owned(),
            Some(b"PREFDSUM") => format!("log/{id:08x}.sum"),
            Some(b"PREFDBLB") => format!("blobs/{id:016x}.blob"),
            _ => format!("log/{:08x}.seg", id.clamp(1, 2)),
        };
        self.check_file(&name, bytes, Damage::Forged);
    }

    /// Changes a file of the store as the choices say.
    fn damage(&self, file: usize, mut choices: Unstructured<'_>) {
        let files = self.files();
        let (name, original) = &files[file % files.len()];
        let mut bytes = original.clone();
        let is_forged = choices.upto(1) == 1;
        for _ in 0..=choices.upto(3) {
            let at = choices.upto(bytes.len());
            match choices.upto(if is_forged { 6 } else { 3 }) {
                0 => bytes.truncate(at),
                1 => bytes.extend(choices.some_bytes(200)),
                2 | 3 => {
                    let new = choices.some_bytes(8);
                    let old = bytes.iter_mut().skip(at);
                    old.zip(new).for_each(|(old, new)| *old = new);
                }
                4 => drop(bytes.splice(at..at, choices.some_bytes(80))),
                5 => drop(bytes.drain(at..(at + choices.upto(80)).min(bytes.len()))),
                _ => {
                    // Duplicates a part of the file, for example a frame.
                    let end = (at + choices.upto(400)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    let to = choices.upto(bytes.len());
                    drop(bytes.splice(to..to, part));
                }
            }
        }
        if is_forged && choices.upto(3) > 0 {
            repair(&mut bytes);
        }
        let damage = if is_forged || has_new_frame_starts(&bytes, original) {
            Damage::Forged
        } else {
            Damage::Ordinary
        };
        self.check_file(name, &bytes, damage);
    }

    fn check_file(&self, name: &str, bytes: &[u8], damage: Damage) {
        let copy = self.store.crashed(Unsynced::Kept);
        let path = copy.path(name);
        let original = copy
            .disk
            .files()
            .contains(&path)
            .then(|| copy.disk.bytes(&path));
        copy.disk.place(&path, bytes.to_vec());
        let changed = |original: &Vec<u8>| {
            let same = original
                .iter()
                .zip(bytes)
                .take_while(|(a, b)| a == b)
                .count();
            format!(
                "first changed at {same}, {} bytes of {}",
                bytes.len(),
                original.len()
            )
        };
        let context = || format!("{name} ({damage:?}), {:?}", original.as_ref().map(changed));
        let opened = open(&copy);
        let results = self.results(&opened, &copy, damage, &context);
        if damage == Damage::Ordinary {
            let original = original.as_ref().expect("one of the store's files");
            self.check_damaged(name, original, bytes, &results, &context);
        }
        // Opens the store a second time, as after a power cut at this moment.
        let again = copy.crashed(Unsynced::Lost);
        drop(opened);
        let reopened = open(&again);
        let second = self.results(&reopened, &again, damage, &context);
        if damage == Damage::Forged && second.is_err() && !has_segment_ids(&again) {
            // The first open used the last segment id.
            return;
        }
        assert!(
            is_consistent(&results, &second, damage),
            "the first open gave {results:?}, the second {second:?}: {}",
            context()
        );
    }

    /// Reads every namespace of an opened store.
    fn results(
        &self,
        opened: &Result<Engine, Error>,
        store: &Store,
        damage: Damage,
        context: &dyn Fn() -> String,
    ) -> ReadResults {
        let expect_named = |error: &Error| match error {
            Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. } => {
                assert!(
                    path.starts_with(store.dir.path()),
                    "{error:?}: {}",
                    context()
                );
            }
            // Forged files can cause other errors, because no writer creates such contents.
            _ => assert_eq!(damage, Damage::Forged, "{error:?}: {}", context()),
        };
        let engine = opened.as_ref().map_err(expect_named)?;
        let clients = self.history[self.history.len() - 1]
            .keys()
            .map(String::as_str);
        let results = clients.chain(["never-set"]).map(|client| {
            let found = document(engine, client, damage, context);
            (
                client.to_owned(),
                found.map_err(|error| expect_named(&error)),
            )
        });
        Ok(results.collect())
    }

    /// Checks the results for a store with a file that was damaged but not forged.
    fn check_damaged(
        &self,
        name: &str,
        original: &[u8],
        bytes: &[u8],
        results: &ReadResults,
        context: &dyn Fn() -> String,
    ) {
        let newest = self.history.len() - 1;
        let is_intact =
            |part: std::ops::Range<usize>| bytes.get(part.clone()) == original.get(part);
        let is_whole = is_intact(0..original.len());
        let (least, exactly) = match name {
            // The last segment is unsealed.
            "log/00000002.seg" => {
                let frames = frames(original);
                let intact = |frame: &&FrameSpan| is_intact(frame.bytes.clone());
                let known = frames
                    .iter()
                    .filter(intact)
                    .map(|frame| frame.watermark)
                    .max();
                let known = known.unwrap_or(FILE_HEADER_BYTES);
                let synced = frames.iter().filter(|f| f.bytes.start < known).count();
                let leading = frames.iter().take_while(intact).count();
                let is_known = is_intact(0..FILE_HEADER_BYTES) && leading >= synced;
                (synced, is_known.then_some(leading))
            }
            "log/00000001.sum" => (newest, Some(newest)),
            // Bytes after the recorded length of a sealed segment or a blob are ignored. A manifest
            // must not have additional bytes.
            "log/manifest" => (newest, (bytes == original).then_some(newest)),
            _ => (newest, is_whole.then_some(newest)),
        };
        let Ok(found) = results else {
            assert!(
                exactly.is_none(),
                "the store does not open although nothing essential is damaged: {}",
                context()
            );
            return;
        };
        for (client, found) in found {
            let at = |index: usize| self.history[index].get(client).cloned().flatten();
            if let Some(exactly) = exactly {
                assert_eq!(*found, Ok(at(exactly)), "{client}: {}", context());
            } else if let Ok(found) = found {
                let fits = (least..=newest).any(|index| at(index) == *found);
                assert!(fits, "{client} holds {found:?}: {}", context());
            }
        }
    }
}

/// Returns true if frames may begin at offsets at which the original has none. The checksum of a
/// copied frame is correct, so recovery trusts its statement about the bytes before it.
fn has_new_frame_starts(bytes: &[u8], original: &[u8]) -> bool {
    let begins = |bytes: &[u8], at: usize| bytes[at..].starts_with(MAGIC_2);
    (0..bytes.len()).any(|at| begins(bytes, at) && !(at < original.len() && begins(original, at)))
}

/// Reads a namespace.
fn document(
    engine: &Engine,
    client: &str,
    damage: Damage,
    context: &dyn Fn() -> String,
) -> Result<Option<String>, Error> {
    if damage == Damage::Ordinary {
        return read(engine, client);
    }
    // A forged document need not be UTF-8, but its length must match its metadata.
    let namespace = engine.namespace("u", client)?;
    let stat = namespace.stat()?;
    let Some(document) = namespace.get()? else {
        assert!(stat.is_none(), "{}", context());
        return Ok(None);
    };
    let bytes = document.read()?;
    assert_eq!(Some(*document.stat()), stat, "{}", context());
    assert_eq!(
        bytes.len() as u64,
        document.stat().usage.bytes,
        "{}",
        context()
    );
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Returns true if a segment id is left. A writer never reaches the last id, but a forged manifest
/// can contain it.
fn has_segment_ids(store: &Store) -> bool {
    const NEXT_SEGMENT_AT: usize = 48;
    let manifest = store.disk.bytes(&store.path("log/manifest"));
    number(&manifest, NEXT_SEGMENT_AT, 4) < u64::from(u32::MAX)
}

/// Returns true if the second open gives the same results as the first.
///
/// If the list of blobs is forged, the engine may remove a blob in the background, and a power cut
/// may undo this. So with forged files, an error in either open is allowed, but not a different
/// document.
fn is_consistent(first: &ReadResults, second: &ReadResults, damage: Damage) -> bool {
    match (first, second) {
        (Ok(first), Ok(second)) if damage == Damage::Forged => {
            first.iter().all(|(client, found)| {
                let again = &second[client];
                again == found || again.is_err() || found.is_err()
            })
        }
        (first, second) => first == second,
    }
}
