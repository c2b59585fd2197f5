//! `prefd backup` and `restore`: a moment of a store that is written, and back.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{BINARY, get, put, wait_until};
use prefd_engine::{Config, Engine};
use prefd_tests::http::Request;
use prefd_tests::issuer::{Answer, Issuer, Signer};
use prefd_tests::machine;
use prefd_tests::server::{Ended, Launch, Server, prefd};
use prefd_tests::token;
use prefd_tests::vacant::Vacant;
use serde_json::{Value, json};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
/// Backups under load.
const BACKUPS: usize = 50;
const WRITERS: usize = 6;
/// How long a second one is seen to wait; it would be answered far sooner.
const WHILE_ONE_IS_TAKEN: Duration = Duration::from_millis(500);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn admin_url(server: &Server) -> String {
    format!("http://{}", server.admin_address())
}

fn back_up(server: &Server, to: &Path) -> Value {
    let url = admin_url(server);
    let ended = prefd(
        BINARY,
        &["backup", "--json", "--admin", &url, "--to", text(to)],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.out).expect("JSON")
}

fn restore(from: &Path, data_dir: &Path) -> Ended {
    let arguments = [
        "restore",
        "--json",
        "--from",
        text(from),
        "--data-dir",
        text(data_dir),
    ];
    prefd(BINARY, &arguments)
}

fn restored(from: &Path, data_dir: &Path) {
    let ended = restore(from, data_dir);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// A revision, as its tag has it.
fn revision(tag: &str) -> u64 {
    tag.trim_matches('"').parse().expect("a revision")
}

/// What a writer has had acknowledged: the revision, and the number in the document.
type Acknowledged = Mutex<Vec<(u64, u64)>>;

/// Puts increasing numbers, now and then in a large document, until it is told to stop.
fn write(server: &Server, writer: usize, acknowledged: &Acknowledged, stop: &AtomicBool) {
    let (client, mut connection) = (format!("writer-{writer}"), server.connect());
    let token = token::of("alice", &client);
    let padding = "x".repeat(300_000);
    for number in 1_u64.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let padding = if number % 16 == 0 {
            padding.as_str()
        } else {
            ""
        };
        let body = format!("{{\"number\":{number},\"padding\":\"{padding}\"}}");
        let tag = put(&mut connection, &client, &token, &body);
        acknowledged.lock().unwrap().push((revision(&tag), number));
    }
}

/// Each writer's document is its newest of those up to one revision: all of the store is of
/// one moment. `before` had been acknowledged before the backup began.
fn is_of_one_moment(copy: &Engine, moment: u64, acknowledged: &[Acknowledged], before: &[usize]) {
    for (writer, (acknowledged, before)) in acknowledged.iter().zip(before).enumerate() {
        let acknowledged = acknowledged.lock().unwrap();
        let found = copy.get("alice", format!("writer-{writer}")).unwrap();
        let revision = found
            .as_ref()
            .map_or(0, |found| found.stat().revision.get());
        assert!(
            revision <= moment,
            "writer {writer} has {revision}, beyond {moment}"
        );
        let newest = acknowledged
            .iter()
            .filter(|(at, _)| *at <= moment)
            .map(|(at, _)| *at)
            .max();
        assert!(
            newest.unwrap_or(0) <= revision,
            "writer {writer}: {revision} of {moment}"
        );
        if let Some((before, _)) = before.checked_sub(1).map(|last| acknowledged[last]) {
            assert!(before <= moment, "what was acknowledged before is in it");
        }
        if let Some(found) = found {
            let document: Value = serde_json::from_slice(&found.read().unwrap()).unwrap();
            let number = document["number"].as_u64().unwrap();
            // One that was not acknowledged by now is the next.
            let is_right = acknowledged.contains(&(revision, number))
                || number == acknowledged.len() as u64 + 1;
            assert!(is_right, "writer {writer} has {number} at {revision}");
        }
    }
}

