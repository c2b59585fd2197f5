//! Damage at every offset of a store.
//!
//! The tests flip each bit, truncate each file to each length, remove each file, and swap
//! files of the same kind. After the damage, each read must return the last written document,
//! or an error that names a file of the store. `verify` must report all damage that a read
//! reports.
//!
//! The store is larger than 64 KiB. It has sealed segments, an active segment, blobs,
//! tombstones and replaced documents.
//!
//! By default, the tests flip one bit of each byte, and try every fourth length. With
//! `PREFD_TEST_ALL=1` they try all bits and all lengths, and run for several minutes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use prefd_engine::{Config, Engine, Error, Impact, Verification};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// Whether to try every bit and every length, instead of a sample.
fn is_exhaustive() -> bool {
    std::env::var_os("PREFD_TEST_ALL").is_some()
}

/// The document of each client; `None` if the namespace is empty.
type Contents = BTreeMap<String, Option<String>>;

const CLIENTS: u64 = 24;

/// Writes or deletes one document, and records the change in `contents`.
fn write_one(engine: &Engine, index: u64, stamp: u64, contents: &mut Contents) {
    let client = format!("c{}", (index * 5 + stamp / 20) % CLIENTS);
    let pad_bytes = if index % 6 == 3 { 2_500 } else { 1_000 };
    let value = (index % 9 != 7).then(|| body(stamp, pad_bytes));
    match &value {
        Some(body) => put(engine, &client, body).unwrap(),
        None => delete(engine, &client).unwrap(),
    }
    contents.insert(client, value);
}

/// A store with an active segment, and its contents after each write to that segment, the
/// newest contents last.
fn populated_store() -> (Store, Vec<Contents>) {
    let store = Store::without_catalogue();
    let mut contents: Contents = (0..CLIENTS).map(|i| (format!("c{i}"), None)).collect();
    let mut stamp = 0;
    for _ in 0..3 {
        let engine = store.open().unwrap();
        for index in 0..20 {
            stamp += 1;
            write_one(&engine, index, stamp, &mut contents);
        }
        engine.close().unwrap();
    }
    let engine = store.open().unwrap();
    let mut history = vec![contents.clone()];
    for index in 0..8 {
        stamp += 1;
        write_one(&engine, index, stamp, &mut contents);
        history.push(contents.clone());
    }
    (store.crashed(Unsynced::Lost), history)
}

/// The effects of the damage on a store.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// The store does not open.
    is_refused: bool,
    /// Number of namespaces that cannot be read.
    errors: usize,
    /// Number of writes that are missing at the end of the active segment.
    lost_writes: usize,
}

/// Opens the store, reads every namespace, and checks each result.
fn open_and_read(store: &Store, history: &[Contents], context: &str) -> Outcome {
    let assert_names_file = |error: &Error| match error {
        Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. } => {
            assert!(
                path.starts_with(store.dir.path()),
                "{context}: the error must name a file of the store: {error:?}"
            );
        }
        _ => panic!("{context}: unexpected error: {error:?}"),
    };
    let engine = match store.open() {
        Ok(engine) => engine,
        Err(error) => {
            assert_names_file(&error);
            return Outcome {
                is_refused: true,
                ..Outcome::default()
            };
        }
    };
    if let Some(found) = read(&engine, "never-set").unwrap_or_else(|error| {
        assert_names_file(&error);
        None
    }) {
        panic!("{context}: a namespace that was never written holds {found}");
    }
    let newest = history.last().unwrap();
    let found: Vec<_> = newest
        .keys()
        .map(|client| {
            (
                client,
                read(&engine, client).map_err(|e| assert_names_file(&e)),
            )
        })
        .collect();
    let errors = found.iter().filter(|(_, found)| found.is_err()).count();
    let agrees = |contents: &&Contents| {
        let mut read = found
            .iter()
            .filter_map(|(client, f)| Some((client, f.as_ref().ok()?)));
        read.all(|(client, found)| *found == contents[*client])
    };
    let lost_writes = history.iter().rev().position(|contents| agrees(&contents));
    Outcome {
        is_refused: false,
        errors,
        lost_writes: lost_writes
            .unwrap_or_else(|| panic!("{context}: a read returned stale or wrong contents")),
    }
}

