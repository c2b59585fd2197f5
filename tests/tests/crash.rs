//! SIGKILL under load and during starts. After each kill the store must open, and each
//! namespace must hold the complete document of its last acknowledged write, or of a write that
//! was attempted later.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::BINARY;
use prefd_tests::crash_model::{CrashModel, check};
use prefd_tests::load::{CONNECTIONS, Load};
use prefd_tests::machine::{has_strace, report};
use prefd_tests::random::{Random, seeds};
use prefd_tests::server::{Launch, Server};
use prefd_tests::strace::inject;
use tempfile::TempDir;

/// One kill in this many hits a starting server.
const START_KILL_INTERVAL: u64 = 5;
/// Kills during a start wait until a random number of them is due, at most this many, and are
/// then done in a row.
const MAX_START_KILLS_IN_A_ROW: u64 = 4;
/// Maximum number of writes before a kill, in addition to one per connection.
const MAX_WRITES: u64 = 3_000;
/// The system calls with which a start changes the disk, in strace's syntax. Calls that have
/// different names on different processors are patterns.
const SYSCALLS: [&str; 6] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "/^rename",
    "/^unlink",
    "ftruncate",
];
const SIGKILL: i32 = 9;

/// The number of kills: `PREFD_TEST_KILLS`, or 50.
fn kills() -> u64 {
    std::env::var("PREFD_TEST_KILLS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(50)
}

/// A data directory on which servers are started and killed, one after another.
struct KillTest {
    dir: TempDir,
    launch: Launch,
    model: Arc<CrashModel>,
    random: Random,
    /// The duration of the last complete start.
    last_start: Duration,
}

impl KillTest {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Segments are small, so that every run seals some and compaction can rewrite some.
        let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "131072"]);
        Self {
            dir,
            launch,
            model: Arc::default(),
            random: Random::new(seed),
            last_start: Duration::ZERO,
        }
    }

    fn start(&mut self) -> Server {
        let began = Instant::now();
        let server = self.launch.start();
        self.last_start = began.elapsed();
        server
    }

    /// Kills a server under load after a random number of writes.
    fn kill_under_load(&mut self, writes: u64) {
        let server = self.start();
        let load = Load::start(&server, &self.model, self.random.draw());
        let attempts = CONNECTIONS + self.random.below(writes);
        load.wait_for_attempts(self.model.attempts() + attempts);
        server.kill();
        load.join();
    }

    /// Kills a server at a random moment of its start. Returns false if the server was already
    /// listening.
    fn kill_during_start(&mut self) -> bool {
        let usual = u64::try_from(self.last_start.as_micros()).unwrap();
        let moment = Duration::from_micros(self.random.below(usual));
        let starting = self.launch.spawn();
        // The sleep does not wait for a state. It picks a random moment of the start.
        std::thread::sleep(moment);
        !starting.kill()
    }

    /// Checks the store that the killed servers left. The model continues from its contents.
    fn check(&self, context: &str) {
        let found = check(self.dir.path(), &self.model.allowed(), context);
        self.model.settle(found);
    }
}

#[test]
fn sigkill_under_load_or_at_start_loses_no_acknowledged_write() {
    let seed = seeds(1).start;
    let mut test = KillTest::new(seed);
    let start_kills = kills() / START_KILL_INTERVAL;
    let load_kills = (kills() - start_kills).max(1);
    let mut done_start_kills = 0;
    let began = Instant::now();
    for run in 1..=load_kills {
        test.kill_under_load(MAX_WRITES);
        let is_catalogue_removed = test.random.below(2) == 0;
        if is_catalogue_removed {
            std::fs::remove_dir_all(test.dir.path().join("catalogue")).unwrap();
        }
        let mut due = (start_kills * run / load_kills).saturating_sub(done_start_kills);
        // Kill several starts in a row, so that a start meets a recovery that was interrupted.
        if due < 1 + test.random.below(MAX_START_KILLS_IN_A_ROW) && run < load_kills {
            due = 0;
        }
        while due > 0 {
            let was_starting = u64::from(test.kill_during_start());
            (due, done_start_kills) = (due - was_starting, done_start_kills + was_starting);
        }
        // If the store is not checked here, the next server is the first to open it after the
        // kill.
        if test.random.below(2) == 0 || run == load_kills {
            test.check(&format!(
                "PREFD_TEST_SEED={seed}, run {run}, {done_start_kills} starts killed, \
                 catalogue removed: {is_catalogue_removed}"
            ));
        }
    }
    report(&format!(
        "{load_kills} kills under load, {done_start_kills} kills during a start, {} writes, {:?}",
        test.model.attempts(),
        began.elapsed()
    ));
}

/// Kills at random moments rarely hit a short system call, so this test kills the server at each
/// system call in turn.
#[test]
fn sigkill_at_any_syscall_of_a_start_loses_no_acknowledged_write() {
    if !has_strace() {
        return;
    }
    let seed = seeds(1).start;
    let mut test = KillTest::new(seed);
    let mut killed = 0;
    for call in SYSCALLS {
        for number in 1.. {
            // Leave something to recover for the next start.
            test.kill_under_load(CONNECTIONS);
            let context = format!("PREFD_TEST_SEED={seed}, killed at {call} number {number}");
            let fault = format!("signal=KILL:when={number}");
            let Err(ended) = inject(&test.launch, call, &fault).try_start() else {
                // The start completed with fewer calls than `number`.
                break;
            };
            assert_eq!(ended.status.signal(), Some(SIGKILL), "{context}: {ended:?}");
            killed += 1;
            test.check(&context);
        }
        test.check(call);
    }
    report(&format!("{killed} starts killed at a system call"));
    assert!(
        killed > 10,
        "expected over 10 killed starts, found {killed}"
    );
}
