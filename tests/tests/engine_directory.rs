//! The lock of a data directory, and data directories that are removed, renamed or replaced while
//! an engine has them open. The engine stops writing, and leaves other directories unchanged.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prefd_engine::{Config, DirectoryLock, Durability, Engine, Error, WriteOptions, verify};
use prefd_tests::sim_disk::Unsynced;
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// How long a test waits for the engine to notice a fault, which it does within a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// Opens a store, and waits until it has opened its catalogue in the background. If a test renamed
/// the directory before, sled would create it again.
fn open(dir: &Path) -> Result<Engine, Error> {
    let mut config = Config::new(dir);
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    config.reserve_bytes = 64 * 1024;
    let engine = Engine::open(config)?;
    engine.list("u", None, 1)?;
    Ok(engine)
}

/// Repeats `holds` until it returns true.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "timed out waiting for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn expect_locked(outcome: Result<Engine, Error>) {
    match outcome {
        Err(Error::Locked { .. }) => {}
        Err(error) => panic!("expected Locked: {error:?}"),
        Ok(_) => panic!("expected Locked, but the store was opened a second time"),
    }
}

fn expect_stopped<T>(outcome: Result<T, Error>, path: &Path) {
    match outcome {
        Err(Error::Poisoned { path: named, .. }) => assert_eq!(named, path),
        Err(error) => panic!("expected Poisoned: {error:?}"),
        Ok(_) => panic!("expected the write to be refused"),
    }
}

/// Tries to lock a file as a version of prefd does that locks only the file `lock`.
fn lock_like_an_older_version(path: &Path) -> Option<File> {
    let file = File::options().read(true).write(true).open(path).ok()?;
    match file.try_lock() {
        Ok(()) => Some(file),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Error(error)) => panic!("{error}"),
    }
}

/// The contents of all files in a directory and its subdirectories.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Removes a directory into which another process may be writing.
fn remove_dir(dir: &Path) {
    wait_until("the directory is removed", || {
        let _ = fs::remove_dir_all(dir);
        !dir.exists()
    });
}

/// The only segment file of a store.
fn segment(dir: &Path) -> PathBuf {
    let mut segments = fs::read_dir(dir.join("log")).unwrap();
    segments
        .find_map(|entry| {
            let path = entry.unwrap().path();
            path.extension().is_some_and(|e| e == "seg").then_some(path)
        })
        .unwrap()
}

#[test]
fn log_of_another_store_is_refused_and_removes_no_blob() {
    // Whether the other log refers to a blob with the same name.
    for is_referenced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let dirs = ["one", "two"].map(|name| parent.path().join(name));
        for dir in &dirs {
            let engine = open(dir).unwrap();
            put(&engine, "small", "{}").unwrap();
            put(&engine, "large", &body(1, 9_000)).unwrap();
            engine.close().unwrap();
        }
        let [one, two] = &dirs;
        if !is_referenced {
            // The blob of store `one` gets another name than the blob of store `two`.
            let engine = open(one).unwrap();
            put(&engine, "large", &body(1, 9_000)).unwrap();
            engine.close().unwrap();
        }
        let (log, aside) = (one.join("log"), parent.path().join("aside"));
        fs::rename(&log, &aside).unwrap();
        copy_dir(&two.join("log"), &log);
        let blobs = contents(&one.join("blobs"));
        assert_eq!(blobs.len(), 1);
        match open(one).map(drop) {
            Err(Error::Corrupt { path, .. }) => assert!(blobs.contains_key(&path), "{path:?}"),
            outcome => panic!("expected Corrupt: {outcome:?}"),
        }
        let report = verify(&Config::new(one), &mut |_| {}).unwrap();
        let named = report
            .problems
            .iter()
            .any(|problem| blobs.contains_key(&problem.path));
        assert!(named, "{:?}", report.problems);
        assert_eq!(contents(&one.join("blobs")), blobs);
        fs::remove_dir_all(&log).unwrap();
        fs::rename(&aside, &log).unwrap();
        let engine = open(one).unwrap();
        assert_eq!(read(&engine, "large").unwrap(), Some(body(1, 9_000)));
    }
}

#[test]
fn store_stays_locked_after_its_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let engine = open(dir.path()).unwrap();
    put(&engine, "first", "{}").unwrap();
    fs::remove_file(&lock).unwrap();
    expect_locked(open(dir.path()));
    assert!(matches!(
        DirectoryLock::acquire(dir.path()),
        Err(Error::Locked { .. })
    ));
    put(&engine, "second", "{}").unwrap();
    engine.close().unwrap();
    let engine = open(dir.path()).unwrap();
    assert_eq!(engine.documents(), 2);
    // A new file in the place of `lock` has no effect either.
    fs::rename(&lock, dir.path().join("lock.old")).unwrap();
    fs::write(&lock, "").unwrap();
    expect_locked(open(dir.path()));
    engine.close().unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn directory_lock_holds_after_its_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let held = DirectoryLock::acquire(dir.path()).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    expect_locked(open(dir.path()));
    drop(held);
    open(dir.path()).unwrap();
}

