//! Failing system calls in the real server, injected by strace. Each system call that writes
//! depend on fails once: in the first run its first call, in the second run its second call, and
//! so on. A write that is not on stable storage never gets 204, and a write that got 204 exists
//! after a restart.

mod common;

use common::BINARY;
use prefd_tests::crash_model::{CrashModel, check};
use prefd_tests::machine::{has_strace, report};
use prefd_tests::server::{Launch, Server};
use prefd_tests::strace::inject;

/// The log message with which the server reports that it accepts no more writes.
const STOPPED: &str = "writing has stopped";
/// The highest number of the call that fails, counted per thread.
const MAX_CALL_NUMBER: u32 = 12;
const WRITES: u64 = 40;
const NAMES: u64 = 7;

/// What happened in runs with a fault.
#[derive(Debug, Default, Clone, Copy)]
struct FaultCounts {
    refused_starts: u32,
    /// Writes that got 501.
    failed: u32,
    /// Writes that got 507.
    full: u32,
    /// Runs in which the server stopped accepting writes.
    stopped: u32,
}

/// Sends one write after another, and reads every namespace after each write.
fn run_server(server: Server, model: &CrashModel, context: &str, counts: &mut FaultCounts) {
    let mut connection = server.connect();
    let mut was_stopped = false;
    for number in 0..WRITES {
        let name = ("user".to_owned(), format!("client-{}", number % NAMES));
        let status = model
            .write(&mut connection, &name, number % 9 == 5)
            .unwrap();
        match status {
            501 => counts.failed += 1,
            507 => counts.full += 1,
            _ => {}
        }
        let is_stopped = server.has_logged(STOPPED);
        assert!(
            !is_stopped || status == 501 || !was_stopped,
            "{context}: {number}: {status}"
        );
        was_stopped = is_stopped;
        model.check_reads(&mut connection, context);
    }
    counts.stopped += u32::from(server.has_logged(STOPPED));
    drop(connection);
    // The fault may also hit the shutdown. The server must exit anyway.
    assert!(
        server.stop().code().is_some(),
        "{context}: expected an exit code"
    );
}

/// Runs the server once per call number, on one data directory. In each run, the call with that
/// number fails. Checks the store after each run.
fn sweep(call: &str, error: &str) -> FaultCounts {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "65536"]);
    let model = CrashModel::default();
    let mut counts = FaultCounts::default();
    run_server(
        launch.start(),
        &model,
        "no fault",
        &mut FaultCounts::default(),
    );
    for number in 1..=MAX_CALL_NUMBER {
        let context = format!("{call} number {number} fails with {error}");
        let fault = format!("error={error}:when={number}");
        match inject(&launch, call, &fault).try_start() {
            Ok(server) => run_server(server, &model, &context, &mut counts),
            Err(ended) => {
                assert_eq!(ended.status.code(), Some(1), "{context}: {ended:?}");
                assert!(ended.err.contains("cannot open"), "{context}: {ended:?}");
                counts.refused_starts += 1;
            }
        }
        let found = check(dir.path(), &model.allowed(), &context);
        model.settle(found);
    }
    report(&format!("{call} fails with {error}: {counts:?}"));
    counts
}

#[test]
fn write_with_a_failed_fdatasync_never_gets_204() {
    if has_strace() {
        let counts = sweep("fdatasync", "EIO");
        assert!(counts.failed > 0 && counts.stopped > 0, "{counts:?}");
    }
}

#[test]
fn failed_fsync_of_a_directory_loses_no_acknowledged_write() {
    if has_strace() {
        let counts = sweep("fsync", "EIO");
        assert!(counts.failed > 0, "{counts:?}");
    }
}

#[test]
fn write_with_a_failed_pwrite_gets_501() {
    if has_strace() {
        let counts = sweep("pwrite64", "EIO");
        assert!(counts.failed > 0 && counts.full == 0, "{counts:?}");
    }
}

#[test]
fn write_without_space_gets_507() {
    if has_strace() {
        let counts = sweep("pwrite64", "ENOSPC");
        assert!(counts.full > 0, "{counts:?}");
    }
}

#[test]
fn failed_rename_loses_no_acknowledged_write() {
    if has_strace() {
        let counts = sweep("/^rename", "EIO");
        assert!(counts.failed > 0, "{counts:?}");
    }
}

#[test]
fn failed_sync_of_the_log_stops_writes_and_keeps_reads() {
    if !has_strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path());
    let model = CrashModel::default();
    let name = ("user".to_owned(), "client".to_owned());
    // The first syncs are those of the new segment and the manifest. Each write then syncs the
    // segment once, because no document is large enough for a blob.
    let server = inject(&launch, "fdatasync", "error=EIO:when=6").start();
    let mut connection = server.connect();
    let statuses: Vec<u16> = (0..12)
        .map(|_| model.write(&mut connection, &name, false).unwrap())
        .collect();
    let first = statuses.iter().position(|status| *status == 501).unwrap();
    assert!(first > 0, "{statuses:?}");
    assert!(
        statuses[..first].iter().all(|status| *status == 204),
        "{statuses:?}"
    );
    // Only one sync fails. A server that repeated the sync would see it succeed, and would
    // acknowledge a write that may not be on stable storage.
    assert!(
        statuses[first..].iter().all(|status| *status == 501),
        "{statuses:?}"
    );
    model.check_reads(&mut connection, "after the sync failed");
    drop(connection);
    server.kill();
    let found = check(dir.path(), &model.allowed(), "after a restart");
    model.settle(found);
    let server = launch.start();
    let status = model.write(&mut server.connect(), &name, false).unwrap();
    assert_eq!(status, 204);
}
