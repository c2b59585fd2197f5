//! Damage to the newest acknowledged writes after a crash. A read must return the right document or
//! an error, and never an older document or `{}`.
//!
//! By default, the sweep flips a part of the bits. With `PREFD_TEST_ALL=1`, it flips every bit.

mod common;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{BINARY, put as put_document, wait_until};
use prefd_engine::{Durability, Engine, Error, WriteOptions};
use prefd_tests::http::Request;
use prefd_tests::layout::frames;
use prefd_tests::put_ext::PutExt;
use prefd_tests::server::{Launch, Server, prefd};
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_store::{Store, put, read};
use prefd_tests::token;

/// Number of documents in the last batch.
const BATCH: u64 = 10;
/// Number of times that a store is opened and killed before its frames are damaged.
const STARTS: usize = 3;

/// Distance between the flipped bits. It is coprime to 8, so that every bit of a byte is flipped
/// somewhere.
fn stride() -> usize {
    if std::env::var_os("PREFD_TEST_ALL").is_some() {
        1
    } else {
        23
    }
}

fn document(index: u64, version: &str) -> String {
    format!(
        "{{\"version\":\"{version}\",\"n\":{index},\"pad\":\"{}\"}}",
        "p".repeat(140)
    )
}

fn with_marks(store: &Store) -> Engine {
    let mut config = store.config();
    config.mark_delay = Duration::from_millis(1);
    Engine::open(config).unwrap()
}

/// A store after a kill. Its last batch replaced all documents, and was followed by an idle time.
fn killed_store() -> Store {
    let store = Store::without_catalogue();
    let engine = with_marks(&store);
    for index in 0..BATCH {
        put(&engine, &format!("c{index}"), &document(index, "old")).unwrap();
    }
    wait_until("the old documents are marked", || {
        engine.metrics().marks > 0
    });
    let before = engine.metrics().marks;
    // One sync covers the batch, like a group commit.
    for index in 0..BATCH {
        let durability = if index + 1 < BATCH {
            Durability::Buffered
        } else {
            Durability::Sync
        };
        let options = WriteOptions {
            durability: Some(durability),
            ..WriteOptions::default()
        };
        let namespace = engine.namespace("u", format!("c{index}")).unwrap();
        let body = document(index, "new");
        namespace.put(body.as_bytes(), options).unwrap();
    }
    wait_until("the batch is marked", || engine.metrics().marks > before);
    store.crashed(Unsynced::Lost)
}

/// Flips bits in every segment, and checks every document after each flip.
fn sweep(store: &Store) {
    let (mut flips, mut errors) = (0, 0);
    for segment in store.files("log", ".seg") {
        let bytes = store.disk.bytes(&segment);
        let end = frames(&bytes).last().map_or(0, |frame| frame.bytes.end);
        for bit in (0..end * 8).step_by(stride()) {
            let damaged = store.crashed(Unsynced::Lost);
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            damaged
                .disk
                .overwrite(&damaged.moved(store, &segment), changed);
            errors += check(&damaged, &format!("{} bit {bit}", segment.display()));
            flips += 1;
        }
    }
    assert!(
        flips > 1_000 && errors > flips / 4,
        "{errors} of {flips} flips"
    );
}

/// Expects each document to be right or an error, and returns 1 if there is an error.
fn check(store: &Store, context: &str) -> usize {
    let engine = match store.open() {
        Ok(engine) => engine,
        Err(Error::Corrupt { .. } | Error::UnsupportedFormat { .. }) => return 1,
        Err(error) => panic!("{context}: {error}"),
    };
    let mut is_damaged = false;
    for index in 0..BATCH {
        match read(&engine, &format!("c{index}")) {
            Ok(found) => assert_eq!(found, Some(document(index, "new")), "{context}"),
            Err(Error::Corrupt { .. }) => is_damaged = true,
            Err(error) => panic!("{context}: {error}"),
        }
    }
    usize::from(is_damaged)
}

#[test]
fn flipped_bit_after_an_idle_second_never_shows_an_older_document() {
    sweep(&killed_store());
}

