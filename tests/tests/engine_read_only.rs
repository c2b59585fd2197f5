//! Stores that are open for reading only: the engine reads them in every state that a crash can
//! leave behind, and changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prefd_engine::{Change, Config, DirectoryLock, Engine, Error, WriteOptions, stats, verify};
use prefd_tests::directory_state::{assert_unchanged, directory_state};
use prefd_tests::golden::{FORMATS, Golden, check_all};
use prefd_tests::random::seeds;
use prefd_tests::sim_disk::{SimDisk, Unsynced};
use prefd_tests::sim_model::unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};
use prefd_tests::snapshot_copy;

/// Larger than [`Config::inline_bytes`] of these tests, so that the document is stored in a blob.
const LARGE_BYTES: usize = 5_000;
/// The clients that the tests write.
const CLIENTS: [&str; 6] = ["c0", "c1", "c2", "c3", "c4", "large"];

/// Small segments and a small inline size. A mark would be written at any time.
fn config(dir: &Path) -> Config {
    let mut config = Config::new(dir);
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    config.reserve_bytes = 16 * 1024;
    config.background_compaction = false;
    config.mark_delay = Duration::MAX;
    config
}

fn read_only(config: &Config) -> Config {
    let mut config = config.clone();
    config.read_only = true;
    config
}

fn open_read_only(dir: &Path) -> Result<Engine, Error> {
    Engine::open(read_only(&config(dir)))
}

/// Writes the documents of [`CLIENTS`] so often that several segments are filled, and deletes one.
fn write_documents(engine: &Engine) {
    for stamp in 0..60 {
        put(engine, CLIENTS[stamp % 5], &body(stamp as u64, 1_900)).unwrap();
    }
    put(engine, "large", &body(60, LARGE_BYTES)).unwrap();
    delete(engine, "c3").unwrap();
    put(engine, "c4", "{}").unwrap();
}

/// The documents of [`CLIENTS`], with their revisions.
fn documents(engine: &Engine) -> BTreeMap<&'static str, (u64, String)> {
    let document = |client| {
        let text = read(engine, client).unwrap()?;
        let revision = engine.namespace("u", client).unwrap().revision().unwrap()?;
        Some((client, (revision.get(), text)))
    };
    CLIENTS.into_iter().filter_map(document).collect()
}

/// The listing of all documents: the revision and the length of each one.
fn listing(engine: &Engine) -> Vec<(String, u64, u64)> {
    let entries = engine.list_all(None, usize::MAX).unwrap();
    let entry = |(user, entry): (String, prefd_engine::CatalogueEntry)| {
        assert_eq!(user, "u");
        (
            entry.client,
            entry.stat.revision.get(),
            entry.stat.usage.bytes,
        )
    };
    entries.into_iter().map(entry).collect()
}

fn check_listing(engine: &Engine) {
    let listed: Vec<_> = documents(engine)
        .into_iter()
        .map(|(client, (revision, text))| (client.to_owned(), revision, text.len() as u64))
        .collect();
    assert_eq!(listing(engine), listed);
    let usage = engine.usage("u").unwrap();
    assert_eq!(usage.namespaces, listed.len() as u64);
    assert_eq!(engine.documents(), listed.len() as u64);
}

/// Copies the files of a store while an engine has it open, as if the engine were killed.
fn killed_copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["log", "blobs"] {
        fs::create_dir(copy.path().join(folder)).unwrap();
        for file in fs::read_dir(dir.join(folder)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.path().join(folder).join(file.file_name())).unwrap();
        }
    }
    copy
}

fn files(dir: &Path, folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join(folder))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    files.sort();
    files
}

/// Reads a store with every reading function, checks that nothing has changed, and compares the
/// documents with those that a normal open finds afterwards.
fn check_store(dir: &Path, context: &str) {
    let before = directory_state(dir);
    let engine = open_read_only(dir).unwrap();
    let found = documents(&engine);
    check_listing(&engine);
    let (copy, copied) = snapshot_copy::open_copy(&engine.snapshot().unwrap());
    assert_eq!(documents(&copied), found, "{context}");
    drop((copied, copy));
    let dropped = engine.dropped_tail().cloned();
    engine.close().unwrap();
    let verified = verify(&config(dir), &mut |_| {}).unwrap();
    assert_eq!(verified.problems, [], "{context}");
    assert_eq!(verified.documents, found.len() as u64, "{context}");
    let counted = stats(&config(dir)).unwrap();
    assert_eq!(counted.documents, found.len() as u64, "{context}");
    assert_unchanged(dir, &before, context);

    let writable = Engine::open(config(dir)).unwrap();
    assert_eq!(documents(&writable), found, "{context}");
    assert_eq!(writable.dropped_tail(), dropped.as_ref(), "{context}");
}

#[test]
fn closed_store_is_read_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    engine.close().unwrap();
    check_store(dir.path(), "closed");
}

