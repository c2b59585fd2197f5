//! Faults of the real file system calls, injected by strace into the real server: each
//! of the calls that writing rests on fails once, at every place in turn. What is not on
//! the disk is never answered with 204, and what was answered so is there after a
//! restart.

mod common;

use common::BINARY;
use prefd_tests::crash_model::{Model, check};
use prefd_tests::machine::{has_strace, report};
use prefd_tests::server::{Launch, Server};
use prefd_tests::strace::inject;

/// The server's way to say that the log may be written to no more.
const STOPPED: &str = "writing has stopped";
/// At how many places a call fails, counted in each thread.
const PLACES: u32 = 12;
const WRITES: u64 = 40;
const NAMES: u64 = 7;

/// What a life with a fault has shown.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    refused_starts: u32,
    failed: u32,
    full: u32,
    /// Lives in which writing has stopped.
    stopped: u32,
}

/// Writes to a server one after the other, and reads all of it back.
fn live(server: Server, model: &Model, context: &str, seen: &mut Seen) {
    let mut connection = server.connect();
    let mut was_stopped = false;
    for number in 0..WRITES {
        let name = ("user".to_owned(), format!("client-{}", number % NAMES));
        let status = model
            .write(&mut connection, &name, number % 9 == 5)
            .unwrap();
        match status {
            501 => seen.failed += 1,
            507 => seen.full += 1,
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
    seen.stopped += u32::from(server.has_logged(STOPPED));
    drop(connection);
    // Closing may meet the fault as well; it ends all the same.
    assert!(server.stop().code().is_some(), "{context}");
}

/// Has `call` fail at each place in turn, on one directory, and looks at what is there
/// after each.
fn sweep(call: &str, error: &str) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path()).with(&["--segment-bytes", "65536"]);
    let model = Model::default();
    let mut seen = Seen::default();
    live(launch.start(), &model, "no fault", &mut Seen::default());
    for place in 1..=PLACES {
        let context = format!("{call} fails with {error}, place {place}");
        let fault = format!("error={error}:when={place}");
        match inject(&launch, call, &fault).try_start() {
            Ok(server) => live(server, &model, &context, &mut seen),
            Err(ended) => {
                assert_eq!(ended.status.code(), Some(1), "{context}: {ended:?}");
                assert!(ended.err.contains("cannot open"), "{context}: {ended:?}");
                seen.refused_starts += 1;
            }
        }
        let found = check(dir.path(), &model.allowed(), &context);
        model.settle(found);
    }
    report(&format!("{call} fails with {error}: {seen:?}"));
    seen
}

#[test]
fn a_sync_that_fails_once_is_never_answered_with_204() {
    if has_strace() {
        let seen = sweep("fdatasync", "EIO");
        assert!(seen.failed > 0 && seen.stopped > 0, "{seen:?}");
    }
}

#[test]
fn a_folder_whose_sync_fails_once_loses_nothing() {
    if has_strace() {
        let seen = sweep("fsync", "EIO");
        assert!(seen.failed > 0, "{seen:?}");
    }
}

#[test]
fn a_write_that_fails_once_is_answered_with_501() {
    if has_strace() {
        let seen = sweep("pwrite64", "EIO");
        assert!(seen.failed > 0 && seen.full == 0, "{seen:?}");
    }
}

#[test]
fn a_write_without_space_is_answered_with_507() {
    if has_strace() {
        let seen = sweep("pwrite64", "ENOSPC");
        assert!(seen.full > 0, "{seen:?}");
    }
}

#[test]
fn a_rename_that_fails_once_loses_nothing() {
    if has_strace() {
        let seen = sweep("/^rename", "EIO");
        assert!(seen.failed > 0, "{seen:?}");
    }
}

#[test]
fn after_a_failed_sync_of_the_log_nothing_is_written_and_everything_is_read() {
    if !has_strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path());
    let model = Model::default();
    let name = ("user".to_owned(), "client".to_owned());
    // The committer's syncs are the new segment's, the manifest's, and then one for each
    // of these writes: none is large enough for a file of its own.
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
    // The sync fails but once: one that was tried again would succeed, and lie.
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
