//! The times of writes if the clock of the machine is wrong: the time of a write is never earlier
//! than the time of an earlier write, even over restarts and upgrades.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use common::wait_until;
use prefd_engine::clock::Clock;
use prefd_engine::{Config, Engine, WriteOptions};
use prefd_tests::golden::{FORMATS, Golden};
use prefd_tests::put_ext::PutExt;

const NOW_MS: u64 = 1_796_000_000_000;
const HOUR_MS: u64 = 3_600_000;

#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn at(now_ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(now_ms)))
    }

    fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn config(dir: &Path, clock: &TestClock) -> Config {
    let mut config = Config::new(dir);
    config.clock = Arc::new(clock.clone());
    config
}

/// Writes a document, and returns its time.
fn write(engine: &Engine, client: &str) -> u64 {
    let namespace = engine.namespace("u", client).unwrap();
    namespace.put(b"{}", WriteOptions::default()).unwrap();
    let stat = namespace.stat().unwrap().unwrap();
    let modified = stat.modified.duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(modified.as_millis()).unwrap()
}

#[test]
fn write_after_the_clock_went_back_has_a_later_second() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(NOW_MS);
    let engine = Engine::open(config(dir.path(), &clock)).unwrap();
    assert_eq!(write(&engine, "a"), NOW_MS);
    clock.set(NOW_MS - HOUR_MS);
    // The second write is to another namespace: the store has one clock.
    for client in ["b", "a", "b"] {
        assert_eq!(write(&engine, client), NOW_MS + 1000);
    }
    clock.set(NOW_MS + 500);
    assert_eq!(write(&engine, "a"), NOW_MS + 1000);
    clock.set(NOW_MS + 5000);
    assert_eq!(write(&engine, "a"), NOW_MS + 5000);
}

#[test]
fn write_after_a_restart_with_an_earlier_clock_has_a_later_second() {
    // With an orderly close, and after a kill with and without a mark.
    for (is_closed, mark_delay) in [
        (true, Duration::MAX),
        (false, Duration::MAX),
        (false, Duration::from_millis(1)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::at(NOW_MS);
        let mut config = config(dir.path(), &clock);
        config.mark_delay = mark_delay;
        let engine = Engine::open(config).unwrap();
        assert_eq!(write(&engine, "a"), NOW_MS);
        if mark_delay < Duration::MAX {
            wait_until("a mark is written", || engine.metrics().marks > 0);
        }
        let copy = tempfile::tempdir().unwrap();
        if is_closed {
            engine.close().unwrap();
        }
        for folder in ["log", "blobs"] {
            std::fs::create_dir(copy.path().join(folder)).unwrap();
            for file in std::fs::read_dir(dir.path().join(folder)).unwrap() {
                let file = file.unwrap();
                std::fs::copy(file.path(), copy.path().join(folder).join(file.file_name()))
                    .unwrap();
            }
        }
        for restart in 1..=3 {
            clock.set(restart);
            let engine = Engine::open(self::config(copy.path(), &clock)).unwrap();
            assert_eq!(write(&engine, "a"), NOW_MS + restart * 1000);
            engine.close().unwrap();
        }
    }
}

/// Returns the time of the document in whole seconds, as a date shows it, or `None` if no document
/// is stored.
fn shown_second(engine: &Engine, client: &str, now_ms: u64) -> Option<u64> {
    let latest = engine.latest_date(UNIX_EPOCH + Duration::from_millis(now_ms));
    let stat = engine.namespace("u", client).unwrap().stat().unwrap()?;
    let shown = stat.modified.min(latest).duration_since(UNIX_EPOCH);
    Some(shown.unwrap().as_secs())
}

#[test]
fn write_after_its_date_was_shown_has_a_later_second_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(NOW_MS + 100);
    let mut engine = Engine::open(config(dir.path(), &clock)).unwrap();
    let first = write(&engine, "a");
    assert_eq!(first, NOW_MS + 100);
    for written in 1..=4 {
        // The date is shown while the clock is ahead. Then the clock goes back, and the document is
        // written again.
        let shown = shown_second(&engine, "a", NOW_MS + HOUR_MS).unwrap();
        assert_eq!(shown, NOW_MS / 1000 + written - 1);
        if written % 2 == 0 {
            engine.close().unwrap();
            engine = Engine::open(config(dir.path(), &clock)).unwrap();
        }
        clock.set(NOW_MS + 200 + written);
        assert_eq!(write(&engine, "a") / 1000, shown + 1);
        // The next write in this second keeps the time, because its date has not been shown.
        assert_eq!(write(&engine, "b") / 1000, shown + 1);
    }
    // A read while the clock is ahead does not move the times of later writes into the future.
    clock.set(NOW_MS + 20_000);
    assert_eq!(write(&engine, "a"), NOW_MS + 20_000);
}

/// A reader shows dates while a writer replaces the document and the clock stands still, so that
/// many dates are shown during a commit.
#[test]
fn date_shown_during_a_commit_is_earlier_than_the_committed_write() {
    const WRITES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::at(NOW_MS);
    let engine = Engine::open(config(dir.path(), &clock)).unwrap();
    let is_done = AtomicBool::new(false);
    let (written, shown) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let written: Vec<u64> = (0..WRITES).map(|_| write(&engine, "a") / 1000).collect();
            is_done.store(true, Ordering::Release);
            written
        });
        // The revisions that were read, each with the date that was shown.
        let mut shown = Vec::new();
        while !is_done.load(Ordering::Acquire) {
            let latest = engine.latest_date(UNIX_EPOCH + Duration::from_millis(NOW_MS + HOUR_MS));
            let stat = engine.namespace("u", "a").unwrap().stat().unwrap();
            let Some(stat) = stat else { continue };
            let date = stat.modified.min(latest).duration_since(UNIX_EPOCH);
            shown.push((stat.revision, date.unwrap().as_secs()));
        }
        (writer.join().unwrap(), shown)
    });
    assert!(shown.len() >= WRITES, "{}", shown.len());
    let last = engine.namespace("u", "a").unwrap().stat().unwrap().unwrap();
    let first = last.revision.get() - (WRITES as u64 - 1);
    for (revision, date) in shown {
        let version = usize::try_from(revision.get() - first).unwrap();
        if let Some(next) = written.get(version + 1) {
            assert!(date < *next, "version {version}: {date}, {next}");
        }
    }
}

/// A manifest of an older format does not contain the highest time, so it is computed from the
/// documents.
#[test]
fn write_to_an_upgraded_store_has_a_later_second_than_all_documents() {
    for format in FORMATS {
        let golden = Golden::of(format);
        let clock = TestClock::at(0);
        let mut config = golden.config();
        config.clock = Arc::new(clock);
        let engine = Engine::open(config).unwrap();
        let highest = golden
            .listing()
            .iter()
            .filter_map(|listed| {
                engine
                    .namespace(&listed.user, &listed.client)
                    .unwrap()
                    .stat()
                    .unwrap()
            })
            .map(|stat| stat.modified.duration_since(UNIX_EPOCH).unwrap())
            .max()
            .unwrap();
        let written = Duration::from_millis(write(&engine, "a"));
        assert!(
            written >= highest + Duration::from_secs(1),
            "{written:?} {highest:?}"
        );
    }
}