/// Segments that compaction has written anew and removed.
fn compacted(server: &Server) -> u64 {
    let request = Request::to("localhost", "GET", "/metrics");
    let metrics = server.connect_admin().request(&request);
    let mut lines = metrics.text().lines();
    let count = lines.find_map(|line| line.strip_prefix("prefd_compacted_segments_total "));
    count.unwrap().parse().unwrap()
}

#[test]
fn a_backup_under_load_is_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    // Short segments, so that compaction moves and removes files meanwhile.
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .with(&[
            "--segment-bytes",
            "65536",
            "--log",
            "warn,prefd::serve=info",
        ])
        .start();
    let acknowledged: Vec<Acknowledged> = (0..WRITERS).map(|_| Mutex::default()).collect();
    let written = || -> Vec<usize> {
        let count = |acknowledged: &Acknowledged| acknowledged.lock().unwrap().len();
        acknowledged.iter().map(count).collect()
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || write(server, writer, acknowledged, stop));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("all of them write", || {
                written().iter().all(|count| *count > 0)
            });
            let (written_before, compacted_before) = (written(), compacted(&server));
            // Until files have gone meanwhile as well.
            let mut turns = 0;
            while turns < BACKUPS || compacted(&server) == compacted_before {
                assert!(turns < 10 * BACKUPS, "no segment is compacted");
                turns += 1;
                let before = written();
                let file = folder.path().join(format!("backup-{turns}.tar"));
                let told = back_up(&server, &file);
                let after = acknowledged
                    .iter()
                    .filter_map(|a| Some(a.lock().unwrap().last()?.0));
                let moment = told["revision"].as_u64().unwrap();
                // Those in flight may be beyond what is acknowledged.
                let newest = after.max().unwrap_or(0) + 2 * WRITERS as u64;
                assert!(moment <= newest, "{moment} of {newest}");
                let copy = folder.path().join(format!("copy-{turns}"));
                restored(&file, &copy);
                let engine = Engine::open(Config::new(&copy)).unwrap();
                assert_eq!(engine.documents(), told["documents"].as_u64().unwrap());
                is_of_one_moment(&engine, moment, &acknowledged, &before);
                engine.close().unwrap();
                fs::remove_dir_all(copy).unwrap();
                fs::remove_file(file).unwrap();
            }
            let advanced = written().into_iter().zip(written_before);
            let advanced: Vec<usize> = advanced.map(|(after, before)| after - before).collect();
            let compacted = compacted(&server) - compacted_before;
            machine::report(&format!(
                "{turns} backups during {advanced:?} writes, {compacted} segments compacted"
            ));
            assert!(advanced.iter().all(|writes| *writes > 0), "{advanced:?}");
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(server.stop().code(), Some(0));
}

/// A server with two documents, one of them large.
fn filled(data_dir: &Path, arguments: &[&str]) -> Server {
    let launch = Launch::new(BINARY, data_dir).with(&ADMIN);
    let server = launch.with(arguments).start();
    let mut connection = server.connect();
    put(
        &mut connection,
        "xyz",
        &token::of("alice", "xyz"),
        "{\"small\":1}",
    );
    let large = format!("{{\"large\":\"{}\"}}", "y".repeat(400_000));
    put(&mut connection, "large", &token::of("bob", "large"), &large);
    server
}

