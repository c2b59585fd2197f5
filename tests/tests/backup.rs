//! `prefd backup` and `prefd restore`: consistency of backups under load, damaged backups, and
//! backups that are refused.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{BINARY, get, put, wait_until};
use prefd_engine::{Config, Engine};
use prefd_tests::closed_port::ClosedPort;
use prefd_tests::http::Request;
use prefd_tests::issuer::{CannedResponse, Issuer, Signer};
use prefd_tests::machine;
use prefd_tests::server::{CommandOutput, Launch, Server, prefd};
use prefd_tests::token;
use serde_json::{Value, json};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
/// Number of backups that are taken and checked while clients write.
const BACKUPS: usize = 50;
const WRITERS: usize = 6;
/// How long a second backup is observed to wait for the first. A backup that does not have to
/// wait begins far sooner.
const SECOND_BACKUP_WAIT: Duration = Duration::from_millis(500);

fn path_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn admin_url(server: &Server) -> String {
    format!("http://{}", server.admin_address())
}

/// Takes an online backup with `prefd backup`, and returns the JSON that it prints.
fn back_up(server: &Server, to: &Path) -> Value {
    let url = admin_url(server);
    let ended = prefd(
        BINARY,
        &["backup", "--json", "--admin", &url, "--to", path_str(to)],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    serde_json::from_str(&ended.out).expect("prefd backup --json must print JSON")
}

fn restore(from: &Path, data_dir: &Path) -> CommandOutput {
    let arguments = [
        "restore",
        "--json",
        "--from",
        path_str(from),
        "--data-dir",
        path_str(data_dir),
    ];
    prefd(BINARY, &arguments)
}

/// Restores a backup, and expects success.
fn restore_ok(from: &Path, data_dir: &Path) {
    let ended = restore(from, data_dir);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// The revision in an ETag.
fn revision(tag: &str) -> u64 {
    tag.trim_matches('"')
        .parse()
        .expect("an ETag must be a quoted revision")
}

/// Acknowledged writes of one writer: the revision, and the number in the document.
type Acknowledged = Mutex<Vec<(u64, u64)>>;

/// Stores documents with increasing numbers until `stop` is true. Every 16th document is large.
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

/// Asserts that a restored store shows the state of the original store at one revision: each
/// writer's document is the newest one that the writer stored up to that revision. `before` is
/// each writer's number of acknowledged writes before the backup began.
fn assert_consistent(
    restored: &Engine,
    backup_revision: u64,
    acknowledged: &[Acknowledged],
    before: &[usize],
) {
    for (writer, (acknowledged, before)) in acknowledged.iter().zip(before).enumerate() {
        let acknowledged = acknowledged.lock().unwrap();
        let found = restored.get("alice", format!("writer-{writer}")).unwrap();
        let revision = found
            .as_ref()
            .map_or(0, |found| found.stat().revision.get());
        assert!(
            revision <= backup_revision,
            "writer {writer}: expected a revision of at most {backup_revision}, found {revision}"
        );
        let newest = acknowledged
            .iter()
            .filter(|(at, _)| *at <= backup_revision)
            .map(|(at, _)| *at)
            .max();
        assert!(
            newest.unwrap_or(0) <= revision,
            "writer {writer}: the backup of revision {backup_revision} has the document of \
             revision {revision}, but revision {newest:?} was acknowledged"
        );
        if let Some((before, _)) = before.checked_sub(1).map(|last| acknowledged[last]) {
            assert!(
                before <= backup_revision,
                "a write that was acknowledged before the backup began is missing"
            );
        }
        if let Some(found) = found {
            let document: Value = serde_json::from_slice(&found.read().unwrap()).unwrap();
            let number = document["number"].as_u64().unwrap();
            // The backup may contain the next write, which is not acknowledged yet.
            let is_expected = acknowledged.contains(&(revision, number))
                || number == acknowledged.len() as u64 + 1;
            assert!(
                is_expected,
                "writer {writer} never stored number {number} at revision {revision}"
            );
        }
    }
}

/// The number of segments that compaction has rewritten and removed.
fn compacted_segments(server: &Server) -> u64 {
    let request = Request::to("localhost", "GET", "/metrics");
    let metrics = server.connect_admin().request(&request);
    let mut lines = metrics.text().lines();
    let count = lines.find_map(|line| line.strip_prefix("prefd_compacted_segments_total "));
    count.unwrap().parse().unwrap()
}

#[test]
fn backup_under_load_shows_the_store_at_one_revision() {
    let folder = tempfile::tempdir().unwrap();
    // Small segments, so that compaction rewrites and removes files during the backups.
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
    thread::scope(|scope| {
        for (writer, acknowledged) in acknowledged.iter().enumerate() {
            let (server, stop) = (&server, &stop);
            scope.spawn(move || write(server, writer, acknowledged, stop));
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until("every writer has stored a document", || {
                written().iter().all(|count| *count > 0)
            });
            let (written_before, compacted_before) = (written(), compacted_segments(&server));
            // Backups are taken until compaction has removed a segment in the meantime.
            let mut taken = 0;
            while taken < BACKUPS || compacted_segments(&server) == compacted_before {
                assert!(
                    taken < 10 * BACKUPS,
                    "expected compaction to remove a segment"
                );
                taken += 1;
                let before = written();
                let file = folder.path().join(format!("backup-{taken}.tar"));
                let report = back_up(&server, &file);
                let after = acknowledged
                    .iter()
                    .filter_map(|a| Some(a.lock().unwrap().last()?.0));
                let backup_revision = report["revision"].as_u64().unwrap();
                // Writes in flight may have higher revisions than acknowledged writes.
                let newest = after.max().unwrap_or(0) + 2 * WRITERS as u64;
                assert!(
                    backup_revision <= newest,
                    "expected a backup revision of at most {newest}, got {backup_revision}"
                );
                let copy = folder.path().join(format!("copy-{taken}"));
                restore_ok(&file, &copy);
                let engine = Engine::open(Config::new(&copy)).unwrap();
                assert_eq!(engine.documents(), report["documents"].as_u64().unwrap());
                assert_consistent(&engine, backup_revision, &acknowledged, &before);
                engine.close().unwrap();
                fs::remove_dir_all(copy).unwrap();
                fs::remove_file(file).unwrap();
            }
            let advanced = written().into_iter().zip(written_before);
            let advanced: Vec<usize> = advanced.map(|(after, before)| after - before).collect();
            let compacted = compacted_segments(&server) - compacted_before;
            machine::report(&format!(
                "{taken} backups during {advanced:?} writes, {compacted} segments compacted"
            ));
            assert!(
                advanced.iter().all(|writes| *writes > 0),
                "expected every writer to write during the backups: {advanced:?}"
            );
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(server.stop().code(), Some(0));
}

/// Starts a server and stores a small and a large document.
fn server_with_documents(data_dir: &Path, arguments: &[&str]) -> Server {
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
fn restored_store_has_the_documents_and_etags_of_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let server = server_with_documents(&folder.path().join("data"), &[]);
    let token = token::of("alice", "xyz");
    let tag = server.connect().request(&Request::of("GET", "xyz", &token));
    let tag = tag.header("etag").unwrap().to_owned();
    let (file, copy) = (
        folder.path().join("backup.tar"),
        folder.path().join("new/copy"),
    );
    let report = back_up(&server, &file);
    assert_eq!(
        (report["documents"].as_u64(), &report["path"]),
        (Some(2), &json!(path_str(&file)))
    );
    put(&mut server.connect(), "xyz", &token, "{\"later\":1}");
    server.kill();
    restore_ok(&file, &copy);
    assert!(
        prefd(BINARY, &["verify", "--data-dir", path_str(&copy)])
            .status
            .success()
    );
    // Only the owner of the files may read documents.
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
fn damaged_backup_is_refused_and_restores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Small segments, so that at least one is sealed and has a summary.
    let server = server_with_documents(&folder.path().join("data"), &["--segment-bytes", "65536"]);
    for client in ["a", "b", "c"] {
        let body = format!("{{\"inline\":\"{}\"}}", "i".repeat(40_000));
        let token = token::of("alice", client);
        put(&mut server.connect(), client, &token, &body);
    }
    let (file, copy) = (folder.path().join("backup.tar"), folder.path().join("copy"));
    back_up(&server, &file);
    let good = fs::read(&file).unwrap();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let refuse = |bytes: &[u8], damage: &str| {
        fs::write(&file, bytes).unwrap();
        let ended = restore(&file, &copy);
        assert_eq!(ended.status.code(), Some(1), "{damage}: {ended:?}");
        let left = fs::read_dir(&copy).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"], "{damage}");
        ended.err
    };
    for length in (0..end).step_by(end / 20) {
        refuse(&good[..length], &format!("truncated to {length} bytes"));
    }
    // Offsets in the contents of archive members: a file of each kind, and the documents in them.
    let first = |needle: &[u8]| {
        let mut windows = good.windows(needle.len());
        windows.position(|window| window == needle).unwrap()
    };
    let mut offsets = vec![end - 100, end - 2];
    for magic in [b"PREFDMAN", b"PREFDSEG", b"PREFDSUM", b"PREFDBLB"] {
        offsets.extend([first(magic), first(magic) + 40]);
    }
    offsets.extend([
        first(&[b'i'; 1000]) + 20_000,
        first(&[b'y'; 1000]) + 200_000,
    ]);
    for at in offsets {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let error = refuse(&bad, &format!("flipped bit at offset {at}"));
        assert!(
            error.contains("the backup is damaged: "),
            "flipped bit at offset {at}: {error}"
        );
    }
    refuse(b"", "empty");
    refuse(&[0; 10_240], "zeros");
    refuse(
        b"not an archive at all, but some text of more than a block",
        "text",
    );
    fs::write(&file, &good).unwrap();
    restore_ok(&file, &copy);
}

#[test]
fn backup_and_restore_overwrite_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = server_with_documents(&data_dir, &[]);
    let file = folder.path().join("backup.tar");
    back_up(&server, &file);
    let before = fs::read(&file).unwrap();
    let url = admin_url(&server);
    let again = prefd(
        BINARY,
        &["backup", "--admin", &url, "--to", path_str(&file)],
    );
    assert_eq!(again.status.code(), Some(1));
    assert!(again.err.contains("already exists"), "{}", again.err);
    assert_eq!(fs::read(&file).unwrap(), before);
    for used in [&data_dir, &folder.path().to_owned()] {
        let ended = restore(&file, used);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.err.contains("is not empty"), "{}", ended.err);
    }
    // A server does not start in the directory of an interrupted restore. The restore can be
    // repeated.
    let copy = folder.path().join("copy");
    fs::create_dir_all(copy.join("restoring/log")).unwrap();
    let ended = Launch::new(BINARY, &copy).run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("an unfinished restore"), "{}", ended.err);
    assert!(
        !copy.join("log").exists(),
        "the server must not create a store in the directory of an interrupted restore"
    );
    restore_ok(&file, &copy);
    assert!(!copy.join("restoring").exists());
}

#[test]
fn backup_works_to_a_folder_to_a_pipe_and_from_a_closed_store() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = server_with_documents(&data_dir, &[]);
    let url = admin_url(&server);
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    fs::write(
        backups.join("prefd-99.tar"),
        "an older backup that cannot be restored",
    )
    .unwrap();
    fs::write(
        backups.join("prefd-before.tar"),
        "a file whose name is not that of a backup",
    )
    .unwrap();
    back_up(&server, &backups);
    restore_ok(&backups, &folder.path().join("from-folder"));
    // A pipe from backup to restore, as for a copy to another machine.
    let mut backup = Command::new(BINARY)
        .args(["backup", "--admin", &url, "--to", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let piped = folder.path().join("from-pipe");
    let status = Command::new(BINARY)
        .args(["restore", "--from", "-", "--data-dir", path_str(&piped)])
        .stdin(backup.stdout.take().unwrap())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success() && backup.wait().unwrap().success());
    // While a server has the data directory open, only the server can take a backup.
    let file = folder.path().join("closed.tar");
    let arguments = [
        "backup",
        "--data-dir",
        path_str(&data_dir),
        "--to",
        path_str(&file),
    ];
    let open = prefd(BINARY, &arguments);
    assert_eq!(open.status.code(), Some(1));
    assert!(open.err.contains("leave out --data-dir"), "{}", open.err);
    assert_eq!(server.stop().code(), Some(0));
    assert!(prefd(BINARY, &arguments).status.success());
    let closed = folder.path().join("from-closed");
    restore_ok(&file, &closed);
    for copy in [piped, closed, folder.path().join("from-folder")] {
        let engine = Engine::open(Config::new(&copy)).unwrap();
        assert_eq!(engine.documents(), 2);
        engine.close().unwrap();
    }
}

#[test]
fn failed_backup_names_the_cause_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("backup.tar");
    let fail = |arguments: &[&str], error: &str, files: &[&str]| {
        let all = [&["backup", "--to", path_str(&file)], arguments].concat();
        let ended = prefd(BINARY, &all);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert_eq!(ended.err, format!("prefd: {error}\n"));
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, files, "{error}");
    };
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    let url = issuer.url();
    issuer.respond("/backup", CannedResponse::json(&json!({"no": "archive"})));
    fail(
        &["--admin", &url],
        &format!(
            "the server at {url} did not send the response of an admin listener of prefd. Check \
             --admin"
        ),
        &[],
    );
    issuer.respond("/backup", CannedResponse::status(503));
    fail(
        &["--admin", &url],
        "the server responded with 503 Service Unavailable: \
         the response has no error detail",
        &[],
    );
    let closed_port = ClosedPort::new();
    let error = format!(
        "cannot connect to the server at {}: Connection refused (os error 111). Check that \
         prefd is running, and that --admin is the address of its admin listener \
         (--admin-listen)",
        closed_port.url()
    );
    fail(&["--admin", &closed_port.url()], &error, &[]);
    // A server that requires an admin token.
    let token = folder.path().join("token");
    fs::write(&token, "an-administrator-s-token").unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .with(&["--admin-token-file", path_str(&token)])
        .start();
    let url = admin_url(&server);
    let error = "the server responded with 401 Unauthorized: \
         The request has no Authorization header with the admin token.";
    fail(&["--admin", &url], error, &["data", "token"]);
    let ended = prefd(
        BINARY,
        &[
            "backup",
            "--to",
            path_str(&file),
            "--admin",
            &url,
            "--admin-token-file",
            path_str(&token),
        ],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.out.contains("documents"), "{}", ended.out);
}

