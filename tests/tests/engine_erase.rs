//! After an erasure, no file contains any part of the user's documents and names, and the
//! documents of other users are unchanged.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use prefd_engine::{Change, Config, Engine, Erased, Error, Impact, Problem, WriteOptions, verify};
use prefd_tests::erasure::{
    Contents, ErasureScenario, TracedUser, all_files, contents, files_with_traces, needle,
};
use prefd_tests::sim_disk::{DiskOperation, Unsynced};
use prefd_tests::sim_model::{fail_once_at, unsynced};
use prefd_tests::sim_store::{Store, put, read};
use prefd_tests::stop_flag::StopOnDrop;

/// An empty list of clients or folders.
const NO_NAMES: [&str; 0] = [];
const NO_FILES: [PathBuf; 0] = [];

/// The clients of a user, as the catalogue lists them.
fn listed_clients(engine: &Engine, user: &TracedUser) -> Vec<String> {
    let entries = engine.list(&user.name, None, usize::MAX).unwrap();
    entries.into_iter().map(|entry| entry.client).collect()
}

fn erase(engine: &Engine, user: &TracedUser) -> Result<Erased, Error> {
    engine.erase(&user.name, &mut |_| {})
}

/// The segments that could not be rewritten.
fn unreadable_segments(erased: &Erased) -> Vec<&PathBuf> {
    erased
        .unreadable
        .iter()
        .map(|damage| &damage.path)
        .collect()
}

#[test]
fn erasure_removes_every_trace_and_keeps_other_users() {
    for background_compaction in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config.background_compaction = background_compaction;
        let mut scenario = ErasureScenario::new(7);
        for _ in 0..3 {
            let engine = Engine::open(config.clone()).unwrap();
            scenario.write(&engine).unwrap();
            engine.close().unwrap();
        }
        let folders = |user: &TracedUser| -> Vec<String> {
            let traces = files_with_traces(&all_files(dir.path(), None), user);
            let mut folders: Vec<_> = traces.iter().filter_map(|path| path.parent()).collect();
            folders.dedup();
            let name = |folder: &Path| folder.file_name().unwrap().to_str().unwrap().to_owned();
            folders.into_iter().map(name).collect()
        };
        let mut before = folders(scenario.erased_user());
        before.sort();
        assert_eq!(before, ["blobs", "log", "sled"]);
        let engine = Engine::open(config.clone()).unwrap();
        scenario.write(&engine).unwrap();
        let stored = contents(&engine, scenario.erased_user()).len();
        let others = scenario.other_contents(&engine);
        let mut last = None;
        let mut progress = |progress| last = Some(progress);
        let erased = engine
            .erase(&scenario.erased_user().name, &mut progress)
            .unwrap();
        assert!(erased.is_complete(), "{erased:?}");
        assert_eq!(erased.documents, stored as u64);
        let last = last.unwrap();
        assert!(last.done_bytes < last.total_bytes);
        assert_eq!(folders(scenario.erased_user()), NO_NAMES);
        scenario.assert_erased(&engine, &others, "erased");
        assert_eq!(listed_clients(&engine, scenario.erased_user()), NO_NAMES);
        for (user, has) in [(0, 0), (2, 1)] {
            let clients: Vec<_> = others[has].keys().cloned().collect();
            assert_eq!(listed_clients(&engine, &scenario.users[user]), clients);
        }
        engine.close().unwrap();
        assert_eq!(folders(scenario.erased_user()), NO_NAMES);
        assert_eq!(verify(&config, &mut |_| {}).unwrap().problems, []);
        let engine = Engine::open(config.clone()).unwrap();
        scenario.assert_erased(&engine, &others, "reopened");
        assert_eq!(folders(scenario.erased_user()), NO_NAMES);
        // A second erasure has nothing to do, and the user can store documents again.
        let again = erase(&engine, scenario.erased_user()).unwrap();
        assert_eq!((again.documents, again.segments), (0, 0));
        scenario.write(&engine).unwrap();
        assert!(!contents(&engine, scenario.erased_user()).is_empty());
    }
}

#[test]
fn documents_deleted_earlier_are_erased_too() {
    let store = Store::new();
    let mut scenario = ErasureScenario::new(3);
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    for client in &scenario.erased_user().clients {
        let namespace = engine
            .namespace(&scenario.erased_user().name, client)
            .unwrap();
        namespace
            .write(Change::Delete, WriteOptions::default())
            .unwrap();
    }
    engine.close().unwrap();
    // Open the store without a catalogue. The folder of the catalogue still exists.
    let mut config = store.config();
    config.catalogue = false;
    let engine = Engine::open(config).unwrap();
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert!(erased.is_complete() && erased.documents == 0, "{erased:?}");
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(files_with_traces(&files, scenario.erased_user()), NO_FILES);
}