#[test]
fn flipped_bit_after_three_starts_never_shows_an_older_document() {
    let mut store = killed_store();
    for _ in 0..STARTS {
        let engine = store.open().unwrap();
        let next = store.crashed(Unsynced::Lost);
        drop(engine);
        store = next;
    }
    assert_eq!(check(&store, "undamaged"), 0);
    sweep(&store);
}

/// Without an idle second, recovery copies the batch to a new segment. The copy is then served, so
/// damage to the copy must be an error.
#[test]
fn frames_that_recovery_copied_are_sealed_before_they_are_served() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    for index in 0..BATCH {
        put(&engine, &format!("c{index}"), &document(index, "old")).unwrap();
        put(&engine, &format!("c{index}"), &document(index, "new")).unwrap();
    }
    let store = store.crashed(Unsynced::Lost);
    let engine = store.open().unwrap();
    let served = read(&engine, "c9").unwrap();
    assert_eq!(served, Some(document(9, "new")));
    assert_eq!(engine.dropped_tail(), None);
    let store = store.crashed(Unsynced::Lost);
    let sealed = store.files("log", ".sum").len();
    assert_eq!(
        sealed,
        store.files("log", ".seg").len(),
        "every segment is sealed"
    );
    sweep(&store);
}

/// A write that was committed less than a second before a crash cannot be distinguished from a torn
/// write. The dropped bytes are reported.
#[test]
fn damage_that_looks_like_a_torn_write_is_reported() {
    let store = Store::without_catalogue();
    let engine = store.open().unwrap();
    put(&engine, "c", &document(0, "old")).unwrap();
    put(&engine, "c", &document(0, "new")).unwrap();
    let store = store.crashed(Unsynced::Lost);
    let segment = store.files("log", ".seg").pop().unwrap();
    let mut bytes = store.disk.bytes(&segment);
    let last = frames(&bytes).pop().unwrap().bytes;
    bytes[last.end - 1] ^= 1;
    store.disk.overwrite(&segment, bytes);
    let found = prefd_engine::verify(&store.config(), &mut |_| {}).unwrap();
    assert_eq!(
        (found.problems.len(), found.torn_bytes),
        (0, last.len() as u64)
    );
    let engine = store.open().unwrap();
    let dropped = engine.dropped_tail().unwrap();
    assert_eq!(
        (&dropped.path, dropped.offset),
        (&segment, last.start as u64)
    );
    assert_eq!(dropped.bytes, last.len() as u64);
    assert_eq!(read(&engine, "c").unwrap(), Some(document(0, "old")));
}

/// Compaction copies older frames behind the newest write. If the newest write is then damaged, an
/// older frame of its namespace in an earlier segment must not become current, although its
/// revision is higher than the revisions of the copies.
#[test]
fn damaged_write_before_copies_of_older_frames_is_an_error() {
    for (is_header_damaged, has_later_write) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let store = Store::without_catalogue();
        let engine = store.open().unwrap();
        for client in ["d", "e", "e"] {
            put(&engine, client, &document(0, "old")).unwrap();
        }
        engine.close().unwrap();
        let engine = store.open().unwrap();
        put(&engine, "c", &document(0, "old")).unwrap();
        put(&engine, "g", &document(0, "old")).unwrap();
        engine.close().unwrap();
        let second = store.files("log", ".seg").pop().unwrap();
        let engine = store.open().unwrap();
        put(&engine, "c", &document(0, "new")).unwrap();
        let newest = store.files("log", ".seg").pop().unwrap();
        // Compaction copies the first segment, and cannot rewrite the second.
        store.disk.set_fault(Box::new(move |operation, path| {
            let is_second = operation == DiskOperation::Open && path.starts_with(&second);
            is_second.then_some(io::ErrorKind::Other)
        }));
        let _ = engine.compact();
        if has_later_write {
            put(&engine, "f", &document(0, "new")).unwrap();
        }
        let damaged = store.crashed(Unsynced::Lost);
        let segment = damaged.moved(&store, &newest);
        let mut bytes = damaged.disk.bytes(&segment);
        let all = frames(&bytes);
        assert!(
            all.len() >= 3,
            "the copies follow the newest write: {all:?}"
        );
        let first = all[0].bytes.clone();
        if is_header_damaged {
            bytes[first.start..first.start + 20].fill(0xee);
        } else {
            bytes[first.end - 1] ^= 1;
        }
        damaged.disk.overwrite(&segment, bytes);
        let engine = damaged.open().unwrap();
        let found = read(&engine, "c");
        assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
        if has_later_write {
            // A later write is newer than any lost write.
            assert_eq!(read(&engine, "f").unwrap(), Some(document(0, "new")));
        }
    }
}