#[test]
fn backup_waits_until_the_client_of_another_one_disconnects() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    // More than the socket buffers hold, so that the first backup cannot end before its client
    // reads it.
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
    assert!(!second.wait_for_response(SECOND_BACKUP_WAIT));
    drop(reader);
    second.read_body(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(second);
    assert_eq!(back_up(&server, &file)["documents"].as_u64(), Some(1));
}

#[test]
fn restore_into_a_fresh_volume_ignores_lost_and_found() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let token = token::of("alice", "xyz");
    put(&mut server.connect(), "xyz", &token, "{\"a\":1}");
    let backup = folder.path().join("backup.tar");
    back_up(&server, &backup);
    let volume = folder.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    restore_ok(&backup, &volume);
    let restored = Launch::new(BINARY, &volume).start();
    assert_eq!(get(&mut restored.connect(), "xyz", &token), "{\"a\":1}");
    assert!(volume.join("lost+found").is_dir());
    // A file with this name is not the directory of a file system.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("lost+found"), "").unwrap();
    let refused = restore(&backup, &other);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.err.contains("is not empty"), "{}", refused.err);
}

#[test]
fn backups_within_one_second_get_different_names() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let backups = folder.path().join("backups");
    fs::create_dir(&backups).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    // Backups with the names of the current second and the following minutes.
    let taken = now.as_secs()..now.as_secs() + 300;
    for seconds in taken.clone() {
        fs::write(backups.join(format!("prefd-{seconds}.tar")), "").unwrap();
    }
    for seconds in [taken.end, taken.end + 1] {
        let path = backups.join(format!("prefd-{seconds}.tar"));
        assert_eq!(back_up(&server, &backups)["path"], path_str(&path));
        let copy = folder.path().join(seconds.to_string());
        restore_ok(&backups, &copy);
    }
    // A name that the user has chosen is not replaced by another one.
    let chosen = backups.join(format!("prefd-{}.tar", taken.start));
    let url = admin_url(&server);
    let ended = prefd(
        BINARY,
        &["backup", "--admin", &url, "--to", path_str(&chosen)],
    );
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("already exists"), "{}", ended.err);
}