#[test]
fn a_restored_directory_is_served_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let server = filled(&folder.path().join("data"), &[]);
    let token = token::of("alice", "xyz");
    let tag = server.connect().request(&Request::of("GET", "xyz", &token));
    let tag = tag.header("etag").unwrap().to_owned();
    let (file, copy) = (
        folder.path().join("backup.tar"),
        folder.path().join("new/copy"),
    );
    let told = back_up(&server, &file);
    assert_eq!(
        (told["documents"].as_u64(), &told["path"]),
        (Some(2), &json!(text(&file)))
    );
    put(&mut server.connect(), "xyz", &token, "{\"later\":1}");
    server.kill();
    restored(&file, &copy);
    assert!(
        prefd(BINARY, &["verify", "--data-dir", text(&copy)])
            .status
            .success()
    );
    // Nobody but the owner reads what users keep.
    for (path, mode) in [
        ("", 0o700),
        ("log", 0o700),
        ("blobs", 0o700),
        ("log/manifest", 0o600),
    ] {
        let found = fs::metadata(copy.join(path)).unwrap().permissions().mode();
        assert_eq!(found & 0o777, mode, "{path}");
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = Launch::new(BINARY, &copy).start();
    let response = server.connect().request(&Request::of("GET", "xyz", &token));
    assert_eq!(
        (response.text(), response.header("etag")),
        ("{\"small\":1}", Some(&*tag))
    );
    let large = get(&mut server.connect(), "large", &token::of("bob", "large"));
    assert_eq!(large.len(), 400_000 + 12);
    put(&mut server.connect(), "xyz", &token, "{\"again\":1}");
    assert_eq!(server.stop().code(), Some(0));
}

#[test]
fn a_damaged_backup_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Short segments, so that one is sealed and has a summary.
    let server = filled(&folder.path().join("data"), &["--segment-bytes", "65536"]);
    for client in ["a", "b", "c"] {
        let body = format!("{{\"inline\":\"{}\"}}", "i".repeat(40_000));
        let token = token::of("alice", client);
        put(&mut server.connect(), client, &token, &body);
    }
    let (file, copy) = (folder.path().join("backup.tar"), folder.path().join("copy"));
    back_up(&server, &file);
    let good = fs::read(&file).unwrap();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let refuses = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        let ended = restore(&file, &copy);
        assert_eq!(ended.status.code(), Some(1), "{what}: {ended:?}");
        let left = fs::read_dir(&copy).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"], "{what}");
        ended.err
    };
    for length in (0..end).step_by(end / 20) {
        refuses(&good[..length], &format!("cut at {length}"));
    }
    // Anywhere in what a member holds: a file of each kind, and documents in them.
    let first = |needle: &[u8]| {
        let mut windows = good.windows(needle.len());
        windows.position(|window| window == needle).unwrap()
    };
    let mut places = vec![end - 100, end - 2];
    for magic in [b"PREFDMAN", b"PREFDSEG", b"PREFDSUM", b"PREFDBLB"] {
        places.extend([first(magic), first(magic) + 40]);
    }
    places.extend([
        first(&[b'i'; 1000]) + 20_000,
        first(&[b'y'; 1000]) + 200_000,
    ]);
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let told = refuses(&bad, &format!("a bit at {at}"));
        assert!(told.contains("the backup is damaged: "), "{at}: {told}");
    }
    refuses(b"", "empty");
    refuses(&[0; 10_240], "zeros");
    refuses(
        b"not an archive at all, but some text of more than a block",
        "text",
    );
    fs::write(&file, &good).unwrap();
    restored(&file, &copy);
}

#[test]
fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = filled(&data_dir, &[]);
    let file = folder.path().join("backup.tar");
    back_up(&server, &file);
    let before = fs::read(&file).unwrap();
    let url = admin_url(&server);
    let again = prefd(BINARY, &["backup", "--admin", &url, "--to", text(&file)]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.err.contains("already exists"), "{}", again.err);
    assert_eq!(fs::read(&file).unwrap(), before);
    for used in [&data_dir, &folder.path().to_owned()] {
        let ended = restore(&file, used);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.err.contains("is not empty"), "{}", ended.err);
    }
    // A restore that did not end is no store, and can be begun again.
    let copy = folder.path().join("copy");
    fs::create_dir_all(copy.join("restoring/log")).unwrap();
    let ended = Launch::new(BINARY, &copy).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(
        ended.err.contains("an unfinished restore"),
        "{}",
        ended.err
    );
    assert!(!copy.join("log").exists(), "an empty store was made of it");
    restored(&file, &copy);
    assert!(!copy.join("restoring").exists());
}