fn run_verify(config: &Config) -> Result<Verification, Error> {
    prefd_engine::verify(config, &mut |_| {})
}

/// Numbers of damaged stores, by effect of the damage.
#[derive(Default)]
struct Tally {
    damaged: AtomicUsize,
    refused: AtomicUsize,
    with_errors: AtomicUsize,
    with_lost_writes: AtomicUsize,
    harmless: AtomicUsize,
    reported_by_verify: AtomicUsize,
}

impl Tally {
    fn count(&self, outcome: &Outcome, is_reported: bool) {
        let add = |counter: &AtomicUsize, condition: bool| {
            counter.fetch_add(usize::from(condition), Ordering::Relaxed);
        };
        add(&self.damaged, true);
        add(&self.refused, outcome.is_refused);
        add(&self.with_errors, outcome.errors > 0);
        add(
            &self.with_lost_writes,
            outcome.errors == 0 && outcome.lost_writes > 0,
        );
        add(&self.harmless, *outcome == Outcome::default());
        add(&self.reported_by_verify, is_reported);
    }

    fn print(&self, what: &str) -> [usize; 6] {
        let counts = [
            &self.damaged,
            &self.refused,
            &self.with_errors,
            &self.with_lost_writes,
            &self.harmless,
            &self.reported_by_verify,
        ]
        .map(|counter| counter.load(Ordering::Relaxed));
        let [damaged, refused, errors, lost_writes, harmless, reported] = counts;
        println!(
            "{what}: {damaged} damaged stores. {refused} did not open, {errors} had unreadable \
             documents, {lost_writes} lost writes at the end of the active segment, and \
             {harmless} returned every document. verify reported the damage of {reported}."
        );
        counts
    }
}

/// Damages the files of copies of a store, and checks each copy. Uses two threads.
///
/// `variants` returns the number of damaged variants of a file, and `damage` returns one of
/// them. In the active segment, the damage may lose `max_lost_writes` writes at the end.
fn sweep(
    what: &str,
    max_lost_writes: usize,
    variants: impl Fn(&[u8]) -> u64 + Sync,
    damage: impl Fn(&[u8], u64) -> Vec<u8> + Sync,
) -> [usize; 6] {
    let (store, history) = populated_store();
    let active = store.files("log", ".seg").pop().unwrap();
    let files: Vec<PathBuf> = store
        .disk
        .files()
        .into_iter()
        // The contents of the reserve have no meaning.
        .filter(|file| !file.ends_with("reserve"))
        .collect();
    let total: usize = files.iter().map(|f| store.disk.bytes(f).len()).sum();
    assert!(total >= 64 * 1024, "the store has only {total} bytes");
    let tally = Tally::default();
    for file in &files {
        let bytes = store.disk.bytes(file);
        // Damage only the first 64 of the preallocated zeros behind the last frame.
        let used = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .unwrap_or_default();
        let range = &bytes[..bytes.len().min(used + 64)];
        let next = AtomicU64::new(0);
        let check_variant = |variant: u64| {
            let context = format!("{what}: {} damaged, variant {variant}", file.display());
            let copy = store.crashed(Unsynced::Kept);
            let damaged = copy.moved(&store, file);
            copy.disk.overwrite(&damaged, damage(&bytes, variant));
            let verified = run_verify(&copy.config());
            let is_reported = is_reported(&verified, &damaged, &context);
            let outcome = open_and_read(&copy, &history, &context);
            let max_lost_writes = if *file == active { max_lost_writes } else { 0 };
            assert!(
                outcome.lost_writes <= max_lost_writes,
                "{context}: {outcome:?}"
            );
            // verify must report all damage that opening or reading the store reports.
            let is_bad = outcome.is_refused || outcome.errors > 0;
            assert!(
                is_reported || !is_bad,
                "{context}: {outcome:?}, {verified:?}"
            );
            tally.count(&outcome, is_reported);
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let variant = next.fetch_add(1, Ordering::Relaxed);
                        if variant >= variants(range) {
                            break;
                        }
                        check_variant(variant);
                    }
                });
            }
        });
    }
    tally.print(what)
}