#[test]
fn restore_names_the_format_of_a_compressed_backup() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let backup = folder.path().join("backup.tar");
    back_up(&server, &backup);
    let packed = Command::new("gzip").arg("-k").arg(&backup).status();
    assert!(packed.unwrap().success());
    let copy = folder.path().join("copy");
    let refused = restore(&folder.path().join("backup.tar.gz"), &copy);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words = "the backup is compressed with gzip. Decompress it first: gzip -dc FILE | prefd";
    assert!(refused.err.contains(words), "{}", refused.err);
    // Without its last bytes, which mark the end of the archive.
    let bytes = fs::read(&backup).unwrap();
    let truncated = folder.path().join("truncated.tar");
    fs::write(&truncated, &bytes[..bytes.len() - 1_024]).unwrap();
    let refused = restore(&truncated, &copy);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words = format!(
        "the backup is truncated: it ends after {} bytes",
        bytes.len() - 1_024
    );
    assert!(refused.err.contains(&words), "{}", refused.err);
    restore_ok(&backup, &copy);
}

/// Answers one request with the given bytes, and closes the connection.
fn answer_once(answer: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(&stream).lines();
        while head.next().is_some_and(|line| !line.unwrap().is_empty()) {}
        (&stream).write_all(answer.as_bytes()).unwrap();
    });
    (url, server)
}

#[test]
fn interrupted_response_is_reported_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (command, media_type) in [("backup", "x-tar"), ("export", "x-ndjson")] {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/{media_type}\r\n\
             Transfer-Encoding: chunked\r\n"
        );
        let answer = format!("{head}\r\n5\r\nhello\r\n");
        let (url, server) = answer_once(answer);
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", path_str(&file)]);
        server.join().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{command}: {ended:?}");
        let words = "failed before the response was complete: error reading a body from \
                     connection: unexpected EOF";
        assert!(ended.err.contains(words), "{command}: {}", ended.err);
        assert!(!file.exists(), "{command}");
        let answer = format!(
            "{head}Trailer: prefd-failed\r\n\r\n5\r\nhello\r\n0\r\n\
             prefd-failed: the disk %C3%A9 failed\r\n\r\n"
        );
        let (url, server) = answer_once(answer);
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", path_str(&file)]);
        server.join().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{command}: {ended:?}");
        let words = "the server could not complete the response: the disk \u{e9} failed";
        assert!(ended.err.contains(words), "{command}: {}", ended.err);
        assert!(!file.exists(), "{command}");
    }
}
