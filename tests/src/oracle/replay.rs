//! Opening a store of which one file is not what was written: no panic; every read
//! gives right bytes or an error; what is undamaged and was synced is still there; and
//! opening it once more gives the same answers, since an open may only serve what it
//! has made durable.
//!
//! An input is a file, by its magic, that takes the place of the store's own; or a
//! list of choices: which file, what is done to it, and whether its checksums are then
//! made right, so that what lies behind them is reached.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use arbitrary::Unstructured;
use prefd_engine::{Change, Durability, Engine, Error, WriteOptions, fuzzing};

use crate::layout::{FILE_HEADER_BYTES, FramePlace, MAGIC_2, frames, number, repair};
use crate::oracle::{Choices, choices};
use crate::sim_disk::Unsynced;
use crate::sim_store::{Store, body, read};

/// What each namespace holds.
type Contents = BTreeMap<String, Option<String>>;
/// What each namespace gave, `Err` for an error; `Err` where the store did not open.
type Answers = Result<BTreeMap<String, Result<Option<String>, ()>>, ()>;

/// The key of the namespace hash and the id of the store that is damaged: fixed, so
/// that an input means the same on every machine.
const HASH_KEY: [u8; 16] = *b"of the fuzzers'.";
const STORE: u64 = 0x0001_F022_5EED;
/// Writes of the sealed segment, synced ones of the unsealed one, and those of its last
/// batch.
const SEALED: u64 = 6;
const SYNCED: u64 = 4;
const LAST_BATCH: u64 = 3;

/// A store with a sealed segment, an unsealed one, and blobs.
pub struct Base {
    store: Store,
    /// What it held after each write to the unsealed segment, none of them first.
    history: Vec<Contents>,
}

impl Base {
    /// The store. It is the same on every run, but for the times in it.
    #[allow(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let store = Store::without_catalogue();
        let manifest = fuzzing::empty_manifest(HASH_KEY, STORE).unwrap();
        store.disk.place(&store.path("log/manifest"), manifest);
        let mut contents = Contents::new();
        let engine = open(&store).unwrap();
        for stamp in 0..SEALED {
            write(&engine, stamp, Durability::Sync, &mut contents);
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

    /// Its files: names without the directory, and their bytes.
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

/// One write: a replacement, a delete, or now and then a large document.
fn write(engine: &Engine, stamp: u64, durability: Durability, contents: &mut Contents) {
    let is_delete = stamp % 5 == 3;
    // Of what was put just before: where nothing is, nothing would be written.
    let client = (stamp - u64::from(is_delete)) * 3 % 5;
    // A large one is never replaced: its blob would go a moment later, or not yet.
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

/// Judges a whole input.
pub fn run(input: &[u8]) {
    thread_local! {
        static BASE: RefCell<Option<Base>> = const { RefCell::new(None) };
    }
    BASE.with_borrow_mut(|base| {
        let base = base.get_or_insert_with(Base::new);
        match choices(input) {
            Some((file, choices)) => base.damage(usize::from(file), choices),
            None => base.replace(input),
        }
    });
}

/// What was done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// Bytes changed in their place, or cut off, or added at the end.
    Ordinary,
    /// Anything.
    Forged,
}

impl Base {
    /// Puts a file in the place of the store's own of that name.
    fn replace(&self, bytes: &[u8]) {
        let id = number(bytes, 12, 4);
        let name = match bytes.get(..8) {
            Some(b"PREFDMAN") => "log/manifest".to_owned(),
            Some(b"PREFDSUM") => format!("log/{id:08x}.sum"),
            Some(b"PREFDBLB") => format!("blobs/{id:016x}.blob"),
            _ => format!("log/{:08x}.seg", id.clamp(1, 2)),
        };
        self.judge(&name, bytes, Damage::Forged);
    }

    /// Changes one of the store's own.
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
                    // A frame, or any other part, twice.
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
        let damage = if is_forged || has_planted(&bytes, original) {
            Damage::Forged
        } else {
            Damage::Ordinary
        };
        self.judge(name, &bytes, damage);
    }

    fn judge(&self, name: &str, bytes: &[u8], damage: Damage) {
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
        let answers = self.answers(&opened, &copy, damage, &context);
        if damage == Damage::Ordinary {
            let original = original.as_ref().expect("one of the store's files");
            self.check_damaged(name, original, bytes, &answers, &context);
        }
        // Once more, as a power cut right now would have it.
        let again = copy.crashed(Unsynced::Lost);
        drop(opened);
        let reopened = open(&again);
        let second = self.answers(&reopened, &again, damage, &context);
        if damage == Damage::Forged && second.is_err() && !has_segment_ids(&again) {
            // The first open took the last one.
            return;
        }
        assert!(
            is_same(&answers, &second, damage),
            "{answers:?}, and at the second open {second:?}: {}",
            context()
        );
    }

    /// Reads every namespace.
    fn answers(
        &self,
        opened: &Result<Engine, Error>,
        store: &Store,
        damage: Damage,
        context: &dyn Fn() -> String,
    ) -> Answers {
        let expect_named = |error: &Error| match error {
            Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. } => {
                assert!(
                    path.starts_with(store.dir.path()),
                    "{error:?}: {}",
                    context()
                );
            }
            // Who can make a checksum right can write what no writer would.
            _ => assert_eq!(damage, Damage::Forged, "{error:?}: {}", context()),
        };
        let engine = opened.as_ref().map_err(expect_named)?;
        let clients = self.history[self.history.len() - 1]
            .keys()
            .map(String::as_str);
        let answers = clients.chain(["never-set"]).map(|client| {
            let found = document(engine, client, damage, context);
            (
                client.to_owned(),
                found.map_err(|error| expect_named(&error)),
            )
        });
        Ok(answers.collect())
    }

