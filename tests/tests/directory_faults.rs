//! Mistakes with the data directory of a running server: the lock file is removed, or the directory
//! is removed, renamed or replaced. No write that the store cannot keep gets 204.

mod common;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{BINARY, get, put, wait_for_catalogue, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::machine::has_strace;
use prefd_tests::server::{Launch, Server, prefd};
use prefd_tests::strace::inject;
use prefd_tests::token;

/// Part of the log message with which the server reports that it accepts no more writes.
const STOPPED: &str = "store no longer accepts writes";
const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

fn token() -> String {
    token::of("alice", "xyz")
}

fn readiness(server: &Server) -> u16 {
    let request = Request::to("localhost", "GET", "/readyz");
    server.connect().request(&request).status
}

/// Sends a PUT for another client than the documents that must be kept. It is unknown whether a
/// refused write is stored.
fn expect_refused_put(server: &Server, context: &str) {
    let token = token::of("alice", "refused");
    let request = Request::of("PUT", "refused", &token).body("{}");
    let response = server.connect().request(&request);
    ExpectedError::code("internal-error").check(&response, context);
}

#[test]
fn second_server_is_refused_after_the_lock_file_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path()).start();
    put(&mut server.connect(), "xyz", &token(), "{\"n\":1}");
    fs::remove_file(dir.path().join("lock")).unwrap();
    let ended = Launch::new(BINARY, dir.path()).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("is in use by"), "{ended:?}");
    put(&mut server.connect(), "xyz", &token(), "{\"n\":2}");
    assert!(server.stop().success());
    let server = Launch::new(BINARY, dir.path()).start();
    assert_eq!(get(&mut server.connect(), "xyz", &token()), "{\"n\":2}");
}

#[test]
fn symbolic_link_to_a_subdirectory_is_refused_by_every_command() {
    for linked in ["log", "blobs", "catalogue"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let server = Launch::new(BINARY, &dir).start();
        // The document is in a blob.
        let document = format!("{{\"n\":\"{}\"}}", "1".repeat(400_000));
        put(&mut server.connect(), "xyz", &token(), &document);
        assert!(server.stop().success());
        let (link, elsewhere) = (dir.join(linked), parent.path().join("elsewhere"));
        fs::rename(&link, &elsewhere).unwrap();
        symlink(&elsewhere, &link).unwrap();
        let refused = format!(
            "cannot use {}: expected a directory, but found",
            link.display()
        );
        let data_dir = ["--data-dir", dir.to_str().unwrap()];
        let commands: [&[&str]; 7] = [
            &["verify"],
            &["stats"],
            &["compact"],
            &["export"],
            &["import"],
            &["backup", "--to", "-"],
            &["erase", "--user", "alice"],
        ];
        let commands = commands.map(|command| prefd(BINARY, &[command, &data_dir].concat()));
        for ended in commands
            .into_iter()
            .chain([Launch::new(BINARY, &dir).run()])
        {
            assert_eq!(ended.status.code(), Some(1), "{linked}: {ended:?}");
            assert!(ended.err.contains(&refused), "{linked}: {}", ended.err);
        }
        fs::remove_file(&link).unwrap();
        fs::rename(&elsewhere, &link).unwrap();
        let server = Launch::new(BINARY, &dir).start();
        assert_eq!(get(&mut server.connect(), "xyz", &token()), document);
    }
}

#[test]
fn subdirectories_of_an_open_store_are_locked() {
    let dir = tempfile::tempdir().unwrap();
    // The first start creates the subdirectories, and the second start finds them.
    for start in 1..=2 {
        let server = Launch::new(BINARY, dir.path()).start();
        for name in ["log", "blobs"] {
            let subdirectory = File::open(dir.path().join(name)).unwrap();
            let locked = subdirectory.try_lock();
            assert!(
                matches!(locked, Err(TryLockError::WouldBlock)),
                "start {start}: {name}: {locked:?}"
            );
        }
        assert!(server.stop().success());
    }
    // Another data directory can contain the same subdirectory, as a mount point.
    for name in ["log", "blobs"] {
        let path = dir.path().join(name);
        let subdirectory = File::open(&path).unwrap();
        subdirectory.try_lock().unwrap();
        let ended = Launch::new(BINARY, dir.path()).run();
        assert_eq!(ended.status.code(), Some(1), "{name}: {ended:?}");
        let in_use = format!("{} is in use by a process that has another", path.display());
        assert!(ended.err.contains(&in_use), "{name}: {}", ended.err);
    }
}

