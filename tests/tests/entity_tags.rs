//! Entity tags in copies of a data directory: two servers that begin with the same data must not
//! give the same ETag to different documents.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{BINARY, put, wait_for_catalogue};
use prefd_engine::clock::Clock;
use prefd_engine::{Config, Engine, WriteOptions};
use prefd_tests::http::Request;
use prefd_tests::loop_mount::{self, Format, LoopMount};
use prefd_tests::machine;
use prefd_tests::put_ext::PutExt;
use prefd_tests::server::{Launch, Server, prefd};
use prefd_tests::token;

const CLIENT: &str = "app";
const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

fn start(data_dir: &Path) -> Server {
    Launch::new(BINARY, data_dir).with(&ADMIN).start()
}

fn alice() -> String {
    token::of("alice", CLIENT)
}

/// Copies a directory with `cp`.
fn copy(options: &[&str], from: &Path, to: &Path) {
    let mut cp = Command::new("cp");
    loop_mount::run(cp.arg("-a").args(options).arg(from).arg(to));
}

/// Starts a server on each directory, one after another. Each server stores a different document.
/// Expects all ETags to be different, and no server to accept the tag of another one.
fn check_copies(dirs: &[&Path]) {
    let mut tags: Vec<String> = Vec::new();
    for (index, dir) in dirs.iter().enumerate() {
        let server = start(dir);
        let mut connection = server.connect();
        let body = format!("{{\"copy\":{index}}}");
        let tag = put(&mut connection, CLIENT, &alice(), &body);
        for other in &tags {
            let read = Request::of("GET", CLIENT, &alice()).header("If-None-Match", other);
            assert_eq!(connection.request(&read).status, 200, "{other} {tag}");
            let overwrite = Request::of("PUT", CLIENT, &alice())
                .header("If-Match", other)
                .body("{}");
            assert_eq!(connection.request(&overwrite).status, 412, "{other} {tag}");
        }
        tags.push(tag);
        assert!(server.stop().success());
    }
    let distinct: BTreeSet<&String> = tags.iter().collect();
    assert_eq!(distinct.len(), tags.len(), "{tags:?}");
}

#[test]
fn cold_copy_and_its_original_issue_different_tags() {
    let dir = tempfile::tempdir().unwrap();
    let (original, copied) = (dir.path().join("d"), dir.path().join("dc"));
    let server = start(&original);
    put(&mut server.connect(), CLIENT, &alice(), "{\"a\":1}");
    assert!(server.stop().success());
    copy(&[], &original, &copied);
    check_copies(&[&original, &copied]);
}

#[test]
fn hot_copy_and_its_original_issue_different_tags() {
    let dir = tempfile::tempdir().unwrap();
    let (original, copied) = (dir.path().join("d"), dir.path().join("dc"));
    let server = start(&original);
    put(&mut server.connect(), CLIENT, &alice(), "{\"a\":1}");
    wait_for_catalogue(&server);
    copy(&[], &original, &copied);
    // The original continues with the revisions that its manifest has reserved.
    put(&mut server.connect(), CLIENT, &alice(), "{\"a\":2}");
    server.kill();
    check_copies(&[&original, &copied]);
}