#[test]
fn folders_pipes_and_closed_directories_do_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = filled(&data_dir, &[]);
    let url = admin_url(&server);
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    fs::write(backups.join("prefd-99.tar"), "an older one, of no use").unwrap();
    fs::write(backups.join("prefd-before.tar"), "of another name").unwrap();
    back_up(&server, &backups);
    restored(&backups, &folder.path().join("of-folder"));
    // Through a pipe, as to another machine.
    let mut backup = Command::new(BINARY)
        .args(["backup", "--admin", &url, "--to", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let piped = folder.path().join("of-pipe");
    let status = Command::new(BINARY)
        .args(["restore", "--from", "-", "--data-dir", text(&piped)])
        .stdin(backup.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() && backup.wait().unwrap().success());
    // Of a directory that a server has open, only the server gives one.
    let file = folder.path().join("closed.tar");
    let arguments = ["backup", "--data-dir", text(&data_dir), "--to", text(&file)];
    let open = prefd(BINARY, &arguments);
    assert_eq!(open.status.code(), Some(1));
    assert!(open.err.contains("leave out --data-dir"), "{}", open.err);
    assert_eq!(server.stop().code(), Some(0));
    assert!(prefd(BINARY, &arguments).status.success());
    let closed = folder.path().join("of-closed");
    restored(&file, &closed);
    for copy in [piped, closed, folder.path().join("of-folder")] {
        let engine = Engine::open(Config::new(&copy)).unwrap();
        assert_eq!(engine.documents(), 2);
        engine.close().unwrap();
    }
}

#[test]
fn a_server_that_gives_none_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.tar");
    let fails = |arguments: &[&str], told: &str, made: &[&str]| {
        let all = [&["backup", "--to", text(&file)], arguments].concat();
        let ended = prefd(BINARY, &all);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert_eq!(ended.err, format!("prefd: {told}\n"));
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, made, "{told}");
    };
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    let url = issuer.url();
    issuer.answer("/backup", Answer::json(&json!({"no": "archive"})));
    fails(
        &["--admin", &url],
        "cannot read the backup: failed to read entire block",
        &[],
    );
    issuer.answer("/backup", Answer::status(503));
    fails(
        &["--admin", &url],
        "the server refused the request with 503 Service Unavailable: \
         the response has no error detail",
        &[],
    );
    let vacant = Vacant::new();
    let told = format!(
        "cannot connect to the server at {}: Connection refused (os error 111). Check that \
         prefd is running, and that --admin is the address of its admin listener \
         (--admin-listen)",
        vacant.url()
    );
    fails(&["--admin", &vacant.url()], &told, &[]);
    // The token that the server takes.
    let token = folder.path().join("token");
    fs::write(&token, "an-administrator-s-token").unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .with(&["--admin-token-file", text(&token)])
        .start();
    let url = admin_url(&server);
    let told = "the server refused the request with 401 Unauthorized: \
         The request has no Authorization header with the admin token.";
    fails(&["--admin", &url], told, &["data", "token"]);
    let told = prefd(
        BINARY,
        &[
            "backup",
            "--to",
            text(&file),
            "--admin",
            &url,
            "--admin-token-file",
            text(&token),
        ],
    );
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    assert!(told.out.contains("documents"), "{}", told.out);
}

#[test]
fn a_backup_waits_for_one_whose_client_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    // More than sockets hold.
    let value = format!("\"{}\"", "b".repeat(10_000_000));
    let body = format!("{{\"a\":{value},\"b\":{value},\"c\":{value}}}");
    put(&mut server.connect(), "c", &token::of("user", "c"), &body);
    let mut reader = server.connect_admin();
    reader
        .send(&Request::to("localhost", "GET", "/backup").bytes())
        .unwrap();
    let mut status = [0; 12];
    reader.read_body(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    let file = folder.path().join("backup.tar");
    let mut second = server.connect_admin();
    second
        .send(&Request::to("localhost", "GET", "/backup").bytes())
        .unwrap();
    assert!(!second.is_answered_within(WHILE_ONE_IS_TAKEN));
    drop(reader);
    second.read_body(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(second);
    assert_eq!(back_up(&server, &file)["documents"].as_u64(), Some(1));
}
