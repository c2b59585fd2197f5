//! Snapshots under load. Writers and compaction run while snapshots are taken, and each
//! snapshot must show the store at one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prefd_engine::{Change, Config, Durability, Engine, Revision, Snapshot, WriteOptions};
use prefd_tests::put_ext::PutExt;
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_store::{body, read};
use prefd_tests::snapshot_copy::{files, verify_dir, write_dir};
use prefd_tests::stop_flag::StopOnDrop;

/// One write to one of a writer's two namespaces.
struct Step {
    namespace: usize,
    /// The new document. `None` deletes the document.
    text: Option<String>,
}

impl Step {
    fn random(random: &mut Random, number: u64) -> Self {
        let size = [10, 300, 1_900, 4_000][random.below(4) as usize];
        let is_put = random.below(7) > 0;
        Self {
            namespace: (number % 2) as usize,
            text: is_put.then(|| body(number, size)),
        }
    }
}

/// The documents of a writer's two namespaces after `steps`.
fn state_after(steps: &[Step]) -> [Option<&String>; 2] {
    [0, 1].map(|namespace| {
        let last = steps.iter().rfind(|step| step.namespace == namespace);
        last.and_then(|step| step.text.as_ref())
    })
}

/// Number of steps that a writer has attempted, and that the engine has acknowledged.
#[derive(Default)]
struct Progress {
    attempted: AtomicUsize,
    acknowledged: AtomicUsize,
}

/// A snapshot, and the progress of all writers around it.
struct TakenSnapshot {
    snapshot: Snapshot,
    files: BTreeMap<String, Vec<u8>>,
    acknowledged_before: Vec<usize>,
    attempted_after: Vec<usize>,
}

/// The steps of one writer.
struct WriterHistory {
    steps: Vec<Step>,
    /// The revision of each put; `None` for a delete.
    revisions: Vec<Option<Revision>>,
}

const WRITERS: usize = 4;
/// Minimum number of steps of each writer.
const MIN_STEPS: u64 = 500;
/// Minimum number of snapshots per run.
const MIN_SNAPSHOTS: usize = 6;
/// Maximum number of snapshots per run.
const MAX_SNAPSHOTS: usize = 60;

/// Writes random steps until enough snapshots were taken.
fn run_writer(
    engine: &Engine,
    writer: usize,
    mut random: Random,
    progress: &Progress,
    is_enough: &AtomicBool,
) -> WriterHistory {
    let (mut steps, mut revisions) = (Vec::new(), Vec::new());
    for number in 0.. {
        if number >= MIN_STEPS && is_enough.load(Ordering::SeqCst) {
            break;
        }
        let (index, step) = (number as usize, Step::random(&mut random, number));
        let client = format!("w{writer}-{}", step.namespace);
        let namespace = engine.namespace("u", &client).unwrap();
        let options = WriteOptions {
            durability: (index % 5 == 0).then_some(Durability::Buffered),
            ..WriteOptions::default()
        };
        progress.attempted.store(index + 1, Ordering::SeqCst);
        revisions.push(match &step.text {
            Some(text) => Some(namespace.put(text.as_bytes(), options).unwrap()),
            None => namespace
                .write(Change::Delete, options)
                .map(|_| None)
                .unwrap(),
        });
        progress.acknowledged.store(index + 1, Ordering::SeqCst);
        steps.push(step);
    }
    WriterHistory { steps, revisions }
}

#[test]
fn snapshot_under_load_shows_the_store_at_one_moment() {
    for seed in seeds(2) {
        println!("seed {seed}");
        check_snapshots_under_load(seed);
    }
}

fn check_snapshots_under_load(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let engine = Engine::open(config).unwrap();
    let progress: [Progress; WRITERS] = Default::default();
    let (is_enough, is_over) = <(AtomicBool, AtomicBool)>::default();
    let (taken, histories) = std::thread::scope(|scope| {
        let writers: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(writer, progress)| {
                let (engine, is_enough) = (&engine, &is_enough);
                let random = Random::new(seed * 100 + writer as u64);
                scope.spawn(move || run_writer(engine, writer, random, progress, is_enough))
            })
            .collect();
        let snapshots = scope.spawn(|| {
            let enough = StopOnDrop(&is_enough);
            let mut taken = Vec::new();
            while taken.len() < MIN_SNAPSHOTS {
                taken.push(take_snapshot(&engine, &progress));
            }
            drop(enough);
            while !is_over.load(Ordering::SeqCst) && taken.len() < MAX_SNAPSHOTS {
                taken.push(take_snapshot(&engine, &progress));
            }
            taken
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                engine.compact().unwrap();
            }
        });
        let end = StopOnDrop(&is_over);
        let histories: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        drop(end);
        (snapshots.join().unwrap(), histories)
    });
    for snapshot in &taken {
        assert_one_moment(snapshot, &histories);
    }
}

fn take_snapshot(engine: &Engine, progress: &[Progress]) -> TakenSnapshot {
    let load = |of: fn(&Progress) -> &AtomicUsize| -> Vec<usize> {
        let count = |progress| of(progress).load(Ordering::SeqCst);
        progress.iter().map(count).collect()
    };
    let acknowledged_before = load(|progress| &progress.acknowledged);
    let snapshot = engine.snapshot().unwrap();
    let attempted_after = load(|progress| &progress.attempted);
    TakenSnapshot {
        files: files(&snapshot),
        snapshot,
        acknowledged_before,
        attempted_after,
    }
}

/// Panics unless, for each writer, the snapshot contains the documents after a prefix of the
/// writer's steps.
fn assert_one_moment(taken: &TakenSnapshot, histories: &[WriterHistory]) {
    let dir = write_dir(&taken.files);
    assert_eq!(verify_dir(dir.path()).problems, []);
    let copy = Engine::open(Config::new(dir.path())).unwrap();
    assert_eq!(copy.documents(), taken.snapshot.documents());
    let newest = taken.snapshot.revision();
    for (writer, WriterHistory { steps, revisions }) in histories.iter().enumerate() {
        let clients = [0, 1].map(|namespace| format!("w{writer}-{namespace}"));
        for client in &clients {
            assert!(copy.namespace("u", client).unwrap().revision().unwrap() <= newest);
        }
        let found = clients.map(|client| read(&copy, &client).unwrap());
        let found = [0, 1].map(|namespace: usize| found[namespace].as_ref());
        let is_before = |revision: &Option<Revision>| revision.is_some_and(|r| Some(r) <= newest);
        let is_after = |revision: &Option<Revision>| revision.is_some_and(|r| Some(r) > newest);
        // Lower bound: the steps acknowledged before the snapshot, and the last put whose
        // revision is at most the snapshot's. Upper bound: the steps attempted by the end of
        // the snapshot, and the first put whose revision is above the snapshot's.
        let least = revisions
            .iter()
            .rposition(is_before)
            .map_or(0, |last| last + 1);
        let least = least.max(taken.acknowledged_before[writer]);
        let most = revisions.iter().position(is_after).unwrap_or(steps.len());
        let most = most.min(taken.attempted_after[writer]);
        assert!(
            (least..=most).any(|count| state_after(&steps[..count]) == found),
            "writer {writer}: no state after {least} to {most} steps equals {found:?}"
        );
    }
}