#[test]
fn older_version_that_locks_only_the_file_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let engine = open(dir.path()).unwrap();
    assert!(lock_like_an_older_version(&lock).is_none());
    for make in [
        (|path| fs::remove_file(path).unwrap()) as fn(&Path),
        |path| {
            let new = path.with_extension("new");
            fs::write(&new, "").unwrap();
            fs::rename(new, path).unwrap();
        },
    ] {
        make(&lock);
        // The file is created and locked again.
        let own = format!("(pid {})", std::process::id());
        wait_until("the lock file is restored", || {
            fs::read_to_string(&lock).is_ok_and(|text| text.contains(&own))
        });
        assert!(lock_like_an_older_version(&lock).is_none());
    }
    put(&engine, "client", "{}").unwrap();
    engine.close().unwrap();
    let older = lock_like_an_older_version(&lock).unwrap();
    expect_locked(open(dir.path()));
    drop(older);
    open(dir.path()).unwrap();
}

#[test]
fn lock_file_that_another_process_has_locked_stops_writes() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let engine = open(dir.path()).unwrap();
    let new = dir.path().join("lock.new");
    let intruder = File::create(&new).unwrap();
    intruder.lock().unwrap();
    fs::rename(&new, &lock).unwrap();
    wait_until("writing stops", || engine.writable().is_err());
    expect_stopped(put(&engine, "client", "{}"), &lock);
    drop(intruder);
    expect_stopped(put(&engine, "client", "{}"), &lock);
}

#[test]
fn copied_lock_file_locks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [original, copy] = ["original", "copy"].map(|name| dir.path().join(name));
    let engine = open(&original).unwrap();
    put(&engine, "client", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let engine = open(&original).unwrap();
    copy_dir(&original, &copy);
    let copied = open(&copy).unwrap();
    assert_eq!(read(&copied, "client").unwrap().unwrap(), "{\"n\":1}");
    put(&engine, "client", "{\"n\":2}").unwrap();
}

/// A change to the files of an open store, and the path that the engine must report.
struct Fault {
    name: &'static str,
    make: fn(&Path),
    reported: fn(&Path) -> PathBuf,
}

/// Faults that make writes useless immediately, because the active segment is no longer at its
/// path.
const FAULTS: [Fault; 6] = [
    Fault {
        name: "the data directory is removed",
        make: remove_dir,
        reported: Path::to_owned,
    },
    Fault {
        name: "the data directory is renamed",
        make: |dir| fs::rename(dir, dir.with_extension("old")).unwrap(),
        reported: Path::to_owned,
    },
    Fault {
        name: "the data directory is replaced by an empty one",
        make: |dir| {
            fs::rename(dir, dir.with_extension("old")).unwrap();
            fs::create_dir(dir).unwrap();
        },
        reported: Path::to_owned,
    },
    Fault {
        name: "the data directory is replaced by a copy",
        make: |dir| {
            copy_dir(dir, &dir.with_extension("copy"));
            fs::rename(dir, dir.with_extension("old")).unwrap();
            fs::rename(dir.with_extension("copy"), dir).unwrap();
        },
        reported: Path::to_owned,
    },
    Fault {
        name: "the log is removed and created again",
        make: |dir| {
            remove_dir(&dir.join("log"));
            fs::create_dir(dir.join("log")).unwrap();
        },
        reported: |dir| dir.join("log"),
    },
    Fault {
        name: "the active segment is replaced by a copy",
        make: |dir| {
            let segment = segment(dir);
            fs::copy(&segment, dir.join("copy")).unwrap();
            fs::rename(dir.join("copy"), segment).unwrap();
        },
        reported: segment,
    },
];

#[test]
fn write_after_a_lost_directory_is_never_acknowledged() {
    for fault in FAULTS {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let engine = open(&dir).unwrap();
        put(&engine, "before", "{\"n\":1}").unwrap();
        // The read opens the segment, so the engine can read it after its removal.
        read(&engine, "before").unwrap();
        (fault.make)(&dir);
        for size in [10, 10_000] {
            let refused = put(&engine, "after", &body(1, size));
            assert!(refused.is_err(), "{}: {size}: {refused:?}", fault.name);
        }
        let removed = delete(&engine, "before");
        assert!(removed.is_err(), "{}: {removed:?}", fault.name);
        let kept = read(&engine, "before").unwrap();
        assert_eq!(kept.as_deref(), Some("{\"n\":1}"), "{}", fault.name);
        assert!(engine.close().is_err(), "{}", fault.name);
    }
}

