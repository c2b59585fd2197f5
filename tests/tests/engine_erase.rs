//! Erasure: no byte of a user's documents and names is left in any file, and nothing of
//! anybody else's is touched.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use prefd_engine::{Change, Config, Engine, Erased, Error, Impact, Problem, WriteOptions, verify};
use prefd_tests::raised::RaisedAtEnd;
use prefd_tests::sim_disk::{Operation, Unsynced};
use prefd_tests::sim_model::{fail_once_at, unsynced};
use prefd_tests::sim_store::{Store, put};
use prefd_tests::traces::{Contents, Lived, User, all_files, contents, needle, traces};

const NOTHING: [&str; 0] = [];
const NOWHERE: [PathBuf; 0] = [];

fn listed(engine: &Engine, user: &User) -> Vec<String> {
    let entries = engine.list(&user.name, None, usize::MAX).unwrap();
    entries.into_iter().map(|entry| entry.client).collect()
}

fn erase(engine: &Engine, user: &User) -> Result<Erased, Error> {
    engine.erase(&user.name, &mut |_| {})
}

/// The files that could not be rewritten.
fn unreadable(erased: &Erased) -> Vec<&PathBuf> {
    erased
        .unreadable
        .iter()
        .map(|damage| &damage.path)
        .collect()
}

#[test]
fn nothing_is_left_in_any_file_and_others_keep_what_they_have() {
    for background_compaction in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config.background_compaction = background_compaction;
        let mut lived = Lived::new(7);
        for _ in 0..3 {
            let engine = Engine::open(config.clone()).unwrap();
            lived.write(&engine).unwrap();
            engine.close().unwrap();
        }
        let folders = |user: &User| -> Vec<String> {
            let traces = traces(&all_files(dir.path(), None), user);
            let mut folders: Vec<_> = traces.iter().filter_map(|path| path.parent()).collect();
            folders.dedup();
            let name = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
            folders.into_iter().map(name).collect()
        };
        let mut before = folders(lived.gone());
        before.sort();
        assert_eq!(before, ["blobs", "log", "sled"]);
        let engine = Engine::open(config.clone()).unwrap();
        lived.write(&engine).unwrap();
        let stored = contents(&engine, lived.gone()).len();
        let others = lived.others(&engine);
        let mut last = None;
        let mut progress = |progress| last = Some(progress);
        let erased = engine.erase(&lived.gone().name, &mut progress).unwrap();
        assert!(erased.is_complete(), "{erased:?}");
        assert_eq!(erased.documents, stored as u64);
        let last = last.unwrap();
        assert!(last.done_bytes < last.total_bytes);
        assert_eq!(folders(lived.gone()), NOTHING);
        lived.assert_erased(&engine, &others, "erased");
        assert_eq!(listed(&engine, lived.gone()), NOTHING);
        for (user, has) in [(0, 0), (2, 1)] {
            let clients: Vec<_> = others[has].keys().cloned().collect();
            assert_eq!(listed(&engine, &lived.users[user]), clients);
        }
        engine.close().unwrap();
        assert_eq!(folders(lived.gone()), NOTHING);
        assert_eq!(verify(&config, &mut |_| {}).unwrap().problems, []);
        let engine = Engine::open(config.clone()).unwrap();
        lived.assert_erased(&engine, &others, "reopened");
        assert_eq!(folders(lived.gone()), NOTHING);
        // There is nothing more to do, and the user may come back.
        let again = erase(&engine, lived.gone()).unwrap();
        assert_eq!((again.documents, again.segments), (0, 0));
        lived.write(&engine).unwrap();
        assert!(!contents(&engine, lived.gone()).is_empty());
    }
}

