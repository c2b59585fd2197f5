//! Damage at any place. Every single bit of a store, flipped; every length that a file can
//! be cut to; every file gone, or in another's place: each read gives what was written
//! last, or an error that names a file, and `verify` finds what is wrong. Counted, over a
//! store of more than 64 KiB with sealed segments, an unsealed one, blobs, tombstones and
//! overwrites.
//!
//! By default one bit of each byte, and every fourth length; with `PREFD_TEST_ALL=1`
//! all of them, which takes minutes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prefd_engine::{Config, Engine, Error, Impact, Verification};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

fn all() -> bool {
    std::env::var_os("PREFD_TEST_ALL").is_some()
}

/// What each namespace holds.
type Contents = BTreeMap<String, Option<String>>;

const CLIENTS: u64 = 24;

fn furnish(engine: &Engine, index: u64, stamp: u64, contents: &mut Contents) {
    let client = format!("c{}", (index * 5 + stamp / 20) % CLIENTS);
    let pad_bytes = if index % 6 == 3 { 2_500 } else { 900 };
    let value = (index % 9 != 7).then(|| body(stamp, pad_bytes));
    match &value {
        Some(body) => put(engine, &client, body).unwrap(),
        None => delete(engine, &client).unwrap(),
    }
    contents.insert(client, value);
}

/// The store, and what it held after each write to its unsealed segment, the newest last.
fn furnished() -> (Store, Vec<Contents>) {
    let store = Store::without_catalogue();
    let mut contents: Contents = (0..CLIENTS).map(|i| (format!("c{i}"), None)).collect();
    let mut stamp = 0;
    for _ in 0..3 {
        let engine = store.open().unwrap();
        for index in 0..20 {
            stamp += 1;
            furnish(&engine, index, stamp, &mut contents);
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    let mut history = vec![contents.clone()];
    for index in 0..8 {
        stamp += 1;
        furnish(&engine, index, stamp, &mut contents);
        history.push(contents.clone());
    }
    (store.crashed(Unsynced::Lost), history)
}

/// What became of a damaged store.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// It does not open.
    is_refused: bool,
    /// Namespaces that gave an error.
    errors: usize,
    /// Writes at the end of the unsealed segment that are gone.
    torn: usize,
}

/// Opens and reads all of it.
fn examine(store: &Store, history: &[Contents], context: &str) -> Outcome {
    let expect_named = |error: &Error| match error {
        Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. } => {
            assert!(path.starts_with(store.dir.path()), "{context}: {error:?}");
        }
        _ => panic!("{context}: {error:?}"),
    };
    let engine = match store.open() {
        Ok(engine) => engine,
        Err(error) => {
            expect_named(&error);
            return Outcome {
                is_refused: true,
                ..Outcome::default()
            };
        }
    };
    if let Some(found) = read(&engine, "never-set").unwrap_or_else(|error| {
        expect_named(&error);
        None
    }) {
        panic!("{context}: {found}");
    }
    let newest = history.last().unwrap();
    let found: Vec<_> = newest
        .keys()
        .map(|client| (client, read(&engine, client).map_err(|e| expect_named(&e))))
        .collect();
    let errors = found.iter().filter(|(_, found)| found.is_err()).count();
    let agrees = |contents: &&Contents| {
        let mut read = found
            .iter()
            .filter_map(|(client, f)| Some((client, f.as_ref().ok()?)));
        read.all(|(client, found)| *found == contents[*client])
    };
    let torn = history.iter().rev().position(|contents| agrees(&contents));
    Outcome {
        is_refused: false,
        errors,
        torn: torn.unwrap_or_else(|| panic!("{context}: not what was written last, no error")),
    }
}

fn verified(config: &Config) -> Result<Verification, Error> {
    prefd_engine::verify(config, &mut |_| {})
}

/// Counts of what damage led to.
#[derive(Default)]
struct Tally {
    damaged: AtomicUsize,
    refused: AtomicUsize,
    with_errors: AtomicUsize,
    torn: AtomicUsize,
    harmless: AtomicUsize,
    found_by_verify: AtomicUsize,
}

impl Tally {
    fn count(&self, outcome: &Outcome, is_found: bool) {
        let add = |counter: &AtomicUsize, is: bool| {
            counter.fetch_add(usize::from(is), Ordering::Relaxed);
        };
        add(&self.damaged, true);
        add(&self.refused, outcome.is_refused);
        add(&self.with_errors, outcome.errors > 0);
        add(&self.torn, outcome.errors == 0 && outcome.torn > 0);
        add(&self.harmless, *outcome == Outcome::default());
        add(&self.found_by_verify, is_found);
    }