#[test]
fn leftover_files_and_bytes_after_a_segment_are_removed() {
    let store = Store::new();
    let mut scenario = ErasureScenario::new(4);
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    let others = scenario.other_contents(&engine);
    let trace = scenario.erased_user().needles[9].clone().into_bytes();
    let segment = store.files("log", ".seg").remove(0);
    let mut longer = store.disk.bytes(&segment);
    longer.extend_from_slice(&trace);
    store.disk.overwrite(&segment, longer);
    let leftovers = [1, 0x77].map(|id| format!("log/{id:08x}.sum.new"));
    let leftovers = leftovers.into_iter().chain(["log/00000077.seg".to_owned()]);
    let leftovers: Vec<_> = leftovers.map(|file| store.path(&file)).collect();
    for file in &leftovers {
        store.disk.place(file, trace.clone());
    }
    // Erase a user without documents, so that no segment is rewritten.
    let erased = engine.erase("nobody", &mut |_| {}).unwrap();
    assert!(erased.is_complete() && erased.segments == 0);
    assert!(!store.disk.bytes(&segment).ends_with(&trace));
    let files = store.disk.files();
    assert!(!leftovers.iter().any(|file| files.contains(file)));
    assert_eq!(scenario.other_contents(&engine), others);
}

#[test]
fn files_held_by_a_snapshot_are_reported_and_removed_later() {
    let store = Store::new();
    let mut scenario = ErasureScenario::new(5);
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    let others = scenario.other_contents(&engine);
    let snapshot = engine.snapshot().unwrap();
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert!(erased.held_by_snapshots > 1 && !erased.is_complete());
    assert_eq!((erased.deletes_kept, &*erased.unreadable), (0, &[][..]));
    let files = all_files(store.dir.path(), Some(&store));
    let held = snapshot.files().iter().map(|file| store.path(file.path()));
    let mut held: Vec<_> = held.collect();
    held.extend(store.files("log", ".sum"));
    let left = files_with_traces(&files, scenario.erased_user());
    assert!(!left.is_empty() && left.iter().all(|path| held.contains(path)));
    drop(snapshot);
    engine.compact().unwrap();
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(files_with_traces(&files, scenario.erased_user()), NO_FILES);
    assert!(
        erase(&engine, scenario.erased_user())
            .unwrap()
            .is_complete()
    );
    scenario.assert_erased(&engine, &others, "without the snapshot");
}

#[test]
fn damaged_segment_is_reported_and_the_rest_is_erased() {
    let store = Store::new();
    let mut scenario = ErasureScenario::new(6);
    let engine = store.open().unwrap();
    let (kept, word) = ("kept", needle(&mut scenario.random));
    scenario.users[0].clients.push(kept.to_owned());
    let namespace = engine.namespace(&scenario.users[0].name, kept).unwrap();
    let text = format!("{{\"kept\":\"{word}\"}}");
    namespace
        .write(text.as_bytes(), WriteOptions::default())
        .unwrap();
    for _ in 0..2 {
        scenario.write(&engine).unwrap();
    }
    engine.close().unwrap();
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    let others = scenario.other_contents(&engine);
    engine.close().unwrap();
    // Damage a document of another user in the first segment.
    let first = &store.files("log", ".seg")[0];
    let intact = store.disk.bytes(first);
    let is_word = |window: &[u8]| window == word.as_bytes();
    let at = intact.windows(word.len()).position(is_word).unwrap();
    let mut damaged = intact.clone();
    damaged[at + 20] ^= 1;
    store.disk.overwrite(first, damaged);
    let engine = store.open().unwrap();
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert_eq!(unreadable_segments(&erased), [first]);
    assert!(erased.documents > 0 && erased.deletes_kept > 0 && !erased.is_complete());
    assert_eq!(contents(&engine, scenario.erased_user()), Contents::new());
    engine.close().unwrap();
    store.disk.overwrite(first, intact);
    let engine = store.open().unwrap();
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert!(erased.is_complete(), "{erased:?}");
    let files = all_files(store.dir.path(), Some(&store));
    assert_eq!(files_with_traces(&files, scenario.erased_user()), NO_FILES);
    scenario.assert_erased(&engine, &others, "repaired");
}