/// A change to the data directory of a running server, and how it is undone.
struct Fault {
    name: &'static str,
    make: fn(&Path),
    undo: fn(&Path),
    /// The path that the log must name, relative to the data directory.
    named: &'static str,
}

fn aside(dir: &Path) -> PathBuf {
    dir.with_extension("aside")
}

const FAULTS: [Fault; 3] = [
    Fault {
        name: "the data directory is renamed",
        make: |dir| fs::rename(dir, aside(dir)).unwrap(),
        undo: |dir| fs::rename(aside(dir), dir).unwrap(),
        named: "",
    },
    Fault {
        name: "the data directory is replaced",
        make: |dir| {
            fs::rename(dir, aside(dir)).unwrap();
            fs::create_dir(dir).unwrap();
        },
        undo: |dir| {
            fs::remove_dir(dir).unwrap();
            fs::rename(aside(dir), dir).unwrap();
        },
        named: "",
    },
    Fault {
        name: "the log is renamed",
        make: |dir| fs::rename(dir.join("log"), aside(dir)).unwrap(),
        undo: |dir| fs::rename(aside(dir), dir.join("log")).unwrap(),
        named: "log",
    },
];

#[test]
fn lost_directory_stops_writes_and_readiness_until_a_restart() {
    for fault in FAULTS {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let server = Launch::new(BINARY, &dir).with(&ADMIN).start();
        put(&mut server.connect(), "xyz", &token(), "{\"kept\":1}");
        assert_eq!(readiness(&server), 200);
        wait_for_catalogue(&server);
        (fault.make)(&dir);
        // The write is refused immediately, and not only when the server has noticed the fault.
        expect_refused_put(&server, fault.name);
        wait_until(fault.name, || readiness(&server) == 503);
        server.wait_for_log(STOPPED);
        let named = format!("cannot find {}", dir.join(fault.named).display());
        assert!(
            server.has_logged(named.trim_end_matches('/')),
            "{}",
            fault.name
        );
        expect_refused_put(&server, fault.name);
        (fault.undo)(&dir);
        expect_refused_put(&server, fault.name);
        assert_eq!(readiness(&server), 503);
        assert_eq!(server.stop().code(), Some(1), "{}", fault.name);
        let server = Launch::new(BINARY, &dir).start();
        let kept = get(&mut server.connect(), "xyz", &token());
        assert_eq!(kept, "{\"kept\":1}", "{}", fault.name);
        put(&mut server.connect(), "xyz", &token(), "{\"again\":1}");
    }
}

#[test]
fn removed_data_directory_of_an_idle_server_is_reported() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let server = Launch::new(BINARY, &dir).with(&ADMIN).start();
    put(&mut server.connect(), "xyz", &token(), "{}");
    wait_for_catalogue(&server);
    wait_until("the directory is removed", || {
        let _ = fs::remove_dir_all(&dir);
        !dir.exists()
    });
    server.wait_for_log(STOPPED);
    assert_eq!(readiness(&server), 503);
    expect_refused_put(&server, "after the removal");
    assert!(!dir.exists(), "expected no new files");
}

#[test]
fn file_system_that_cannot_lock_directories_gets_a_warning() {
    if !has_strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path());
    // The first lock is that of the directory.
    let server = inject(&launch, "flock", "error=EOPNOTSUPP:when=1").start();
    server.wait_for_log("its file system cannot lock directories");
    put(&mut server.connect(), "xyz", &token(), "{}");
    // The file is still locked.
    let ended = launch.run();
    assert!(ended.err.contains("is in use by"), "{ended:?}");
    assert!(server.stop().success());
    let server = launch.start();
    assert!(!server.has_logged("cannot lock directories"));
}