#[test]
fn reflink_copy_put_back_issues_different_tags() {
    if !machine::ensure_isolated("reflink_copy_put_back_issues_different_tags", &["xfs"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let volume = dir.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let _mount = LoopMount::make(
        Format::XfsReflink,
        &dir.path().join("image"),
        512 << 20,
        &volume,
    );
    let (original, snapshot) = (volume.join("d"), volume.join("snapshot"));
    let server = start(&original);
    put(&mut server.connect(), CLIENT, &alice(), "{\"a\":1}");
    assert!(server.stop().success());
    copy(&["--reflink=always"], &original, &snapshot);
    let server = start(&original);
    let tag = put(&mut server.connect(), CLIENT, &alice(), "{\"a\":2}");
    server.kill();
    std::fs::remove_dir_all(&original).unwrap();
    copy(&["--reflink=always"], &snapshot, &original);
    // A client still has the tag of the document that the volume no longer contains.
    let server = start(&original);
    let again = put(&mut server.connect(), CLIENT, &alice(), "{\"a\":3}");
    assert_ne!(tag, again);
    assert!(server.stop().success());
    check_copies(&[&original, &snapshot]);
}

#[test]
fn two_restores_of_one_backup_issue_different_tags() {
    let dir = tempfile::tempdir().unwrap();
    let (original, backups) = (dir.path().join("d"), dir.path().join("backups"));
    std::fs::create_dir(&backups).unwrap();
    let server = start(&original);
    put(&mut server.connect(), CLIENT, &alice(), "{\"a\":1}");
    let url = format!("http://{}", server.admin_address());
    let to = backups.to_str().unwrap();
    let backup = prefd(BINARY, &["backup", "--admin", &url, "--to", to]);
    assert!(backup.status.success(), "{backup:?}");
    assert!(server.stop().success());
    let restored = ["r1", "r2"].map(|name| dir.path().join(name));
    for target in &restored {
        let data_dir = target.to_str().unwrap();
        let restore = prefd(BINARY, &["restore", "--from", to, "--data-dir", data_dir]);
        assert!(restore.status.success(), "{restore:?}");
    }
    check_copies(&[&original, &restored[0], &restored[1]]);
}

/// A clock that a test sets.
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A machine without a battery for its clock starts with the same time each time, until it has
/// reached a time server.
#[test]
fn copies_opened_while_the_clock_stands_still_use_different_revisions() {
    // Before 2020, and at the time at which the original store was opened.
    for now_ms in [0, 1_500_000_000_000, 1_796_000_000_000] {
        let clock = Arc::new(TestClock(AtomicU64::new(now_ms)));
        let open = |dir: &Path| {
            let mut config = Config::new(dir);
            config.clock = Arc::<TestClock>::clone(&clock);
            Engine::open(config).unwrap()
        };
        let write = |dir: &Path, value: u64| {
            let engine = open(dir);
            let namespace = engine.namespace("alice", CLIENT).unwrap();
            let body = format!("{{\"v\":{value}}}");
            let revision = namespace.put(body.as_bytes(), WriteOptions::default());
            engine.close().unwrap();
            revision.unwrap().get()
        };
        let dir = tempfile::tempdir().unwrap();
        let original = dir.path().join("d");
        let mut revisions = vec![write(&original, 0)];
        for index in 1..20 {
            let copied = dir.path().join(format!("copy-{index}"));
            copy(&[], &original, &copied);
            revisions.push(write(&copied, index));
        }
        revisions.push(write(&original, 20));
        let newest = revisions[0];
        assert!(revisions[1..].iter().all(|revision| *revision > newest));
        let distinct: BTreeSet<u64> = revisions.iter().copied().collect();
        assert_eq!(distinct.len(), revisions.len(), "{revisions:?}");
    }
}

/// The clock was an hour ahead when the store was open, and is then corrected.
#[test]
fn clock_that_is_corrected_does_not_repeat_revisions() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock(AtomicU64::new(1_796_000_000_000)));
    let mut last = 0;
    for step_ms in [
        0_i64,
        3_600_000,
        -3_600_000,
        1,
        -1_796_000_000_001,
        1_796_000_000_000,
    ] {
        let now_ms = clock.0.load(Ordering::Relaxed).checked_add_signed(step_ms);
        clock.0.store(now_ms.unwrap(), Ordering::Relaxed);
        let mut config = Config::new(dir.path());
        config.clock = Arc::<TestClock>::clone(&clock);
        let engine = Engine::open(config).unwrap();
        let namespace = engine.namespace("alice", CLIENT).unwrap();
        let revision = namespace.put(b"{}", WriteOptions::default()).unwrap().get();
        engine.close().unwrap();
        assert!(revision > last, "{revision} after {last}");
        last = revision;
    }
}