    fn print(&self, what: &str) -> [usize; 6] {
        let counts = [
            &self.damaged,
            &self.refused,
            &self.with_errors,
            &self.torn,
            &self.harmless,
            &self.found_by_verify,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        let [damaged, refused, errors, torn, harmless, found] = counts;
        println!(
            "{what}: {damaged} damaged stores: {refused} refused to open, {errors} gave errors, \
             {torn} lost the torn end of the unsealed segment, {harmless} gave every document; \
             verify found {found}"
        );
        counts
    }
}

/// Damages one file after the other, in ways that are numbered, on two threads.
fn sweep(
    what: &str,
    max_torn: usize,
    ways: impl Fn(&[u8]) -> u64 + Sync,
    damage: impl Fn(&[u8], u64) -> Vec<u8> + Sync,
) -> [usize; 6] {
    let (store, history) = furnished();
    let unsealed = store.files("log", ".seg").pop().unwrap();
    let files: Vec<PathBuf> = store
        .disk
        .files()
        .into_iter()
        // What it holds is only there to take up space.
        .filter(|file| !file.ends_with("reserve"))
        .collect();
    let total: usize = files.iter().map(|f| store.disk.bytes(f).len()).sum();
    assert!(total >= 64 * 1024, "{total}");
    let tally = Tally::default();
    for file in &files {
        let bytes = store.disk.bytes(file);
        // Of the room behind the last frame, the beginning will do.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .unwrap_or_default();
        let damaged = &bytes[..bytes.len().min(used + 64)];
        let next = AtomicU64::new(0);
        let one = |way: u64| {
            let context = format!("{what}: {} damaged, way {way}", file.display());
            let copy = store.crashed(Unsynced::Kept);
            let damaged = copy.moved(&store, file);
            copy.disk.overwrite(&damaged, damage(&bytes, way));
            let verified = verified(&copy.config());
            let is_found = is_found(&verified, &damaged, &context);
            let outcome = examine(&copy, &history, &context);
            let max_torn = if *file == unsealed { max_torn } else { 0 };
            assert!(outcome.torn <= max_torn, "{context}: {outcome:?}");
            // What a read reports, verify does, and says that it does harm.
            let is_bad = outcome.is_refused || outcome.errors > 0;
            assert!(is_found || !is_bad, "{context}: {outcome:?}, {verified:?}");
            tally.count(&outcome, is_found);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let way = next.fetch_add(1, Ordering::Relaxed);
                        if way >= ways(damaged) {
                            break;
                        }
                        one(way);
                    }
                });
            }
        });
    }
    tally.print(what)
}

/// Whether verify said that something is wrong, with this very file.
fn is_found(verified: &Result<Verification, Error>, file: &Path, context: &str) -> bool {
    match verified {
        Err(Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. }) => {
            assert_eq!(path, file, "{context}");
            true
        }
        Err(error) => panic!("{context}: {error:?}"),
        Ok(found) => {
            for problem in &found.problems {
                let stem = |path: &Path| path.file_stem().map(std::ffi::OsStr::to_owned);
                assert_eq!(stem(&problem.path), stem(file), "{context}: {problem:?}");
            }
            !found.problems.is_empty()
        }
    }
}

#[test]
fn every_single_bit_that_is_flipped_is_detected_or_harmless() {
    let bits = if all() { 8 } else { 1 };
    let [damaged, .., harmless, found] = sweep(
        "bits",
        1,
        |bytes| bytes.len() as u64 * bits,
        |bytes, way| {
            let mut changed = bytes.to_vec();
            let at = usize::try_from(way / bits).unwrap();
            let bit = if all() { way % 8 } else { way * 5 % 8 };
            changed[at] ^= 1 << bit;
            changed
        },
    );
    assert!(damaged as u64 > bits * 64 * 1024);
    // Nothing but frames and blobs that nothing current needs, summaries that are made
    // again, and the last batch, which was never known to be on the disk.
    assert!(found > damaged * 9 / 10, "{found} of {damaged}");
    assert!(harmless < damaged, "{harmless} of {damaged}");
}

#[test]
fn every_length_that_a_file_is_cut_to_is_detected_or_harmless() {
    let stride = if all() { 1 } else { 4 };
    // What tells that the unsealed segment was longer is in the part that is cut off.
    let [damaged, ..] = sweep(
        "lengths",
        usize::MAX,
        |bytes| bytes.len() as u64 / stride,
        |bytes, way| bytes[..usize::try_from(way * stride).unwrap()].to_vec(),
    );
    assert!(damaged as u64 > 60 * 1024 / stride);
}