/// Regression test. If a segment could not be read while it was searched, but could be read while it
/// was rewritten, the erasure was complete, and the user's documents were still there.
#[test]
fn reads_that_fail_for_a_time_never_make_an_erasure_look_complete() {
    let mut incomplete = 0;
    for failing in 0..20 {
        let store = Store::new();
        let engine = store.open().unwrap();
        put(&engine, "secret", "{}").unwrap();
        let others = engine.namespace("other", "c").unwrap();
        others.write(b"{}", WriteOptions::default()).unwrap();
        engine.close().unwrap();
        let engine = store.open().unwrap();
        engine.list("u", None, 1).unwrap();
        let mut reads = 0;
        store.disk.set_fault(Box::new(move |operation, path| {
            let is_segment = path.extension().is_some_and(|e| e == "seg" || e == "sum");
            reads += usize::from(operation == DiskOperation::Read && is_segment);
            let is_failing = operation == DiskOperation::Read && is_segment && reads <= failing;
            is_failing.then_some(ErrorKind::Other)
        }));
        let is_complete = match engine.erase("u", &mut |_| {}) {
            Ok(erased) => erased.is_complete(),
            Err(error) => panic!("{failing}: {error}"),
        };
        store.disk.clear_fault();
        incomplete += usize::from(!is_complete);
        if !is_complete {
            let again = engine.erase("u", &mut |_| {}).unwrap();
            assert!(again.is_complete(), "{failing}: {again:?}");
        }
        let check = |engine: &Engine| {
            assert_eq!(read(engine, "secret").unwrap(), None, "{failing}");
            let all = engine.list_all(None, 9).unwrap();
            assert_eq!(all.len(), 1, "{failing}: {all:?}");
        };
        check(&engine);
        engine.close().unwrap();
        check(&store.open().unwrap());
    }
    assert!(incomplete > 0);
}

#[test]
fn completely_unreadable_segment_is_reported() {
    let (store, engine, scenario, _) = open_scenario(true);
    engine.close().unwrap();
    let first = store.files("log", ".seg").remove(0);
    for file in [first.clone(), first.with_extension("sum")] {
        let zeros = vec![0; store.disk.bytes(&file).len()];
        store.disk.overwrite(&file, zeros);
    }
    let engine = store.open().unwrap();
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert_eq!(unreadable_segments(&erased), [&first]);
    // Every delete must be kept, because the unreadable segment may contain the frames that the
    // delete hides.
    assert!(erased.deletes_kept > 0 && !erased.is_complete());
    for client in &scenario.erased_user().clients {
        let document = engine.get(&scenario.erased_user().name, client);
        assert!(matches!(document, Ok(None) | Err(Error::Corrupt { .. })));
    }
}

#[test]
fn erasure_during_concurrent_writes_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let mut scenario = ErasureScenario::new(8);
    let engine = Engine::open(config.clone()).unwrap();
    scenario.write(&engine).unwrap();
    let is_done = AtomicBool::new(false);
    let mut busy = ErasureScenario::new(9);
    let new_document = "{\"again\":1}";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                busy.write(&engine).unwrap();
            }
        });
        let _stop = StopOnDrop(&is_done);
        for _ in 0..5 {
            scenario.users[1]
                .write(&engine, &mut scenario.random)
                .unwrap();
            let others = scenario.other_contents(&engine);
            let erased = erase(&engine, scenario.erased_user()).unwrap();
            assert!(erased.is_complete(), "{erased:?}");
            scenario.assert_erased(&engine, &others, "while others write");
            let files = all_files(dir.path(), None);
            assert_eq!(files_with_traces(&files, scenario.erased_user()), NO_FILES);
        }
        let user = scenario.erased_user();
        let namespace = engine.namespace(&user.name, &user.clients[0]).unwrap();
        namespace
            .write(new_document.as_bytes(), WriteOptions::default())
            .unwrap();
    });
    assert_eq!(
        listed_clients(&engine, scenario.erased_user()),
        [scenario.erased_user().clients[0].clone()]
    );
    let expected = busy.other_contents(&engine);
    engine.close().unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(busy.other_contents(&engine), expected);
    let found = contents(&engine, scenario.erased_user());
    assert_eq!(found.values().next().unwrap().0, new_document);
}

/// An open store that was reopened once, and the documents of the users that are not erased.
fn open_scenario(has_catalogue: bool) -> (Store, Engine, ErasureScenario, Vec<Contents>) {
    let store = if has_catalogue {
        Store::new()
    } else {
        Store::without_catalogue()
    };
    let mut scenario = ErasureScenario::new(10);
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    engine.close().unwrap();
    let engine = store.open().unwrap();
    scenario.write(&engine).unwrap();
    let others = scenario.other_contents(&engine);
    (store, engine, scenario, others)
}