#[test]
fn what_was_deleted_long_ago_is_erased_too() {
    let store = Store::new();
    let mut lived = Lived::new(3);
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    for client in &lived.gone().clients {
        let namespace = engine.namespace(&lived.gone().name, client).unwrap();
        namespace
            .write(Change::Delete, WriteOptions::default())
            .unwrap();
    }
    engine.close().unwrap();
    // Without a catalogue, whose folder is still there.
    let mut config = store.config();
    config.catalogue = false;
    let engine = Engine::open(config).unwrap();
    let erased = erase(&engine, lived.gone()).unwrap();
    assert!(erased.is_complete() && erased.documents == 0, "{erased:?}");
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(traces(&files, lived.gone()), NOWHERE);
}

#[test]
fn what_a_crash_or_a_failure_has_left_lying_about_goes() {
    let store = Store::new();
    let mut lived = Lived::new(4);
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    let others = lived.others(&engine);
    let trace = lived.gone().needles[9].clone().into_bytes();
    let segment = store.files("log", ".seg").remove(0);
    let mut longer = store.disk.bytes(&segment);
    longer.extend_from_slice(&trace);
    store.disk.overwrite(&segment, longer);
    let strays = [1, 0x77].map(|id| format!("log/{id:08x}.sum.new"));
    let strays = strays.into_iter().chain(["log/00000077.seg".to_owned()]);
    let strays: Vec<_> = strays.map(|file| store.path(&file)).collect();
    for file in &strays {
        store.disk.place(file, trace.clone());
    }
    // Of somebody else, so that the segment itself is not rewritten.
    let erased = engine.erase("nobody", &mut |_| {}).unwrap();
    assert!(erased.is_complete() && erased.segments == 0);
    assert!(!store.disk.bytes(&segment).ends_with(&trace));
    let files = store.disk.files();
    assert!(!strays.iter().any(|stray| files.contains(stray)));
    assert_eq!(lived.others(&engine), others);
}