#[test]
fn any_missing_file_is_detected_or_harmless() {
    let (store, history) = furnished();
    let mut with_errors = 0;
    for file in store.disk.files() {
        let context = format!("{} missing", file.display());
        let copy = store.crashed(Unsynced::Kept);
        let missing = copy.moved(&store, &file);
        copy.disk.lose(&missing);
        let verified = verified(&copy.config());
        let is_found = if file.ends_with("manifest") {
            matches!(verified, Err(Error::NotAStore { .. }))
        } else {
            is_found(&verified, &missing, &context)
        };
        let outcome = examine(&copy, &history, &context);
        assert_eq!(outcome.torn, 0, "{context}");
        let is_bad = outcome.is_refused || outcome.errors > 0;
        let is_right = match file.extension().and_then(|extension| extension.to_str()) {
            // It can be made again.
            Some("sum") => is_found && !is_bad,
            // Nothing in it may be current.
            Some("seg") => is_found,
            // It may be one that waits to be removed.
            Some("blob") => is_found == is_bad,
            None if file.ends_with("reserve") => !is_found && !is_bad,
            _ => is_found && is_bad,
        };
        assert!(is_right, "{context}: {outcome:?}, {verified:?}");
        with_errors += usize::from(outcome.errors > 0);
    }
    assert!(with_errors > 2, "{with_errors}");
}

#[test]
fn files_of_one_kind_in_each_others_place_are_detected() {
    let (store, history) = furnished();
    for (kind, is_needed) in [(".seg", true), (".sum", false), (".blob", true)] {
        let mut files = store.disk.files();
        files.retain(|file| file.to_string_lossy().ends_with(kind));
        let [first, second, ..] = &files[..] else {
            panic!("{files:?}");
        };
        let copy = store.crashed(Unsynced::Kept);
        for (file, other) in [(first, second), (second, first)] {
            let bytes = store.disk.bytes(other);
            copy.disk.overwrite(&copy.moved(&store, file), bytes);
        }
        let outcome = examine(&copy, &history, kind);
        assert_eq!(outcome.torn, 0, "{kind}");
        let is_bad = outcome.is_refused || outcome.errors > 0;
        assert_eq!(is_bad, is_needed, "{kind}: {outcome:?}");
    }
}

#[test]
fn verify_finds_nothing_wrong_with_a_store_that_is_not_damaged() {
    let (store, history) = furnished();
    let found = verified(&store.config()).unwrap();
    assert_eq!(found.problems, []);
    let documents = history.last().unwrap().values().flatten().count() as u64;
    assert_eq!(found.documents, documents);
    assert_eq!((found.segments, found.torn_bytes), (4, 0));
    // Looking has changed nothing, and what is there opens.
    let files = store.disk.files().into_iter();
    let files: Vec<_> = files.map(|f| (store.disk.bytes(&f), f)).collect();
    verified(&store.config()).unwrap();
    for (bytes, file) in files {
        assert_eq!(store.disk.bytes(&file), bytes);
    }
    let engine = store.open().unwrap();
    assert!(matches!(
        verified(&store.config()),
        Err(Error::Locked { .. })
    ));
    engine.compact().unwrap();
    engine.close().unwrap();
    let found = verified(&store.config()).unwrap();
    assert_eq!((found.problems, found.documents), (vec![], documents));
}

#[test]
fn verify_names_the_document_that_cannot_be_read() {
    let (store, history) = furnished();
    let sealed = store.files("log", ".seg").remove(2);
    let bytes = store.disk.bytes(&sealed);
    let mut named = 0;
    for at in (40..bytes.len()).step_by(200) {
        let copy = store.crashed(Unsynced::Kept);
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let file = copy.moved(&store, &sealed);
        copy.disk.overwrite(&file, changed);
        let found = verified(&copy.config()).unwrap();
        let [problem] = &found.problems[..] else {
            panic!("{:?}", found.problems);
        };
        assert_eq!(problem.path, file);
        let engine = copy.open().unwrap();
        let unreadable: Vec<_> = history[0]
            .keys()
            .filter(|client| read(&engine, client).is_err())
            .collect();
        match (problem.impact, &problem.namespace) {
            (Impact::Nothing, _) => assert_eq!(unreadable, Vec::<&String>::new()),
            (Impact::Document, Some((user, client))) => {
                assert_eq!((&**user, unreadable), ("u", vec![client]));
                named += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(named > 3, "{named}");
}

#[test]
fn verify_says_so_where_it_cannot_be_told_whose_document_is_lost() {
    let (store, _) = furnished();
    let sealed = store.files("log", ".seg").remove(1);
    let mut bytes = store.disk.bytes(&sealed);
    // Two bits of the head of the first frame: of one it can be told which it is.
    bytes[28 + 10] ^= 1;
    bytes[28 + 20] ^= 1;
    store.disk.overwrite(&sealed, bytes);
    store.disk.lose(&sealed.with_extension("sum"));
    for summaries in ["one summary is missing", "it was made again"] {
        let found = verified(&store.config()).unwrap();
        let harms: Vec<_> = found
            .problems
            .iter()
            .map(|problem| problem.impact)
            .collect();
        assert!(harms.contains(&Impact::Document), "{summaries}: {harms:?}");
        assert!(
            found
                .problems
                .iter()
                .any(|p| p.path == sealed && p.offset == 28)
        );
        store.open().unwrap().close().unwrap();
    }
}
