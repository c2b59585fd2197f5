//! Compaction: what is stale goes, what is current stays as it was, for readers and
//! writers alike.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use prefd_engine::{Config, Durability, Engine, Error, Precondition, SpaceUsage, WriteOptions};
use prefd_tests::random::Random;
use prefd_tests::sim_disk::{Operation, Unsynced};
use prefd_tests::sim_store::{Store, body, delete, put, read};

/// A store of a few lives, each overwriting much of what the one before wrote.
fn worn() -> (Store, BTreeMap<String, String>) {
    let store = Store::new();
    let mut contents = BTreeMap::new();
    for life in 0..4 {
        let engine = store.open().unwrap();
        for index in 0..60 {
            let stamp = life * 100 + index;
            let client = format!("c{}", (index * 7 + life) % 40);
            if index % 9 == 4 {
                delete(&engine, &client).unwrap();
                contents.remove(&client);
            } else {
                let size = if index % 10 == 3 { 3_000 } else { 1_500 };
                let body = body(stamp, size);
                put(&engine, &client, &body).unwrap();
                contents.insert(client, body);
            }
        }
        engine.close().unwrap();
    }
    (store, contents)
}

fn assert_holds(engine: &Engine, contents: &BTreeMap<String, String>, context: &str) {
    for index in 0..40 {
        let client = format!("c{index}");
        let found = read(engine, &client).unwrap_or_else(|e| panic!("{context}: {client}: {e}"));
        assert_eq!(found.as_ref(), contents.get(&client), "{context}: {client}");
    }
    let listed = engine.list("u", None, usize::MAX).unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| &*entry.client).collect();
    assert_eq!(listed, contents.keys().collect::<Vec<_>>(), "{context}");
}

fn log_bytes(store: &Store) -> u64 {
    let files = store.files("log", ".seg");
    files.iter().map(|f| store.disk.bytes(f).len() as u64).sum()
}

#[test]
fn nothing_but_what_is_current_is_left_and_it_is_as_it_was() {
    let (store, contents) = worn();
    let engine = store.open().unwrap();
    let before = engine.usage_on_disk();
    let stat = |client| engine.namespace("u", client).unwrap().stat().unwrap();
    let stats: Vec<_> = contents.keys().map(&stat).collect();
    assert!(before.dead_bytes > before.live_bytes && before.segments > 4);
    engine.compact().unwrap();
    let after = engine.usage_on_disk();
    assert_eq!((after.dead_bytes, after.tombstones), (0, 0));
    let kept = |usage: &SpaceUsage| (usage.documents, usage.live_bytes, usage.blobs);
    assert_eq!(kept(&after), kept(&before));
    assert!(after.segments <= 2);
    // Revision, time and sizes included.
    let kept: Vec<_> = contents.keys().map(stat).collect();
    assert_eq!(kept, stats);
    assert_holds(&engine, &contents, "compacted");
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk(), after);
    engine.close().unwrap();
    assert!(log_bytes(&store) < after.live_bytes + 100);
    assert_eq!(store.files("blobs", ".blob").len() as u64, after.blobs);
    let engine = store.open().unwrap();
    assert_eq!(engine.usage_on_disk(), after);
    assert_holds(&engine, &contents, "reopened");
    let (_, kept_tag) = (engine.compact(), stats[0].unwrap().revision);
    let client = contents.keys().next().unwrap();
    engine
        .namespace("u", client)
        .unwrap()
        .write(
            b"{}",
            WriteOptions {
                precondition: Precondition::matches(kept_tag),
                ..WriteOptions::default()
            },
        )
        .unwrap();
}

#[test]
fn counts_are_the_same_after_a_reopen() {
    let (store, _) = worn();
    let engine = store.open().unwrap();
    put(&engine, "c1", &body(1, 5_000)).unwrap();
    delete(&engine, "c1").unwrap();
    put(&engine, "c2", &body(2, 100)).unwrap();
    let counted = engine.usage_on_disk();
    engine.close().unwrap();
    assert_eq!(store.open().unwrap().usage_on_disk(), counted);
}

#[test]
fn a_segment_of_which_recovery_has_kept_nothing_is_not_counted() {
    let store = Store::new();
    let engine = store.open().unwrap();
    // All of it is the last batch, which goes to a segment of the next life.
    put(&engine, "c1", "{}").unwrap();
    let store = store.crashed(Unsynced::Kept);
    let engine = store.open().unwrap();
    assert_eq!(store.files("log", ".seg").len(), 1);
    assert_eq!(engine.usage_on_disk().segments, 1);
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().damaged_frames, 0);
}

