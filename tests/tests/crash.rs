//! SIGKILL, again and again, under load and while starting: every open succeeds, and
//! what was acknowledged is there, or what was attempted after it, whole.

mod common;

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::BINARY;
use prefd_tests::crash_model::{Model, check};
use prefd_tests::load::{CONNECTIONS, Load};
use prefd_tests::machine::{has_strace, report};
use prefd_tests::random::{Random, seeds};
use prefd_tests::server::{Launch, Server};
use prefd_tests::strace::inject;
use tempfile::TempDir;

/// One kill of this many comes while the server starts.
const STARTING_PART: u64 = 5;
/// As many kills of starting servers in a row, at most.
const MAX_IN_A_ROW: u64 = 4;
/// Writes of a life, at most, besides one of each connection.
const LIFE_WRITES: u64 = 3_000;
/// What a start does to the disk, as strace names it: by patterns, where the call has
/// another name on another processor.
const STEPS: [&str; 6] = [
    "pwrite64",
    "fdatasync",
    "fsync",
    "/^rename",
    "/^unlink",
    "ftruncate",
];
const SIGKILL: i32 = 9;

/// How many kills: `PREFD_TEST_KILLS`, or 50.
fn kills() -> u64 {
    std::env::var("PREFD_TEST_KILLS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(50)
}

/// One directory, and the servers that live and die on it.
struct Lives {
    dir: TempDir,
    launch: Launch,
    model: Arc<Model>,
    random: Random,
    /// How long the last start took.
    start: Duration,
}

impl Lives {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Segments so short that each life seals some and compaction has some to rewrite.
        let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "131072"]);
        Self {
            dir,
            launch,
            model: Arc::default(),
            random: Random::new(seed),
            start: Duration::ZERO,
        }
    }

    fn start(&mut self) -> Server {
        let began = Instant::now();
        let server = self.launch.start();
        self.start = began.elapsed();
        server
    }

    /// A life under load, of which the kill comes at another point each time.
    fn kill_under_load(&mut self, writes: u64) {
        let server = self.start();
        let load = Load::start(&server, &self.model, self.random.draw());
        let attempts = CONNECTIONS + self.random.below(writes);
        load.wait_for_attempts(self.model.attempts() + attempts);
        server.kill();
        load.join();
    }

    /// A life that ends before it serves; false where it came to serve.
    fn kill_starting(&mut self) -> bool {
        let usual = u64::try_from(self.start.as_micros()).unwrap();
        let moment = Duration::from_micros(self.random.below(usual));
        let starting = self.launch.spawn();
        // Not to wait for something: to be anywhere in the start.
        std::thread::sleep(moment);
        !starting.kill()
    }

    /// Opens what they left, and goes on from what is there.
    fn check(&self, context: &str) {
        let found = check(self.dir.path(), &self.model.allowed(), context);
        self.model.settle(found);
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_sigkill() {
    let seed = seeds(1).start;
    let mut lives = Lives::new(seed);
    let starting = kills() / STARTING_PART;
    let under_load = (kills() - starting).max(1);
    let mut done_starting = 0;
    let began = Instant::now();
    for life in 1..=under_load {
        lives.kill_under_load(LIFE_WRITES);
        let without_catalogue = lives.random.below(2) == 0;
        if without_catalogue {
            std::fs::remove_dir_all(lives.dir.path().join("catalogue")).unwrap();
        }
        let mut due = (starting * life / under_load).saturating_sub(done_starting);
        // Several in a row: each start finds what the one before it left undone.
        if due < 1 + lives.random.below(MAX_IN_A_ROW) && life < under_load {
            due = 0;
        }
        while due > 0 {
            let was_starting = u64::from(lives.kill_starting());
            (due, done_starting) = (due - was_starting, done_starting + was_starting);
        }
        // Otherwise the next life opens what this one left, unseen by us.
        if lives.random.below(2) == 0 || life == under_load {
            lives.check(&format!(
                "PREFD_TEST_SEED={seed}, life {life}, {done_starting} killed while starting, \
                 without the catalogue: {without_catalogue}"
            ));
        }
    }
    report(&format!(
        "{under_load} kills under load and {done_starting} while starting, {} writes, {:?}",
        lives.model.attempts(),
        began.elapsed()
    ));
}

/// Random moments miss short steps; here the kill comes with each of them in turn.
#[test]
fn nor_by_a_kill_at_any_step_of_a_start() {
    if !has_strace() {
        return;
    }
    let seed = seeds(1).start;
    let mut lives = Lives::new(seed);
    let mut killed = 0;
    for call in STEPS {
        for step in 1.. {
            // Something to recover each time.
            lives.kill_under_load(CONNECTIONS);
            let context = format!("PREFD_TEST_SEED={seed}, killed at {call} {step}");
            let fault = format!("signal=KILL:when={step}");
            let Err(ended) = inject(&lives.launch, call, &fault).try_start() else {
                // Through, without that many of them.
                break;
            };
            assert_eq!(ended.status.signal(), Some(SIGKILL), "{context}: {ended:?}");
            killed += 1;
            lives.check(&context);
        }
        lives.check(call);
    }
    report(&format!("killed at {killed} steps of starts"));
    assert!(killed > 10, "{killed}");
}