#[test]
fn what_a_snapshot_holds_is_told_and_goes_with_it() {
    let store = Store::new();
    let mut lived = Lived::new(5);
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    let others = lived.others(&engine);
    let snapshot = engine.snapshot().unwrap();
    let erased = erase(&engine, lived.gone()).unwrap();
    assert!(erased.held_by_snapshots > 1 && !erased.is_complete());
    assert_eq!((erased.deletes_kept, &*erased.unreadable), (0, &[][..]));
    let files = all_files(store.dir.path(), Some(&store));
    let held = snapshot.files().iter().map(|file| store.path(file.path()));
    let mut held: Vec<_> = held.collect();
    held.extend(store.files("log", ".sum"));
    let left = traces(&files, lived.gone());
    assert!(!left.is_empty() && left.iter().all(|path| held.contains(path)));
    drop(snapshot);
    engine.compact().unwrap();
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(traces(&files, lived.gone()), NOWHERE);
    assert!(erase(&engine, lived.gone()).unwrap().is_complete());
    lived.assert_erased(&engine, &others, "without the snapshot");
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_erased() {
    let store = Store::new();
    let mut lived = Lived::new(6);
    let engine = store.open().unwrap();
    let (kept, word) = ("kept", needle(&mut lived.random));
    lived.users[0].clients.push(kept.to_owned());
    let namespace = engine.namespace(&lived.users[0].name, kept).unwrap();
    let text = format!("{{\"kept\":\"{word}\"}}");
    namespace
        .write(text.as_bytes(), WriteOptions::default())
        .unwrap();
    for _ in 0..2 {
        lived.write(&engine).unwrap();
    }
    engine.close().unwrap();
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    let others = lived.others(&engine);
    engine.close().unwrap();
    // What somebody else has in the first segment.
    let first = &store.files("log", ".seg")[0];
    let intact = store.disk.bytes(first);
    let is_there = |window: &[u8]| window == word.as_bytes();
    let at = intact.windows(word.len()).position(is_there).unwrap();
    let mut damaged = intact.clone();
    damaged[at + 20] ^= 1;
    store.disk.overwrite(first, damaged);
    let engine = store.open().unwrap();
    let erased = erase(&engine, lived.gone()).unwrap();
    assert_eq!(unreadable(&erased), [first]);
    assert!(erased.documents > 0 && erased.deletes_kept > 0 && !erased.is_complete());
    assert_eq!(contents(&engine, lived.gone()), Contents::new());
    engine.close().unwrap();
    store.disk.overwrite(first, intact);
    let engine = store.open().unwrap();
    let erased = erase(&engine, lived.gone()).unwrap();
    assert!(erased.is_complete(), "{erased:?}");
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(traces(&files, lived.gone()), NOWHERE);
    lived.assert_erased(&engine, &others, "mended");
}

#[test]
fn a_segment_of_which_nothing_can_be_read_is_told() {
    let (store, engine, lived, _) = lived_in(true);
    engine.close().unwrap();
    let first = store.files("log", ".seg").remove(0);
    for file in [first.clone(), first.with_extension("sum")] {
        let zeros = vec![0; store.disk.bytes(&file).len()];
        store.disk.overwrite(&file, zeros);
    }
    let engine = store.open().unwrap();
    let erased = erase(&engine, lived.gone()).unwrap();
    assert_eq!(unreadable(&erased), [&first]);
    // Whatever is left, no delete may go: it could hide something.
    assert!(erased.deletes_kept > 0 && !erased.is_complete());
    for client in &lived.gone().clients {
        let document = engine.get(&lived.gone().name, client);
        assert!(matches!(document, Ok(None) | Err(Error::Corrupt { .. })));
    }
}

#[test]
fn others_write_meanwhile_and_so_may_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let mut lived = Lived::new(8);
    let engine = Engine::open(config.clone()).unwrap();
    lived.write(&engine).unwrap();
    let is_over = AtomicBool::new(false);
    let mut busy = Lived::new(9);
    let returned = "{\"again\":1}";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                busy.write(&engine).unwrap();
            }
        });
        let _end = RaisedAtEnd(&is_over);
        for _ in 0..5 {
            lived.users[1].write(&engine, &mut lived.random).unwrap();
            let others = lived.others(&engine);
            let erased = erase(&engine, lived.gone()).unwrap();
            assert!(erased.is_complete(), "{erased:?}");
            lived.assert_erased(&engine, &others, "while others write");
            let files = all_files(dir.path(), None);
            assert_eq!(traces(&files, lived.gone()), NOWHERE);
        }
        let user = lived.gone();
        let namespace = engine.namespace(&user.name, &user.clients[0]).unwrap();
        namespace
            .write(returned.as_bytes(), WriteOptions::default())
            .unwrap();
    });
    assert_eq!(
        listed(&engine, lived.gone()),
        [lived.gone().clients[0].clone()]
    );
    let expected = busy.others(&engine);
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(busy.others(&engine), expected);
    let found = contents(&engine, lived.gone());
    assert_eq!(found.values().next().unwrap().0, returned);
}

/// A store of two lives, of which the last goes on, and what others have in it.
fn lived_in(has_catalogue: bool) -> (Store, Engine, Lived, Vec<Contents>) {
    let store = if has_catalogue {
        Store::new()
    } else {
        Store::without_catalogue()
    };
    let mut lived = Lived::new(10);
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    lived.write(&engine).unwrap();
    let others = lived.others(&engine);
    (store, engine, lived, others)
}

/// Erases again, whatever came of it before.
fn completes(store: &Store, lived: &Lived, others: &[Contents], context: &str) {
    let engine = store.open().unwrap();
    assert_eq!(lived.others(&engine), others, "{context}");
    let erased = erase(&engine, lived.gone()).unwrap();
    assert!(erased.is_complete(), "{context}: {erased:?}");
    let files = all_files(store.dir.path(), Some(store));
    let left = traces(&files, lived.gone());
    assert_eq!(left, NOWHERE, "{context}");
    lived.assert_erased(&engine, others, context);
    engine.close().unwrap();
    let found = verify(&store.config(), &mut |_| {}).unwrap();
    let is_harmless = |problem: &&Problem| problem.impact == Impact::Nothing;
    let problems = found.problems.iter();
    assert_eq!(
        problems.clone().find(|p| !is_harmless(p)),
        None,
        "{context}"
    );
}