#[test]
fn a_delete_is_kept_for_as_long_as_it_hides_an_older_frame() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "hidden", &body(1, 50_000)).unwrap();
    for index in 0..36 {
        put(&engine, &format!("kept{index}"), &body(2, 1_900)).unwrap();
    }
    put(&engine, "later", "{}").unwrap();
    delete(&engine, "hidden").unwrap();
    engine.close().unwrap();
    // The first segment cannot be rewritten: one of its frames is damaged.
    let first = store.files("log", ".seg").remove(0);
    let intact = store.disk.bytes(&first);
    let mut damaged = intact.clone();
    let at = damaged.len() - 1_000;
    damaged[at] ^= 1;
    store.disk.overwrite(&first, damaged);
    let engine = store.open().unwrap();
    assert!(matches!(engine.compact(), Err(Error::Corrupt { path, .. }) if path == first));
    let usage = engine.usage_on_disk();
    assert_eq!((usage.tombstones, usage.damaged_frames), (1, 1));
    engine.close().unwrap();
    let engine = store.open().unwrap();
    assert_eq!(read(&engine, "hidden").unwrap(), None);
    assert_eq!(read(&engine, "later").unwrap().as_deref(), Some("{}"));
    assert_eq!(read(&engine, "kept1").unwrap(), Some(body(2, 1_900)));
    engine.close().unwrap();
    store.disk.overwrite(&first, intact);
    let engine = store.open().unwrap();
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().tombstones, 0);
    assert_eq!(read(&engine, "hidden").unwrap(), None);
    engine.close().unwrap();
    assert_eq!(read(&store.open().unwrap(), "hidden").unwrap(), None);
}

#[test]
fn a_durable_document_outlives_its_unsynced_successor() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "c", "{\"n\":1}").unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    put(&engine, "other", "{}").unwrap();
    let buffered = WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.write(b"{\"n\":2}", buffered).unwrap();
    // Nothing in the first segment is current now, but for what a crash brings back.
    engine.compact().unwrap();
    let after = store.crashed(Unsynced::Lost);
    let found = read(&after.open().unwrap(), "c").unwrap();
    assert_eq!(found.as_deref(), Some("{\"n\":2}"));
    assert_eq!(
        after.files("log", "1.seg"),
        Vec::<std::path::PathBuf>::new()
    );
}