#[test]
fn lost_directory_stops_an_idle_store_and_is_named() {
    // A removal is left out, because the engine can notice it while only a part is removed. The
    // replaced segment is left out, because only a write notices it.
    for fault in &FAULTS[1..5] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let engine = open(&dir).unwrap();
        let reported = (fault.reported)(&dir);
        (fault.make)(&dir);
        wait_until(fault.name, || engine.writable().is_err());
        expect_stopped(engine.writable(), &reported);
        expect_stopped(put(&engine, "after", "{}"), &reported);
        assert!(!engine.metrics().is_writable);
    }
}

#[test]
fn lost_blob_directory_stops_all_writes() {
    for replaced in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let engine = open(&dir).unwrap();
        let blobs = dir.join("blobs");
        fs::remove_dir_all(&blobs).unwrap();
        if replaced {
            fs::create_dir(&blobs).unwrap();
        }
        assert!(put(&engine, "large", &body(1, 10_000)).is_err());
        expect_stopped(put(&engine, "small", "{}"), &blobs);
    }
}

#[test]
fn renamed_directory_that_returns_needs_a_new_open() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let engine = open(&dir).unwrap();
    put(&engine, "before", "{\"n\":1}").unwrap();
    let aside = parent.path().join("aside");
    fs::rename(&dir, &aside).unwrap();
    assert!(put(&engine, "during", "{}").is_err());
    fs::rename(&aside, &dir).unwrap();
    assert!(put(&engine, "after", "{}").is_err());
    assert!(engine.close().is_err());
    let engine = open(&dir).unwrap();
    assert_eq!(read(&engine, "before").unwrap().unwrap(), "{\"n\":1}");
    assert_eq!(read(&engine, "after").unwrap(), None);
    put(&engine, "after", "{}").unwrap();
}

#[test]
fn buffered_writes_stop_soon_after_the_directory_is_lost() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let engine = open(&dir).unwrap();
    let options = WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    let write = || {
        let namespace = engine.namespace("u", "client").unwrap();
        namespace.write(b"{}", options.clone())
    };
    write().unwrap();
    fs::rename(&dir, parent.path().join("aside")).unwrap();
    wait_until("buffered writes fail", || write().is_err());
    expect_stopped(write(), &dir);
    expect_stopped(engine.close(), &dir);
}

#[test]
fn another_store_in_the_place_of_an_open_one_stays_unchanged() {
    let parent = tempfile::tempdir().unwrap();
    let [dir, other] = ["data", "other"].map(|name| parent.path().join(name));
    let engine = open(&dir).unwrap();
    for index in 0..60 {
        put(&engine, &format!("c{index}"), &body(index, 1_500)).unwrap();
        put(&engine, &format!("b{index}"), &body(index, 4_000)).unwrap();
    }
    engine.close().unwrap();
    copy_dir(&dir, &other);
    let engine = open(&dir).unwrap();
    put(&engine, "c0", "{}").unwrap();
    fs::rename(&dir, parent.path().join("aside")).unwrap();
    fs::rename(&other, &dir).unwrap();
    let before = contents(&dir);
    // Each of these would create, replace or remove a file.
    for index in 0..60 {
        assert!(put(&engine, &format!("c{index}"), &body(index, 1_500)).is_err());
        assert!(put(&engine, &format!("b{index}"), &body(index, 4_000)).is_err());
    }
    let _ = engine.compact();
    assert!(engine.erase("u", &mut |_| {}).is_err());
    assert!(engine.close().is_err());
    drop(engine);
    let after = contents(&dir);
    // sled, the database of the catalogue, may add a file to its folder. The checksum of the
    // catalogue's files then makes the next open rebuild the catalogue.
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| !path.starts_with(dir.join("catalogue/sled")))
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{changed:?}");
    let engine = open(&dir).unwrap();
    assert_eq!(engine.list("u", None, 1000).unwrap().len(), 120);
}

#[test]
fn rotation_detects_a_removed_segment() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    put(&engine, "kept", "{}").unwrap();
    let segment = store.files("log", "seg").pop().unwrap();
    store.disk.lose(&segment);
    expect_stopped(put(&engine, "lost", "{}"), &segment);
    expect_stopped(engine.close(), &segment);
    // The manifest was not changed, so the loss is not hidden.
    let after = store.crashed(Unsynced::Kept);
    assert!(after.open().is_err());
}
