//! Failures of `prefd backup`, `restore`, `export` and `import`: a full disk, a killed process,
//! an interrupted download. No incomplete file may have its final name.

mod common;

use std::ffi::OsString;
use std::fs;
use std::io::{BufWriter, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{BINARY, FULL_DISK, damage_last_document, get, put};
use prefd_engine::{Config, DirectoryLock, Engine};
use prefd_tests::http::Request;
use prefd_tests::server::{CommandOutput, Launch, Server, prefd};
use prefd_tests::token;

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
const MIB: usize = 1024 * 1024;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn admin_url(server: &Server) -> String {
    format!("http://{}", server.admin_address())
}

/// Returns the names of the entries of a folder, sorted.
fn file_names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Expects exit code 1, and an error message that contains `word`.
fn expect_failure(ended: &CommandOutput, word: &str) {
    assert_eq!(ended.status.code(), Some(1), "{word}: {ended:?}");
    assert!(ended.err.contains(word), "{word}: {}", ended.err);
}

/// Starts a server with a small and a large document.
fn start_filled(data_dir: &Path) -> Server {
    let server = Launch::new(BINARY, data_dir).with(&ADMIN).start();
    let mut connection = server.connect();
    let large = format!("{{\"large\":\"{}\"}}", "y".repeat(400_000));
    put(&mut connection, "large", &token::of("zoe", "large"), &large);
    let small = token::of("alice", "xyz");
    put(&mut connection, "xyz", &small, "{\"small\":1}");
    server
}

/// Writes a backup of a running server.
fn back_up(server: &Server, to: &Path) {
    let url = admin_url(server);
    let ended = prefd(BINARY, &["backup", "--admin", &url, "--to", text(to)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// Returns the arguments of `prefd restore`.
fn restore_arguments<'a>(from: &'a Path, to: &'a Path) -> [&'a str; 5] {
    ["restore", "--from", text(from), "--data-dir", text(to)]
}

/// Runs `prefd` on a simulated full disk: see [`FULL_DISK`].
fn run_on_full_disk(arguments: &[&str]) -> CommandOutput {
    let output = Command::new("sh")
        .args(["-c", &format!("{FULL_DISK}; exec \"$0\" \"$@\""), BINARY])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    CommandOutput {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// If `log/` was moved away, a new store must not be created in the same directory: it would answer
/// with `{}`, and remove the blobs, which belong to documents in the moved log.
#[test]
fn start_without_the_log_is_refused_and_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for has_large_document in [true, false] {
        let data_dir = folder.path().join(format!("data-{has_large_document}"));
        let server = start_filled(&data_dir);
        if !has_large_document {
            let zoe = token::of("zoe", "large");
            let delete = Request::of("DELETE", "large", &zoe);
            assert_eq!(server.connect().request(&delete).status, 204);
        }
        assert!(server.stop().success());
        let (log, moved) = (data_dir.join("log"), folder.path().join("moved"));
        fs::rename(&log, &moved).unwrap();
        let before = file_names(&data_dir.join("blobs"));
        assert_eq!(before.len(), usize::from(has_large_document));
        if has_large_document {
            // If there is a blob, the blob alone must cause the refusal. Otherwise, the catalogue
            // must cause it.
            fs::remove_dir_all(data_dir.join("catalogue")).unwrap();
        }
        let missing = "the manifest is missing, but";
        let refused = Launch::new(BINARY, &data_dir).try_start();
        expect_failure(&refused.err().unwrap(), missing);
        for command in ["verify", "stats", "compact", "export", "backup"] {
            let to = folder.path().join("out");
            let mut arguments = vec![command, "--data-dir", text(&data_dir)];
            if command == "backup" {
                arguments.extend(["--to", text(&to)]);
            }
            expect_failure(&prefd(BINARY, &arguments), missing);
        }
        assert!(!log.exists());
        assert_eq!(file_names(&data_dir.join("blobs")), before);
        fs::rename(&moved, &log).unwrap();
        let server = Launch::new(BINARY, &data_dir).start();
        let small = token::of("alice", "xyz");
        assert_eq!(get(&mut server.connect(), "xyz", &small), "{\"small\":1}");
        let large = get(&mut server.connect(), "large", &token::of("zoe", "large"));
        assert_eq!(large.len() > 400_000, has_large_document);
    }
}

#[test]
fn commands_on_a_full_disk_leave_no_incomplete_files() {
    let folder = tempfile::tempdir().unwrap();
    let server = start_filled(&folder.path().join("data"));
    let url = admin_url(&server);
    let [backup, export, copy] =
        ["backup.tar", "export.jsonl", "copy"].map(|name| folder.path().join(name));
    let before = file_names(folder.path());
    for (command, to) in [("backup", &backup), ("export", &export)] {
        let ended = run_on_full_disk(&[command, "--admin", &url, "--to", text(to)]);
        expect_failure(&ended, "File too large");
        assert_eq!(file_names(folder.path()), before, "{command}");
    }
    for (command, to) in [("backup", &backup), ("export", &export)] {
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", text(to)]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
    let restore = restore_arguments(&backup, &copy);
    expect_failure(&run_on_full_disk(&restore), "File too large");
    assert_eq!(file_names(&copy), ["lock"]);
    assert_eq!(prefd(BINARY, &restore).status.code(), Some(0));
    let import = ["import", "--from", text(&export)];
    let full = Launch::new(BINARY, &folder.path().join("full"))
        .with(&ADMIN)
        .after_shell(FULL_DISK)
        .start();
    let url = admin_url(&full);
    let ended = prefd(BINARY, &[&import[..], &["--admin", &url]].concat());
    expect_failure(&ended, "507");
    assert!(ended.err.contains("line 1"), "{}", ended.err);
    let small = get(&mut full.connect(), "xyz", &token::of("alice", "xyz"));
    assert_eq!(small, "{}");
    let closed = folder.path().join("closed");
    let ended = run_on_full_disk(&[&import[..], &["--data-dir", text(&closed)]].concat());
    expect_failure(&ended, "no space left to write");
}

#[test]
fn killed_restore_is_refused_as_a_store_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let server = start_filled(&folder.path().join("data"));
    let backup = folder.path().join("backup.tar");
    back_up(&server, &backup);
    let lines = folder.path().join("lines.jsonl");
    fs::write(&lines, "").unwrap();
    // A restore moves its folders into place one by one. Each case is the state after a kill
    // between two steps.
    for (step, folders) in [
        &["restoring/blobs", "restoring/log"][..],
        &["restoring/log", "blobs"],
        &["restoring", "blobs", "log"],
    ]
    .into_iter()
    .enumerate()
    {
        let copy = folder.path().join(format!("copy-{step}"));
        for folder in folders {
            fs::create_dir_all(copy.join(folder)).unwrap();
        }
        let before = file_names(&copy);
        let reason = "an unfinished restore";
        expect_failure(&Launch::new(BINARY, &copy).run(), reason);
        for command in [
            &["import", "--from", text(&lines)][..],
            &["export"],
            &["erase", "--user", "alice"],
            &["backup", "--to", "-"],
            &["compact"],
            &["verify"],
            &["stats"],
        ] {
            let command = [command, &["--data-dir", text(&copy)]].concat();
            expect_failure(&prefd(BINARY, &command), reason);
        }
        let after: Vec<_> = file_names(&copy);
        let created = after.iter().filter(|name| !before.contains(name));
        let created: Vec<_> = created.filter(|name| *name != "lock").collect();
        assert!(created.is_empty(), "{created:?}");
        let restore = restore_arguments(&backup, &copy);
        // A second restore is refused while the directory is locked.
        let held = DirectoryLock::acquire(&copy).unwrap();
        expect_failure(&prefd(BINARY, &restore), "is in use by");
        drop(held);
        let ended = prefd(BINARY, &restore);
        assert_eq!(ended.status.code(), Some(0), "{folders:?}: {ended:?}");
        let engine = Engine::open(Config::new(&copy)).unwrap();
        assert_eq!(engine.documents(), 2);
        engine.close().unwrap();
        // The directory is now a store, so another restore into it is refused.
        expect_failure(&prefd(BINARY, &restore), "is not empty");
    }
}

/// Accepts one connection, sends `response` and closes the connection. Returns the URL.
fn serve_once(response: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(response.as_bytes()).unwrap();
    });
    url
}

#[test]
fn interrupted_download_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for (command, media_type) in [("backup", "x-tar"), ("export", "x-ndjson")] {
        let url = serve_once(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/{media_type}\r\n\
             Transfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
        ));
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", text(&file)]);
        expect_failure(&ended, "the connection to the server failed");
        assert_eq!(file_names(folder.path()), [""; 0], "{command}");
    }
}

