//! Snapshots that are taken while writers hammer the store, and compaction runs: each must
//! be explained by one moment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prefd_engine::{Change, Config, Durability, Engine, Revision, Snapshot, WriteOptions};
use prefd_tests::copies::{files, lay, verified};
use prefd_tests::put::Put;
use prefd_tests::raised::RaisedAtEnd;
use prefd_tests::random::{Random, seeds};
use prefd_tests::sim_store::{body, read};

/// One write of a writer that hammers two namespaces.
struct Step {
    namespace: usize,
    /// `None`: a delete.
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

/// What a writer's namespaces hold after so many of its steps.
fn state_after(steps: &[Step]) -> [Option<&String>; 2] {
    [0, 1].map(|namespace| {
        let last = steps.iter().rfind(|step| step.namespace == namespace);
        last.and_then(|step| step.text.as_ref())
    })
}

/// A writer, as far as it has come.
#[derive(Default)]
struct Progress {
    attempted: AtomicUsize,
    acknowledged: AtomicUsize,
}

struct Taken {
    snapshot: Snapshot,
    files: BTreeMap<String, Vec<u8>>,
    acknowledged_before: Vec<usize>,
    attempted_after: Vec<usize>,
}

/// All that a writer has done.
struct Written {
    steps: Vec<Step>,
    revisions: Vec<Option<Revision>>,
}

const WRITERS: usize = 4;
/// Of each writer, at least.
const STEPS: u64 = 500;
/// Snapshots, at least, and at most.
const ENOUGH: usize = 6;
const MANY: usize = 60;

/// Goes on until enough snapshots are taken.
fn write(
    engine: &Engine,
    writer: usize,
    mut random: Random,
    progress: &Progress,
    is_enough: &AtomicBool,
) -> Written {
    let (mut steps, mut revisions) = (Vec::new(), Vec::new());
    for number in 0.. {
        if number >= STEPS && is_enough.load(Ordering::SeqCst) {
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
    Written { steps, revisions }
}

#[test]
fn a_copy_taken_under_load_is_the_store_at_one_moment() {
    for seed in seeds(2) {
        println!("seed {seed}");
        under_load(seed);
    }
}

fn under_load(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.segment_bytes = Config::MIN_SEGMENT_BYTES;
    config.inline_bytes = 2048;
    let engine = Engine::open(config).unwrap();
    let progress: [Progress; WRITERS] = Default::default();
    let (is_enough, is_over) = <(AtomicBool, AtomicBool)>::default();
    let (taken, written) = std::thread::scope(|scope| {
        let writers: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(writer, progress)| {
                let (engine, is_enough) = (&engine, &is_enough);
                let random = Random::new(seed * 100 + writer as u64);
                scope.spawn(move || write(engine, writer, random, progress, is_enough))
            })
            .collect();
        let snapshots = scope.spawn(|| {
            let enough = RaisedAtEnd(&is_enough);
            let mut taken = Vec::new();
            while taken.len() < ENOUGH {
                taken.push(take(&engine, &progress));
            }
            drop(enough);
            while !is_over.load(Ordering::SeqCst) && taken.len() < MANY {
                taken.push(take(&engine, &progress));
            }
            taken
        });
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                engine.compact().unwrap();
            }
        });
        let end = RaisedAtEnd(&is_over);
        let written: Vec<_> = writers.into_iter().map(|w| w.join().unwrap()).collect();
        drop(end);
        (snapshots.join().unwrap(), written)
    });
    for one in &taken {
        is_one_moment(one, &written);
    }
}

fn take(engine: &Engine, progress: &[Progress]) -> Taken {
    let load = |of: fn(&Progress) -> &AtomicUsize| -> Vec<usize> {
        let count = |progress| of(progress).load(Ordering::SeqCst);
        progress.iter().map(count).collect()
    };
    let acknowledged_before = load(|progress| &progress.acknowledged);
    let snapshot = engine.snapshot().unwrap();
    let attempted_after = load(|progress| &progress.attempted);
    Taken {
        files: files(&snapshot),
        snapshot,
        acknowledged_before,
        attempted_after,
    }
}

fn is_one_moment(taken: &Taken, written: &[Written]) {
    let dir = lay(&taken.files);
    assert_eq!(verified(dir.path()).problems, []);
    let copy = Engine::open(Config::new(dir.path())).unwrap();
    assert_eq!(copy.documents(), taken.snapshot.documents());
    let newest = taken.snapshot.revision();
    for (writer, Written { steps, revisions }) in written.iter().enumerate() {
        let clients = [0, 1].map(|namespace| format!("w{writer}-{namespace}"));
        for client in &clients {
            assert!(copy.namespace("u", client).unwrap().revision().unwrap() <= newest);
        }
        let found = clients.map(|client| read(&copy, &client).unwrap());
        let found = [0, 1].map(|namespace: usize| found[namespace].as_ref());
        let is_before = |revision: &Option<Revision>| revision.is_some_and(|r| Some(r) <= newest);
        let is_behind = |revision: &Option<Revision>| revision.is_some_and(|r| Some(r) > newest);
        // One cut: at least what was acknowledged, and every put of a revision up to the
        // newest; at most what was attempted, and no put of a later one.
        let least = revisions
            .iter()
            .rposition(is_before)
            .map_or(0, |last| last + 1);
        let least = least.max(taken.acknowledged_before[writer]);
        let most = revisions.iter().position(is_behind).unwrap_or(steps.len());
        let most = most.min(taken.attempted_after[writer]);
        assert!(
            (least..=most).any(|cut| state_after(&steps[..cut]) == found),
            "writer {writer}: none of {least}..={most} explains {found:?}"
        );
    }
}