    /// What must hold of a store of which one file was damaged, and not forged.
    fn check_damaged(
        &self,
        name: &str,
        original: &[u8],
        bytes: &[u8],
        answers: &Answers,
        context: &dyn Fn() -> String,
    ) {
        let newest = self.history.len() - 1;
        let is_intact =
            |part: std::ops::Range<usize>| bytes.get(part.clone()) == original.get(part);
        let is_whole = is_intact(0..original.len());
        let (least, exactly) = match name {
            // Segments are begun by the writes after them: the last one is unsealed.
            "log/00000002.seg" => {
                let frames = frames(original);
                let intact = |frame: &&FramePlace| is_intact(frame.bytes.clone());
                let known = frames
                    .iter()
                    .filter(intact)
                    .map(|frame| frame.watermark)
                    .max();
                let known = known.unwrap_or(FILE_HEADER_BYTES);
                let synced = frames.iter().filter(|f| f.bytes.start < known).count();
                let leading = frames.iter().take_while(intact).count();
                let is_told = is_intact(0..FILE_HEADER_BYTES) && leading >= synced;
                (synced, is_told.then_some(leading))
            }
            "log/00000001.sum" => (newest, Some(newest)),
            // What is behind its length is not a part of a sealed segment or a blob.
            "log/manifest" => (newest, (bytes == original).then_some(newest)),
            _ => (newest, is_whole.then_some(newest)),
        };
        let Ok(found) = answers else {
            assert!(exactly.is_none(), "it does not open: {}", context());
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

/// Whether frames may begin where none did: the checksum of one that was copied there holds,
/// so what it says of the bytes before it is believed.
fn has_planted(bytes: &[u8], original: &[u8]) -> bool {
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
    // A forged document need not be text, but it must be of the length it says.
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

/// Whether a segment can be begun: no writer comes to the last id, but one can be forged.
fn has_segment_ids(store: &Store) -> bool {
    const NEXT_SEGMENT_AT: usize = 48;
    let manifest = store.disk.bytes(&store.path("log/manifest"));
    number(&manifest, NEXT_SEGMENT_AT, 4) < u64::from(u32::MAX)
}

/// Whether an open gives the answers of the one before it. Where the list of blobs is
/// forged, a blob is removed in the background, and the power cut may undo that: there
/// is a document, or an error, but never another document.
fn is_same(first: &Answers, second: &Answers, damage: Damage) -> bool {
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