/// Whether verify reported a problem. Asserts that each problem names the damaged file, or
/// its segment or summary.
fn is_reported(verified: &Result<Verification, Error>, file: &Path, context: &str) -> bool {
    match verified {
        Err(Error::Corrupt { path, .. } | Error::UnsupportedFormat { path, .. }) => {
            assert_eq!(path, file, "{context}");
            true
        }
        Err(error) => panic!("{context}: unexpected error from verify: {error:?}"),
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
fn every_bit_flip_is_detected_or_harmless() {
    let bits = if is_exhaustive() { 8 } else { 1 };
    let [damaged, .., harmless, reported] = sweep(
        "bits",
        1,
        |bytes| bytes.len() as u64 * bits,
        |bytes, variant| {
            let mut changed = bytes.to_vec();
            let at = usize::try_from(variant / bits).unwrap();
            let bit = if is_exhaustive() {
                variant % 8
            } else {
                variant * 5 % 8
            };
            changed[at] ^= 1 << bit;
            changed
        },
    );
    assert!(damaged as u64 > bits * 64 * 1024);
    // verify does not report damage to the last batch, which looks like a write that a crash
    // interrupted.
    assert!(
        reported > damaged * 9 / 10,
        "verify reported only {reported} of {damaged}"
    );
    assert!(harmless < damaged, "all {damaged} were harmless");
}

#[test]
fn every_truncation_is_detected_or_harmless() {
    let stride = if is_exhaustive() { 1 } else { 4 };
    // The remaining part of a truncated active segment does not show that the segment was
    // longer. Any number of writes may be lost.
    let [damaged, ..] = sweep(
        "lengths",
        usize::MAX,
        |bytes| bytes.len() as u64 / stride,
        |bytes, variant| bytes[..usize::try_from(variant * stride).unwrap()].to_vec(),
    );
    assert!(damaged as u64 > 60 * 1024 / stride);
}

#[test]
fn every_missing_file_is_detected_or_harmless() {
    let (store, history) = populated_store();
    let mut with_errors = 0;
    for file in store.disk.files() {
        let context = format!("{} missing", file.display());
        let copy = store.crashed(Unsynced::Kept);
        let missing = copy.moved(&store, &file);
        copy.disk.lose(&missing);
        let verified = run_verify(&copy.config());
        let is_reported = if file.ends_with("manifest") {
            matches!(&verified, Err(Error::Corrupt { path, .. }) if *path == missing)
        } else {
            is_reported(&verified, &missing, &context)
        };
        let outcome = open_and_read(&copy, &history, &context);
        assert_eq!(outcome.lost_writes, 0, "{context}");
        let is_bad = outcome.is_refused || outcome.errors > 0;
        let is_reserve = file
            .file_stem()
            .is_some_and(|stem| stem.to_string_lossy().starts_with("reserve"));
        let is_as_expected = match file.extension().and_then(|extension| extension.to_str()) {
            _ if is_reserve => !is_reported && !is_bad,
            // A summary is rebuilt from its segment.
            Some("sum") => is_reported && !is_bad,
            // All frames of a segment may be stale, so no read needs to fail.
            Some("seg") => is_reported,
            // The blob may be obsolete.
            Some("blob") => is_reported == is_bad,
            _ => is_reported && is_bad,
        };
        assert!(is_as_expected, "{context}: {outcome:?}, {verified:?}");
        with_errors += usize::from(outcome.errors > 0);
    }
    assert!(
        with_errors > 2,
        "only {with_errors} missing files made a document unreadable"
    );
}

#[test]
fn swapped_files_of_the_same_kind_are_detected() {
    let (store, history) = populated_store();
    for (kind, is_needed) in [(".seg", true), (".sum", false), (".blob", true)] {
        let mut files = store.disk.files();
        files.retain(|file| file.to_string_lossy().ends_with(kind));
        let [first, second, ..] = &files[..] else {
            panic!("expected at least two {kind} files: {files:?}");
        };
        let copy = store.crashed(Unsynced::Kept);
        for (file, other) in [(first, second), (second, first)] {
            let bytes = store.disk.bytes(other);
            copy.disk.overwrite(&copy.moved(&store, file), bytes);
        }
        let outcome = open_and_read(&copy, &history, kind);
        assert_eq!(outcome.lost_writes, 0, "{kind}");
        let is_bad = outcome.is_refused || outcome.errors > 0;
        assert_eq!(is_bad, is_needed, "{kind}: {outcome:?}");
    }
}

#[test]
fn verify_of_an_undamaged_store_reports_no_problems() {
    let (store, history) = populated_store();
    let found = run_verify(&store.config()).unwrap();
    assert_eq!(found.problems, []);
    let documents = history.last().unwrap().values().flatten().count() as u64;
    assert_eq!(found.documents, documents);
    assert_eq!((found.segments, found.torn_bytes), (4, 0));
    // verify has not changed any file, and the store still opens.
    let files = store.disk.files().into_iter();
    let files: Vec<_> = files.map(|f| (store.disk.bytes(&f), f)).collect();
    run_verify(&store.config()).unwrap();
    for (bytes, file) in files {
        assert_eq!(store.disk.bytes(&file), bytes);
    }
    let engine = store.open().unwrap();
    assert!(matches!(
        run_verify(&store.config()),
        Err(Error::Locked { .. })
    ));
    engine.compact().unwrap();
    engine.close().unwrap();
    let found = run_verify(&store.config()).unwrap();
    assert_eq!((found.problems, found.documents), (vec![], documents));
}

#[test]
fn verify_names_each_unreadable_document() {
    let (store, history) = populated_store();
    let sealed = store.files("log", ".seg").remove(2);
    let bytes = store.disk.bytes(&sealed);
    let mut named = 0;
    for at in (40..bytes.len()).step_by(200) {
        let copy = store.crashed(Unsynced::Kept);
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        let file = copy.moved(&store, &sealed);
        copy.disk.overwrite(&file, changed);
        let found = run_verify(&copy.config()).unwrap();
        let [problem] = &found.problems[..] else {
            panic!("expected one problem: {:?}", found.problems);
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
            other => panic!("unexpected impact and namespace: {other:?}"),
        }
    }
    assert!(named > 3, "only {named} problems named a document");
}

#[test]
fn verify_reports_a_lost_document_of_unknown_namespace() {
    let (store, _) = populated_store();
    let sealed = store.files("log", ".seg").remove(1);
    let mut bytes = store.disk.bytes(&sealed);
    // Flip two bits in the header of the first frame. The checksum identifies a single wrong
    // bit, and with it the namespace, but not two wrong bits.
    bytes[28 + 10] ^= 1;
    bytes[28 + 20] ^= 1;
    store.disk.overwrite(&sealed, bytes);
    store.disk.lose(&sealed.with_extension("sum"));
    for context in ["summary missing", "summary rebuilt"] {
        let found = run_verify(&store.config()).unwrap();
        let impacts: Vec<_> = found
            .problems
            .iter()
            .map(|problem| problem.impact)
            .collect();
        assert!(
            impacts.contains(&Impact::Document),
            "{context}: {impacts:?}"
        );
        assert!(
            found
                .problems
                .iter()
                .any(|p| p.path == sealed && p.offset == 28)
        );
        store.open().unwrap().close().unwrap();
    }
}