#[test]
fn a_read_in_progress_keeps_its_bytes() {
    let (store, contents) = worn();
    let engine = store.open().unwrap();
    let large = engine.namespace("u", "large").unwrap();
    let text = body(7, 300_000);
    large
        .write(text.as_bytes(), WriteOptions::default())
        .unwrap();
    let mut chunks = large.get().unwrap().unwrap().chunks();
    let mut begun = chunks.next().unwrap().unwrap().to_vec();
    let client = contents.keys().next().unwrap();
    let small = engine
        .namespace("u", client)
        .unwrap()
        .get()
        .unwrap()
        .unwrap();
    large.write(b"{}", WriteOptions::default()).unwrap();
    delete(&engine, client).unwrap();
    engine.compact().unwrap();
    assert!(engine.usage_on_disk().blobs < store.disk.files().len() as u64);
    for chunk in chunks {
        begun.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(begun, text.as_bytes());
    assert_eq!(small.read().unwrap(), contents[client].as_bytes());
}

#[test]
fn a_damaged_segment_stays_and_only_its_own_document_is_an_error() {
    let (store, contents) = worn();
    // The last frame of the last segment is current.
    let last = store.files("log", ".seg").pop().unwrap();
    let mut bytes = store.disk.bytes(&last);
    let end = bytes.len();
    bytes[end - 10] ^= 1;
    store.disk.overwrite(&last, bytes);
    let engine = store.open().unwrap();
    assert!(matches!(engine.compact(), Err(Error::Corrupt { path, .. }) if path == last));
    let usage = engine.usage_on_disk();
    assert_eq!(usage.damaged_frames, 1);
    let mut errors = 0;
    for (client, expected) in &contents {
        match read(&engine, client) {
            Ok(found) => assert_eq!(found.as_ref(), Some(expected)),
            Err(Error::Corrupt { path, .. }) => {
                assert_eq!(path, last);
                errors += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(errors, 1);
}

/// A store of six segments, each but the last mostly stale, and none of them wholly.
fn stale() -> (Store, BTreeMap<String, String>) {
    let store = Store::new();
    let mut contents = BTreeMap::new();
    for life in 0..6 {
        let engine = store.open().unwrap();
        for index in life..20 {
            let (client, body) = (format!("c{index}"), body(life * 20 + index, 1_500));
            put(&engine, &client, &body).unwrap();
            contents.insert(client, body);
        }
        engine.close().unwrap();
    }
    (store, contents)
}

#[test]
fn a_segment_that_the_disk_does_not_give_back_keeps_no_other_waiting() {
    let (store, contents) = stale();
    let engine = store.open().unwrap();
    let bad = store.files("log", ".seg").remove(0);
    let bad_bytes = store.disk.bytes(&bad).len() as u64;
    store.disk.fail_reads(bad.clone());
    let outcome = engine.compact();
    assert!(
        matches!(&outcome, Err(Error::Unreadable { path, .. }) if *path == bad),
        "{outcome:?}"
    );
    let left = engine.usage_on_disk().dead_bytes;
    assert!(0 < left && left < bad_bytes, "{left}");
    store.disk.clear_fault();
    engine.compact().unwrap();
    assert_eq!(engine.usage_on_disk().dead_bytes, 0);
    assert_holds(&engine, &contents, "done");
}

#[test]
fn nor_in_the_background() {
    let (store, contents) = stale();
    let before = store.files("log", ".seg");
    // Whichever is read first is bad.
    let mut bad = None;
    store.disk.set_fault(Box::new(move |operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        if operation != Operation::Read || !is_segment {
            return None;
        }
        (bad.get_or_insert_with(|| path.to_owned()) == path).then_some(ErrorKind::Other)
    }));
    let mut config = store.config();
    config.background_compaction = true;
    let engine = Engine::open(config).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while before.iter().all(|path| store.disk.files().contains(path)) {
        assert!(Instant::now() < deadline, "no segment was rewritten");
        std::thread::sleep(Duration::from_millis(1));
    }
    store.disk.clear_fault();
    assert_holds(&engine, &contents, "done");
}

#[test]
fn a_compaction_that_fails_is_done_by_a_later_one() {
    for operation in [Operation::Create, Operation::Write, Operation::Read] {
        let (store, contents) = worn();
        let engine = store.open().unwrap();
        let mut seen = 0;
        store.disk.set_fault(Box::new(move |now, _| {
            seen += usize::from(now == operation);
            (now == operation && seen > 2).then_some(ErrorKind::Other)
        }));
        let outcome = engine.compact();
        assert!(
            matches!(outcome, Err(Error::Io { .. } | Error::Unreadable { .. })),
            "{operation:?}: {outcome:?}"
        );
        store.disk.clear_fault();
        assert_holds(&engine, &contents, "failed");
        engine.compact().unwrap();
        assert_eq!(engine.usage_on_disk().dead_bytes, 0);
        assert_holds(&engine, &contents, "done");
    }
}

#[test]
fn a_catalogue_that_is_built_meanwhile_is_whole() {
    for _ in 0..10 {
        let (store, contents) = worn();
        // No clean close: the catalogue is built from the segments that are rewritten.
        let store = store.crashed(Unsynced::Lost);
        let engine = store.open().unwrap();
        engine.compact().unwrap();
        assert_holds(&engine, &contents, "rebuilt");
    }
}

#[test]
fn writers_and_compaction_take_nothing_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.cache_bytes = 0;
    config.open_segments = 2;
    let engine = Engine::open(config.clone()).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let engine = engine.clone();
                scope.spawn(move || {
                    let mut random = Random::new(writer);
                    for round in 0..400 {
                        let client = format!("{writer}-{}", random.below(30));
                        let text = body(round, 800);
                        put(&engine, &client, &text).unwrap();
                        assert_eq!(read(&engine, &client).unwrap(), Some(text));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                engine.compact().unwrap();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let documents = engine.documents();
    engine.compact().unwrap();
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.documents(), documents);
    assert_eq!(engine.usage_on_disk().documents, documents);
}

fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir)
        .unwrap()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[test]
fn steady_overwriting_keeps_the_directory_below_twice_what_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = 256 * 1024;
    config.reserve_bytes = 0;
    let engine = Engine::open(config).unwrap();
    let mut random = Random::new(1);
    let buffered = || WriteOptions {
        durability: Some(Durability::Buffered),
        ..WriteOptions::default()
    };
    for stamp in 0..20_000 {
        let client = format!("c{}", random.below(1_000));
        let namespace = engine.namespace("u", &client).unwrap();
        let text = body(stamp, 1_000);
        namespace.write(text.as_bytes(), buffered()).unwrap();
    }
    // 1,000 documents of 1,025 bytes, and two segments of 256 KiB.
    let allowed = 2 * 1_025_000 + 2 * 256 * 1024;
    let is_below = || bytes_in(&dir.path().join("log")) < allowed;
    let began = Instant::now();
    while !is_below() && began.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert!(is_below(), "{}", bytes_in(&dir.path().join("log")));
    // By rewriting what was in the way, and no more than that.
    assert!(engine.usage_on_disk().dead_bytes > 0);
}

#[test]
fn the_many_short_segments_of_many_lives_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config::new(dir.path());
    for life in 0..40 {
        let engine = Engine::open(config.clone()).unwrap();
        put(&engine, &format!("c{life}"), "{}").unwrap();
        let began = Instant::now();
        while engine.usage_on_disk().segments > 10 && began.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        assert!(engine.usage_on_disk().segments <= 10);
        engine.close().unwrap();
    }
    let engine = Engine::open(config).unwrap();
    assert_eq!(engine.documents(), 40);
    assert_eq!(read(&engine, "c0").unwrap().as_deref(), Some("{}"));
}