#[test]
fn response_of_another_server_is_not_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let input = folder.path().join("input");
    fs::write(&input, "").unwrap();
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n{}";
    for arguments in [
        ["backup", "--to", text(&file)],
        ["export", "--to", text(&file)],
        ["import", "--from", text(&input)],
        ["erase", "--user", "alice"],
    ] {
        let url = serve_once(page.to_owned());
        let ended = prefd(BINARY, &[&arguments[..], &["--admin", &url]].concat());
        let words = format!("the server at {url} did not send the response of an admin listener");
        expect_failure(&ended, &words);
        assert!(!file.exists(), "{arguments:?}");
    }
    let json = page.replace("text/html", "application/json");
    for arguments in [
        ["import", "--from", text(&input)],
        ["erase", "--user", "alice"],
    ] {
        for (response, words) in [
            (
                json.replace("{}", "{]"),
                "the response of the server is not valid JSON",
            ),
            (
                json.clone(),
                "did not send the response of an admin listener",
            ),
        ] {
            let url = serve_once(response);
            let ended = prefd(BINARY, &[&arguments[..], &["--admin", &url]].concat());
            expect_failure(&ended, words);
        }
    }
}

/// In HTTP/1.0, and in a response without a length and without chunks, nothing shows whether the
/// body is complete.
#[test]
fn export_whose_end_is_not_certain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for version in ["1.0", "1.1"] {
        let url = serve_once(format!(
            "HTTP/{version} 200 OK\r\nContent-Type: application/x-ndjson\r\n\
             Connection: close\r\n\r\n{{}}\n"
        ));
        let ended = prefd(BINARY, &["export", "--admin", &url, "--to", text(&file)]);
        expect_failure(&ended, "did not send the response of an admin listener");
        assert!(!file.exists(), "{version}");
    }
    let server = start_filled(&folder.path().join("data"));
    for path in ["/documents", "/users/zoe/documents", "/backup"] {
        let mut connection = server.connect_admin();
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nTE: trailers\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        let response = String::from_utf8(connection.read_until_closed()).unwrap();
        assert!(
            response.contains(" 400 Bad Request\r\n")
                && response.contains("proxy_http_version 1.1"),
            "{path}: {response}"
        );
    }
}