#[test]
fn mark_is_written_once_per_idle_time_and_not_without_writes() {
    let store = Store::without_catalogue();
    let engine = with_marks(&store);
    assert_eq!(engine.metrics().marks, 0);
    for index in 1..=3 {
        put(&engine, "c", &document(index, "new")).unwrap();
        wait_until("a mark is written", || engine.metrics().marks == index);
        let bytes = store.disk.used_bytes();
        // A commit without a frame needs no mark.
        let options = WriteOptions::default();
        let absent = engine.namespace("u", "absent").unwrap();
        absent.write(prefd_engine::Change::Delete, options).unwrap();
        assert_eq!(store.disk.used_bytes(), bytes);
    }
    engine.close().unwrap();
    let found = prefd_engine::verify(&store.config(), &mut |_| {}).unwrap();
    assert_eq!((found.problems, found.frames), (Vec::new(), 6));
    let engine = store.open().unwrap();
    assert_eq!(read(&engine, "c").unwrap(), Some(document(3, "new")));
}

fn last_segment(data_dir: &Path) -> PathBuf {
    let files = fs::read_dir(data_dir.join("log")).unwrap();
    let segments = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"));
    segments.max().unwrap()
}

fn marks(server: &Server) -> u64 {
    let metrics = server
        .connect_admin()
        .request(&Request::to("localhost", "GET", "/metrics"));
    let name = "prefd_log_marks_total ";
    let line = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix(name));
    line.and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

#[test]
fn damaged_last_write_is_an_error_after_a_kill_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path()).with(&["--admin-listen", "127.0.0.1:0"]);
    let token = token::of("alice", "app");
    let server = launch.start();
    put_document(&mut server.connect(), "app", &token, "{\"v\":\"old\"}");
    put_document(&mut server.connect(), "app", &token, "{\"v\":\"new\"}");
    wait_until("a mark is written", || marks(&server) > 0);
    server.kill();

    let segment = last_segment(dir.path());
    let mut bytes = fs::read(&segment).unwrap();
    let all = frames(&bytes);
    let document = &all[all.len() - 2].bytes;
    bytes[document.end - 3] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let verified = prefd(
        BINARY,
        &["verify", "--data-dir", dir.path().to_str().unwrap()],
    );
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let server = launch.start();
    let read = Request::of("GET", "app", &token);
    assert_eq!(server.connect().request(&read).status, 501);
}

#[test]
fn dropped_tail_is_a_warning_in_the_log_and_in_verify() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = prefd_engine::Config::new(dir.path());
    config.mark_delay = Duration::MAX;
    let engine = Engine::open(config).unwrap();
    put(&engine, "c", &document(0, "new")).unwrap();
    // The log stays as a kill would leave it.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for file in fs::read_dir(dir.path().join("log")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join("log").join(file.file_name())).unwrap();
    }
    let segment = last_segment(copy.path());
    let mut bytes = fs::read(&segment).unwrap();
    let last = frames(&bytes).pop().unwrap().bytes;
    bytes[last.end - 1] ^= 1;
    fs::write(&segment, bytes).unwrap();

    let verified = prefd(
        BINARY,
        &["verify", "--data-dir", copy.path().to_str().unwrap()],
    );
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    assert!(
        verified
            .out
            .contains("warning: the next start drops the torn tail"),
        "{verified:?}"
    );
    let server = Launch::new(BINARY, copy.path()).start();
    server.wait_for_log("dropped the end of the log");
}