#[test]
fn snapshot_of_a_closed_store_has_the_bytes_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    engine.close().unwrap();
    let reader = open_read_only(dir.path()).unwrap();
    let found = snapshot_copy::files(&reader.snapshot().unwrap());
    reader.close().unwrap();
    for (path, bytes) in &found {
        assert!(*bytes == fs::read(dir.path().join(path)).unwrap(), "{path}");
    }
    let writable = Engine::open(config(dir.path())).unwrap();
    assert!(snapshot_copy::files(&writable.snapshot().unwrap()) == found);
}

#[test]
fn every_write_to_a_read_only_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    engine.close().unwrap();
    let before = directory_state(dir.path());
    let reader = open_read_only(dir.path()).unwrap();
    let found = documents(&reader);
    let namespace = reader.namespace("u", "c0").unwrap();
    let large = body(1, LARGE_BYTES);
    let mut streamed = reader.writer();
    let outcomes = [
        namespace.write(b"{}", WriteOptions::default()).map(drop),
        namespace
            .write(large.as_bytes(), WriteOptions::default())
            .map(drop),
        namespace
            .write(Change::Delete, WriteOptions::default())
            .map(drop),
        namespace
            .submit(b"{}", WriteOptions::default())
            .wait()
            .map(drop),
        streamed
            .write(large.as_bytes())
            .and_then(|()| streamed.finish())
            .map(drop),
        reader.compact(),
        reader.erase("u", &mut |_| {}).map(drop),
        reader.erase("nobody", &mut |_| {}).map(drop),
        reader.writable(),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Err(error @ Error::ReadOnly { .. }) => {
                let expected = format!("{} is open for reading only", dir.path().display());
                assert_eq!(error.to_string(), expected);
            }
            other => panic!("write {number}: expected ReadOnly: {other:?}"),
        }
    }
    assert!(!reader.metrics().is_writable);
    assert_eq!(documents(&reader), found);
    reader.close().unwrap();
    assert_unchanged(dir.path(), &before, "refused writes");
}

#[test]
fn killed_store_with_an_unsealed_segment_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    let copy = killed_copy(dir.path());
    let summaries = files(copy.path(), "log", "sum").len();
    assert!(summaries > 0 && summaries < files(copy.path(), "log", "seg").len());
    check_store(copy.path(), "killed");
}

#[test]
fn torn_tail_is_dropped_in_memory_and_kept_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    let copy = killed_copy(dir.path());
    // The last frame, `{}` for c4, is torn: its last byte is lost, and the preallocated zeros too.
    let active = files(copy.path(), "log", "seg").pop().unwrap();
    let bytes = fs::read(&active).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(&active, &bytes[..end]).unwrap();
    let reader = open_read_only(copy.path()).unwrap();
    let dropped = reader.dropped_tail().unwrap();
    assert_eq!(
        (&dropped.path, dropped.offset + dropped.bytes),
        (&active, end as u64)
    );
    assert!(read(&reader, "c4").unwrap().unwrap().len() > 1_900);
    reader.close().unwrap();
    check_store(copy.path(), "torn");
}

#[test]
fn missing_and_damaged_summaries_are_not_rebuilt_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    engine.close().unwrap();
    let reader = open_read_only(dir.path()).unwrap();
    let expected = snapshot_copy::files(&reader.snapshot().unwrap());
    reader.close().unwrap();
    let summaries = files(dir.path(), "log", "sum");
    fs::remove_file(&summaries[0]).unwrap();
    let mut bytes = fs::read(&summaries[1]).unwrap();
    // The damage is in the entries, which recovery reads.
    bytes[100] ^= 1;
    fs::write(&summaries[1], bytes).unwrap();
    let before = directory_state(dir.path());
    let reader = open_read_only(dir.path()).unwrap();
    check_listing(&reader);
    // The snapshot has intact summaries.
    assert!(snapshot_copy::files(&reader.snapshot().unwrap()) == expected);
    reader.close().unwrap();
    assert_unchanged(dir.path(), &before, "summaries");
}

#[test]
fn files_of_an_interrupted_compaction_stay_and_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(config(dir.path())).unwrap();
    write_documents(&engine);
    engine.close().unwrap();
    let obsolete: Vec<_> = [("log", "seg"), ("log", "sum"), ("blobs", "blob")]
        .into_iter()
        .flat_map(|(folder, extension)| files(dir.path(), folder, extension))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    let engine = Engine::open(config(dir.path())).unwrap();
    put(&engine, "large", "{}").unwrap();
    engine.compact().unwrap();
    engine.close().unwrap();
    let mut restored = 0;
    for (bytes, path) in obsolete {
        if !path.exists() {
            fs::write(path, bytes).unwrap();
            restored += 1;
        }
    }
    assert!(restored > 2, "{restored} obsolete files");
    check_store(dir.path(), "compacted");
}

#[test]
fn golden_directories_are_read_and_nothing_changes() {
    for format in FORMATS {
        for has_summaries in [true, false] {
            let golden = Golden::of(format);
            if !has_summaries {
                golden.remove_summaries();
            }
            let context = format!("format {format}, summaries {has_summaries}");
            let before = directory_state(golden.dir.path());
            let engine = Engine::open(read_only(&golden.config())).unwrap();
            check_all(&engine, &golden.listing());
            let (_copy, copied) = snapshot_copy::open_copy(&engine.snapshot().unwrap());
            check_all(&copied, &golden.listing());
            engine.close().unwrap();
            assert_unchanged(golden.dir.path(), &before, &context);
        }
    }
}

