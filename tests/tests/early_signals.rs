//! Signals that arrive before the server listens, and signals that prefd does not use.

mod common;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{BINARY, fresh, get, put, wait_until};
use prefd_tests::http::Request;
use prefd_tests::server::{Launch, Starting};
use prefd_tests::{machine, process, token};

const DOCUMENT: &str = "{\"kept\":true}";
/// `O_NONBLOCK` on Linux. With this flag, opening a pipe for writing fails until a reader opens
/// the pipe.
const O_NONBLOCK: i32 = 0o4000;
/// Signals to which prefd does not react.
const UNUSED: [&str; 3] = ["USR1", "USR2", "ALRM"];

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success(), "cannot create the pipe {}", path.display());
}

/// A store with one document, whose manifest is a pipe. A server that opens the store blocks until
/// it is killed, because nobody writes to the pipe.
struct BlockedStore {
    folder: tempfile::TempDir,
}

impl BlockedStore {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Self { folder };
        let server = Launch::new(BINARY, store.data_dir()).start();
        let token = token::of("alice", "xyz");
        put(&mut server.connect(), "xyz", &token, DOCUMENT);
        assert!(server.stop().success());
        std::fs::rename(store.manifest(), store.saved_manifest()).unwrap();
        make_pipe(&store.manifest());
        store
    }

    fn data_dir(&self) -> &Path {
        self.folder.path()
    }

    fn manifest(&self) -> PathBuf {
        self.folder.path().join("log/manifest")
    }

    fn saved_manifest(&self) -> PathBuf {
        self.folder.path().join("saved-manifest")
    }

    /// Waits until a server has locked the data directory, which is the first step of opening the
    /// store.
    fn wait_until_opening(&self, pid: u32) {
        let lock = self.data_dir().join("lock");
        wait_until("the server opens the store", || {
            process::open_files(pid).contains(&lock)
        });
    }

    /// Makes the manifest a file again, and checks that a server finds the document.
    fn check_document(self) {
        std::fs::rename(self.saved_manifest(), self.manifest()).unwrap();
        let server = Launch::new(BINARY, self.data_dir()).start();
        let token = token::of("alice", "xyz");
        assert_eq!(get(&mut server.connect(), "xyz", &token), DOCUMENT);
        assert!(server.stop().success());
    }
}

#[test]
fn sigterm_and_sigint_while_the_store_is_opened_exit_0() {
    let store = BlockedStore::new();
    for signal in ["TERM", "INT"] {
        let starting = Launch::new(BINARY, store.data_dir()).spawn();
        store.wait_until_opening(starting.pid());
        starting.signal(signal);
        let ended = starting.wait();
        assert_eq!(ended.status.code(), Some(0), "{signal}: {ended:?}");
        let event = "stopped before the store was open";
        assert!(ended.err.contains(event), "{signal}: {ended:?}");
    }
    store.check_document();
}

#[test]
fn sighup_while_the_store_is_opened_does_not_kill() {
    let store = BlockedStore::new();
    let starting = Launch::new(BINARY, store.data_dir()).spawn();
    store.wait_until_opening(starting.pid());
    for signal in [&["HUP"], &UNUSED[..]].concat() {
        starting.signal(signal);
    }
    starting.signal("TERM");
    let ended = starting.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    store.check_document();
}

#[test]
fn sigterm_to_process_1_while_the_store_is_opened_exits_0() {
    if !machine::has_process_namespaces() {
        return;
    }
    let store = BlockedStore::new();
    // The kernel drops a signal to the first process of a namespace if the process has no handler
    // for the signal (pid_namespaces(7)).
    let starting = Launch::new(BINARY, store.data_dir())
        .under(&["unshare", "--pid", "--fork", "--kill-child"])
        .spawn();
    let server = || process::child_of(starting.pid());
    wait_until("unshare starts the server", || server().is_some());
    let server = server().unwrap();
    store.wait_until_opening(server);
    process::signal(server, "TERM");
    // unshare exits with the exit code of the server.
    let ended = starting.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    store.check_document();
}

/// Starts a server that blocks while it reads its configuration from a pipe. Returns the pipe.
fn start_with_pipe(folder: &Path) -> (Starting, PathBuf, std::fs::File) {
    let config = folder.join("prefd.toml");
    make_pipe(&config);
    let starting = Launch::new(BINARY, &folder.join("data"))
        .with(&["--config", config.to_str().unwrap()])
        .spawn();
    let mut pipe = None;
    wait_until("the server reads its configuration", || {
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).custom_flags(O_NONBLOCK).open(&config);
        pipe = opened.ok();
        pipe.is_some()
    });
    (starting, config, pipe.unwrap())
}

#[test]
fn sighup_while_settings_are_read_reloads_after_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let (starting, config, mut pipe) = start_with_pipe(folder.path());
    for signal in [&["HUP"], &UNUSED[..]].concat() {
        starting.signal(signal);
    }
    // The reload reads a regular file, because a second read of the pipe would block.
    let text = "max-keys = 3";
    let file = folder.path().join("file");
    std::fs::write(&file, text).unwrap();
    std::fs::rename(&file, &config).unwrap();
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    let server = starting.wait_until_listening().unwrap();
    server.wait_for_log("reload completed what=\"log\"");
    assert!(server.stop().success());
}

#[test]
fn sigterm_while_settings_are_read_exits_0() {
    let folder = tempfile::tempdir().unwrap();
    let (starting, _, pipe) = start_with_pipe(folder.path());
    starting.signal("TERM");
    drop(pipe);
    let ended = starting.wait();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

#[test]
fn unused_signals_do_not_kill_a_running_server() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut connection = server.connect();
    for signal in UNUSED {
        server.signal(signal);
        put(&mut connection, "xyz", &token, DOCUMENT);
    }
    assert_eq!(get(&mut connection, "xyz", &token), DOCUMENT);
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn second_sigterm_ends_the_drain_at_once() {
    for second in ["TERM", "INT"] {
        let (server, _dir) = fresh(&["--drain-timeout", "1h", "--body-timeout", "1h"]);
        let mut writer = server.connect();
        let head = Request::of("PUT", "xyz", &token::of("alice", "xyz"))
            .header("Expect", "100-continue")
            .header("Content-Length", "7");
        writer.send(&head.head()).unwrap();
        assert_eq!(writer.read_response(false).unwrap().status, 100);
        server.terminate();
        server.wait_for_log("shutdown started");
        server.signal(second);
        assert_eq!(server.wait().code(), Some(0), "SIG{second}");
    }
}