#[test]
fn where_it_cannot_go_on_it_says_why_and_another_one_completes_it() {
    let (store, engine, lived, others) = lived_in(false);
    store.disk.set_capacity(store.disk.used_bytes());
    match erase(&engine, lived.gone()) {
        Ok(erased) => assert!(erased.is_complete(), "{erased:?}"),
        Err(error) => assert!(matches!(error, Error::StorageFull { .. }), "{error}"),
    }
    store.disk.set_capacity(u64::MAX);
    engine.close().unwrap();
    assert!(matches!(erase(&engine, lived.gone()), Err(Error::Closed)));
    completes(&store, &lived, &others, "with more room");

    let (store, engine, lived, others) = lived_in(false);
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == Operation::Sync).then_some(ErrorKind::Other)
    }));
    for _ in 0..2 {
        let outcome = erase(&engine, lived.gone());
        assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    }
    store.disk.clear_fault();
    drop(engine);
    completes(&store, &lived, &others, "opened again");
    assert!(matches!(
        store.open().unwrap().erase("", &mut |_| {}),
        Err(Error::InvalidName { .. })
    ));
}

#[test]
fn a_segment_that_was_to_end_gets_no_frame_any_more() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "before", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        (operation == Operation::Create && is_segment).then_some(ErrorKind::Other)
    }));
    // Its summary is written by then.
    let outcome = engine.erase("nobody", &mut |_| {});
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
    store.disk.clear_fault();
    put(&engine, "behind", "{}").unwrap();
    assert_eq!(store.files("log", ".seg").len(), 2);
    // And so the catalogue, which is built from the summaries, has all of them.
    engine.erase("nobody", &mut |_| {}).unwrap();
    let entries = engine.list("u", None, usize::MAX).unwrap();
    let clients: Vec<_> = entries.iter().map(|entry| &*entry.client).collect();
    assert_eq!(clients, ["before", "behind"]);
}

#[test]
fn a_crash_at_every_single_operation_of_it_leaves_what_another_one_completes() {
    for operation in 0.. {
        let (store, engine, lived, others) = lived_in(operation % 16 == 0);
        store.disk.cut_power_after(operation);
        let outcome = erase(&engine, lived.gone());
        let after = store.crashed(unsynced(operation % 4));
        let context = format!("operation {operation}");
        if let Ok(erased) = &outcome {
            // What is gone stays gone, whatever a crash brings back.
            assert!(erased.is_complete(), "{context}: {erased:?}");
            let lost = store.crashed(Unsynced::Lost);
            let files = all_files(lost.dir.path(), Some(&lost));
            assert_eq!(traces(&files, lived.gone()), NOWHERE, "{context}");
        }
        completes(&after, &lived, &others, &context);
        if outcome.is_ok() {
            assert!(operation > 100, "{operation}: it has more operations");
            println!("{operation} operations");
            return;
        }
    }
}

#[test]
fn where_an_operation_fails_it_says_so_or_is_complete() {
    for operation in 0.. {
        let (store, engine, lived, others) = lived_in(false);
        let count = fail_once_at(&store.disk, operation, ErrorKind::Other);
        let outcome = erase(&engine, lived.gone());
        let context = format!("operation {operation}: {outcome:?}");
        let is_over = count.load(Ordering::Relaxed) <= operation;
        store.disk.clear_fault();
        if outcome.is_ok_and(|erased| erased.is_complete()) {
            let files = all_files(store.dir.path(), Some(&store));
            assert_eq!(traces(&files, lived.gone()), NOWHERE, "{context}");
        }
        let poisoned = engine.writable().is_err();
        if !poisoned {
            assert!(
                erase(&engine, lived.gone()).unwrap().is_complete(),
                "{context}"
            );
        }
        let _ = engine.close();
        completes(&store, &lived, &others, &context);
        if is_over {
            return;
        }
    }
}