/// Opens the store, fills a segment, compacts and closes. Returns true if no operation failed.
fn run_workload(store: &Store) -> bool {
    let Ok(engine) = store.open() else {
        return false;
    };
    let sizes = [10, LARGE_BYTES, 1_900, 10].into_iter();
    let sizes = sizes.chain([1_900; 34]).chain([10]);
    let mut is_complete = true;
    for (index, size) in sizes.enumerate() {
        let client = CLIENTS[index % 5];
        let written = if index % 13 == 3 {
            delete(&engine, client)
        } else {
            put(&engine, client, &body(index as u64, size))
        };
        is_complete &= written.is_ok();
        if index == 3 || index == 36 {
            is_complete &= engine.compact().is_ok();
        }
    }
    is_complete & engine.close().is_ok()
}

fn contents(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter();
    files
        .map(|path| (path.clone(), disk.bytes(&path)))
        .collect()
}

/// A crash during recovery, a write, a compaction or a close must not matter. A summary that
/// describes only a part of the active segment, for example, is left by a crash during recovery.
#[test]
fn read_only_open_after_any_crash_finds_what_a_normal_open_finds() {
    for seed in seeds(4) {
        for operation in 0.. {
            let context = format!("seed {seed}, operation {operation}");
            let store = Store::without_catalogue();
            let engine = store.open().unwrap();
            for client in CLIENTS {
                put(&engine, client, &body(0, 500)).unwrap();
            }
            put(&engine, "large", &body(0, LARGE_BYTES)).unwrap();
            let killed = store.crashed(Unsynced::Kept);
            drop(engine);
            killed.disk.cut_power_after(operation);
            let is_complete = run_workload(&killed);
            let after = killed.crashed(unsynced(seed));
            let before = contents(&after.disk);
            let mut reading = read_only(&after.config());
            reading.catalogue = true;
            let reader = Engine::open(reading)
                .unwrap_or_else(|error| panic!("{context}: {error} ({error:?})"));
            let found = documents(&reader);
            check_listing(&reader);
            assert_eq!(
                stats(&after.config()).unwrap().documents,
                found.len() as u64,
                "{context}"
            );
            if operation % 4 == 0 {
                let (_copy, copied) = snapshot_copy::open_copy(&reader.snapshot().unwrap());
                assert_eq!(documents(&copied), found, "{context}");
            }
            reader.close().unwrap();
            assert!(
                contents(&after.disk) == before,
                "{context}: a file was changed"
            );
            let writable = after.open().unwrap();
            assert_eq!(documents(&writable), found, "{context}");
            if is_complete {
                assert!(operation > 100, "only {operation} operations were tried");
                break;
            }
        }
    }
}

#[test]
fn readers_share_the_directory_and_exclude_writers() {
    let dir = tempfile::tempdir().unwrap();
    let writer = Engine::open(config(dir.path())).unwrap();
    put(&writer, "c0", "{}").unwrap();
    let expect_locked = |outcome: Result<(), Error>, context: &str| match outcome {
        Err(Error::Locked { holder, .. }) => holder,
        other => panic!("{context}: expected Locked: {other:?}"),
    };
    let open_for_writing = || Engine::open(config(dir.path())).map(drop);
    let holder = expect_locked(open_read_only(dir.path()).map(drop), "a reader");
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    expect_locked(stats(&config(dir.path())).map(drop), "stats");
    expect_locked(verify(&config(dir.path()), &mut |_| {}).map(drop), "verify");
    writer.close().unwrap();

    let first = open_read_only(dir.path()).unwrap();
    let second = open_read_only(dir.path()).unwrap();
    assert_eq!(stats(&config(dir.path())).unwrap().documents, 1);
    first.close().unwrap();
    assert_eq!(read(&second, "c0").unwrap().as_deref(), Some("{}"));
    expect_locked(open_for_writing(), "a writer");
    expect_locked(DirectoryLock::acquire(dir.path()).map(drop), "a lock");
    second.close().unwrap();

    // A version of prefd that locks only the file `lock`.
    let file = File::open(dir.path().join("lock")).unwrap();
    file.try_lock().unwrap();
    expect_locked(open_read_only(dir.path()).map(drop), "an older version");
    drop(file);
    open_for_writing().unwrap();
}

#[test]
fn directory_without_a_store_is_refused_and_not_created() {
    let dir = tempfile::tempdir().unwrap();
    let before = directory_state(dir.path());
    for path in [dir.path().to_owned(), dir.path().join("missing")] {
        match open_read_only(&path) {
            Err(Error::NotAStore { path: named }) => assert_eq!(named, path),
            other => panic!("expected NotAStore: {other:?}"),
        }
    }
    assert_unchanged(dir.path(), &before, "no store");
}