/// Reopens the store, erases the user again, and asserts that the erasure is complete.
fn assert_rerun_completes(
    store: &Store,
    scenario: &ErasureScenario,
    others: &[Contents],
    context: &str,
) {
    let engine = store.open().unwrap();
    assert_eq!(scenario.other_contents(&engine), others, "{context}");
    let erased = erase(&engine, scenario.erased_user()).unwrap();
    assert!(erased.is_complete(), "{context}: {erased:?}");
    let files = all_files(store.dir.path(), Some(store));
    let left = files_with_traces(&files, scenario.erased_user());
    assert_eq!(left, NO_FILES, "{context}");
    scenario.assert_erased(&engine, others, context);
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
fn failed_erasure_names_its_cause_and_a_rerun_completes() {
    let (store, engine, scenario, others) = open_scenario(false);
    store.disk.set_capacity(store.disk.used_bytes());
    match erase(&engine, scenario.erased_user()) {
        Ok(erased) => assert!(erased.is_complete(), "{erased:?}"),
        Err(error) => assert!(matches!(error, Error::StorageFull { .. }), "{error}"),
    }
    store.disk.set_capacity(u64::MAX);
    engine.close().unwrap();
    assert!(matches!(
        erase(&engine, scenario.erased_user()),
        Err(Error::Closed)
    ));
    assert_rerun_completes(&store, &scenario, &others, "with more room");

    let (store, engine, scenario, others) = open_scenario(false);
    store.disk.set_fault(Box::new(|operation, _| {
        (operation == DiskOperation::Sync).then_some(ErrorKind::Other)
    }));
    for _ in 0..2 {
        let outcome = erase(&engine, scenario.erased_user());
        assert!(matches!(outcome, Err(Error::Poisoned { .. })));
    }
    store.disk.clear_fault();
    drop(engine);
    assert_rerun_completes(&store, &scenario, &others, "reopened");
    assert!(matches!(
        store.open().unwrap().erase("", &mut |_| {}),
        Err(Error::InvalidName { .. })
    ));
}

#[test]
fn segment_with_a_written_summary_gets_no_more_frames() {
    let store = Store::new();
    let engine = store.open().unwrap();
    put(&engine, "before", "{}").unwrap();
    store.disk.set_fault(Box::new(|operation, path| {
        let is_segment = path.extension().is_some_and(|e| e == "seg");
        (operation == DiskOperation::Create && is_segment).then_some(ErrorKind::Other)
    }));
    // The summary of the first segment is written before the next segment is created.
    let outcome = engine.erase("nobody", &mut |_| {});
    assert!(matches!(outcome, Err(Error::Io { .. })), "{outcome:?}");
    store.disk.clear_fault();
    put(&engine, "later", "{}").unwrap();
    assert_eq!(store.files("log", ".seg").len(), 2);
    // This erasure rebuilds the catalogue from the summaries. The listing must be complete.
    engine.erase("nobody", &mut |_| {}).unwrap();
    let entries = engine.list("u", None, usize::MAX).unwrap();
    let clients: Vec<_> = entries.iter().map(|entry| &*entry.client).collect();
    assert_eq!(clients, ["before", "later"]);
}

#[test]
fn rerun_completes_an_erasure_after_a_crash_at_any_operation() {
    for operation in 0.. {
        let (store, engine, scenario, others) = open_scenario(operation % 16 == 0);
        store.disk.cut_power_after(operation);
        let outcome = erase(&engine, scenario.erased_user());
        let after = store.crashed(unsynced(operation % 4));
        let context = format!("operation {operation}");
        if let Ok(erased) = &outcome {
            // A crash must not restore erased data, even if all unsynced operations are lost.
            assert!(erased.is_complete(), "{context}: {erased:?}");
            let lost = store.crashed(Unsynced::Lost);
            let files = all_files(lost.dir.path(), Some(&lost));
            assert_eq!(
                files_with_traces(&files, scenario.erased_user()),
                NO_FILES,
                "{context}"
            );
        }
        assert_rerun_completes(&after, &scenario, &others, &context);
        if outcome.is_ok() {
            assert!(operation > 100, "only {operation} operations were tried");
            println!("an erasure has {operation} operations");
            return;
        }
    }
}

#[test]
fn erasure_with_a_failed_operation_reports_it_or_completes() {
    for operation in 0.. {
        let (store, engine, scenario, others) = open_scenario(false);
        let count = fail_once_at(&store.disk, operation, ErrorKind::Other);
        let outcome = erase(&engine, scenario.erased_user());
        let context = format!("operation {operation}: {outcome:?}");
        let is_done = count.load(Ordering::Relaxed) <= operation;
        store.disk.clear_fault();
        if outcome.is_ok_and(|erased| erased.is_complete()) {
            let files = all_files(store.dir.path(), Some(&store));
            assert_eq!(
                files_with_traces(&files, scenario.erased_user()),
                NO_FILES,
                "{context}"
            );
        }
        let poisoned = engine.writable().is_err();
        if !poisoned {
            assert!(
                erase(&engine, scenario.erased_user())
                    .unwrap()
                    .is_complete(),
                "{context}"
            );
        }
        let _ = engine.close();
        assert_rerun_completes(&store, &scenario, &others, &context);
        if is_done {
            return;
        }
    }
}