#[test]
fn export_of_a_damaged_store_contains_every_readable_document() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(start_filled(&data_dir).stop().code(), Some(0));
    damage_last_document(&data_dir);
    let has_the_other_document = |file: &Path| {
        let lines = fs::read_to_string(file).unwrap();
        assert_eq!(lines.lines().count(), 1, "{lines}");
        assert!(lines.contains("\"zoe\""), "{lines}");
    };
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    let url = admin_url(&server);
    let online = folder.path().join("online");
    let ended = prefd(BINARY, &["export", "--admin", &url, "--to", text(&online)]);
    expect_failure(&ended, "the export is incomplete");
    server.wait_for_log("export is incomplete");
    assert_eq!(server.stop().code(), Some(0));
    has_the_other_document(&online);
    let offline = folder.path().join("offline");
    let command = [
        "export",
        "--data-dir",
        text(&data_dir),
        "--to",
        text(&offline),
    ];
    let ended = prefd(BINARY, &command);
    expect_failure(&ended, "cannot be read: ");
    let checksum = "the document's checksum does not match";
    assert!(ended.err.contains(checksum), "{}", ended.err);
    has_the_other_document(&offline);
}

#[test]
fn backup_of_a_damaged_store_restores_undamaged_documents() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(start_filled(&data_dir).stop().code(), Some(0));
    damage_last_document(&data_dir);
    let launch = Launch::new(BINARY, &data_dir).with(&ADMIN);
    let backed_up = |name: &str| {
        let server = launch.start();
        let file = folder.path().join(name);
        back_up(&server, &file);
        (server, file)
    };
    let restore = |from: &Path, to: &Path, more: &[&str]| {
        prefd(BINARY, &[&restore_arguments(from, to)[..], more].concat())
    };
    let (server, damaged) = backed_up("damaged.tar");
    let copy = folder.path().join("copy");
    expect_failure(&restore(&damaged, &copy, &[]), "--accept-damage");
    let ended = restore(&damaged, &copy, &["--accept-damage"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let restored = Launch::new(BINARY, &copy).start();
    let large = get(&mut restored.connect(), "large", &token::of("zoe", "large"));
    assert_eq!(large.len(), 400_000 + 12);
    let small = token::of("alice", "xyz");
    let lost = Request::of("GET", "xyz", &small);
    assert_eq!(restored.connect().request(&lost).status, 501);
    // After the damaged document is replaced, a restore needs no `--accept-damage`.
    put(&mut server.connect(), "xyz", &small, "{\"again\":1}");
    assert_eq!(server.stop().code(), Some(0));
    let (_server, repaired) = backed_up("repaired.tar");
    let copy = folder.path().join("repaired");
    let ended = restore(&repaired, &copy, &[]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let restored = Launch::new(BINARY, &copy).start();
    assert_eq!(get(&mut restored.connect(), "xyz", &small), "{\"again\":1}");
    // An archive that was changed after the backup is refused, even with `--accept-damage`.
    let mut bytes = fs::read(&damaged).unwrap();
    let at = bytes.windows(8).position(|w| w == b"yyyyyyyy").unwrap();
    bytes[at] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let other = folder.path().join("other");
    let ended = restore(&damaged, &other, &["--accept-damage"]);
    expect_failure(&ended, "the checksum of the file is wrong");
}

#[test]
fn import_ends_at_a_refused_line_while_its_input_stays_open() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path()).with(&ADMIN).start();
    let mut import = Command::new(BINARY)
        .args(["import", "--admin", &admin_url(&server)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = import.stdin.take().unwrap();
    // The line is long enough to be sent at once, and not only buffered.
    let keys: Vec<String> = (0..11).map(|key| format!("\"{key}\":1")).collect();
    let keys = keys.join(",");
    let padding = " ".repeat(MIB);
    let line = format!("{{\"user\":\"u\",\"client\":\"c\",\"document\":{{{keys}}}}}{padding}\n");
    // The command may exit before it has read the complete line.
    let _ = lines.write_all(line.as_bytes());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = import.try_wait().unwrap() {
            break status;
        }
        assert!(
            began.elapsed().as_secs() < 30,
            "expected the import to end at the refused line"
        );
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut stderr = String::new();
    import.stderr.unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("413") && stderr.contains("line 1"),
        "{stderr}"
    );
    drop(lines);
}

#[test]
fn shutdown_waits_for_an_import_in_progress() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path()).with(&ADMIN).start();
    let line = "{\"user\":\"u\",\"client\":\"c\",\"document\":{\"n\":1}}\n";
    let import = Request::to("localhost", "POST", "/documents")
        .header("Content-Length", &(2 * line.len()).to_string());
    let mut begun = server.connect_admin();
    begun.send(&import.head()).unwrap();
    begun.send(line.as_bytes()).unwrap();
    // The import is in progress once its first document is stored.
    let token = token::of("u", "c");
    let began = Instant::now();
    while get(&mut server.connect(), "c", &token) == "{}" {
        assert!(
            began.elapsed().as_secs() < 30,
            "expected the first line to be imported"
        );
    }
    server.terminate();
    server.wait_for_log("shutdown started");
    begun.send(line.as_bytes()).unwrap();
    let response = begun.read_response(false).unwrap();
    assert_eq!(response.text(), "{\"documents\":2,\"kept\":0}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn import_and_export_of_100_mib_limit_the_servers_memory() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    let file = folder.path().join("lines.jsonl");
    let value = "z".repeat(10 * MIB - 2);
    let mut lines = BufWriter::new(fs::File::create(&file).unwrap());
    write!(lines, "{{\"user\":\"u\",\"client\":\"c\",\"document\":\"{{").unwrap();
    for key in 0..10 {
        let comma = if key == 0 { "" } else { "," };
        write!(lines, "{comma}\\\"{key}\\\":\\\"{value}\\\"").unwrap();
    }
    lines.write_all(b"}\"}\n").unwrap();
    lines.into_inner().unwrap().sync_all().unwrap();
    let url = admin_url(&server);
    let ended = prefd(BINARY, &["import", "--admin", &url, "--from", text(&file)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let peak = server.peak_rss_bytes();
    assert!(peak < 100 * MIB as u64, "{} MiB", peak / MIB as u64);
    let document = get(&mut server.connect(), "c", &token::of("u", "c"));
    assert_eq!(document.len(), 10 * (10 * MIB + 4) + 1 + 10);
    // An export of the document is also limited in memory.
    let again = folder.path().join("again.jsonl");
    let ended = prefd(BINARY, &["export", "--admin", &url, "--to", text(&again)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(fs::metadata(&again).unwrap().len() > document.len() as u64);
    let peak = server.peak_rss_bytes();
    assert!(peak < 200 * MIB as u64, "{} MiB", peak / MIB as u64);
}

#[test]
fn data_dir_flag_overrides_the_admin_variable() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(start_filled(&data_dir).stop().code(), Some(0));
    let export = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.env("PREFD_ADMIN", "http://127.0.0.1:1");
        command.arg("export").args(arguments).output().unwrap()
    };
    let exported = export(&["--data-dir", text(&data_dir)]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let lines = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    let by_variable = export(&[]);
    assert_eq!(by_variable.status.code(), Some(1), "{by_variable:?}");
    let both = [
        "--data-dir",
        text(&data_dir),
        "--admin",
        "http://127.0.0.1:1",
    ];
    assert_eq!(export(&both).status.code(), Some(2));
}
