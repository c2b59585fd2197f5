//! `prefd backup`, `restore`, `export` and `import` where something goes wrong: a full disk,
//! a process that was killed, a stream that breaks off. Nothing half done has a name.

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
use prefd_tests::server::{Ended, Launch, Server, prefd};
use prefd_tests::token;

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
const MIB: usize = 1024 * 1024;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn admin_url(server: &Server) -> String {
    format!("http://{}", server.admin_address())
}

fn names(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn fails(ended: &Ended, word: &str) {
    assert_eq!(ended.status.code(), Some(1), "{word}: {ended:?}");
    assert!(ended.err.contains(word), "{word}: {}", ended.err);
}

/// A server with two documents, one of them large.
fn filled(data_dir: &Path) -> Server {
    let server = Launch::new(BINARY, data_dir).with(&ADMIN).start();
    let mut connection = server.connect();
    let large = format!("{{\"large\":\"{}\"}}", "y".repeat(400_000));
    put(&mut connection, "large", &token::of("zoe", "large"), &large);
    let small = token::of("alice", "xyz");
    put(&mut connection, "xyz", &small, "{\"small\":1}");
    server
}

/// A backup of a running server.
fn back_up(server: &Server, to: &Path) {
    let url = admin_url(server);
    let ended = prefd(BINARY, &["backup", "--admin", &url, "--to", text(to)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
}

/// The arguments of a restore.
fn restoring<'a>(from: &'a Path, to: &'a Path) -> [&'a str; 5] {
    ["restore", "--from", text(from), "--data-dir", text(to)]
}

/// `prefd` where no file may grow beyond 64 KiB.
fn on_a_full_disk(arguments: &[&str]) -> Ended {
    let output = Command::new("sh")
        .args(["-c", &format!("{FULL_DISK}; exec \"$0\" \"$@\""), BINARY])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn on_a_full_disk_nothing_is_left_half_done() {
    let folder = tempfile::tempdir().unwrap();
    let server = filled(&folder.path().join("data"));
    let url = admin_url(&server);
    let [backup, export, copy] =
        ["backup.tar", "export.jsonl", "copy"].map(|name| folder.path().join(name));
    let before = names(folder.path());
    for (command, to) in [("backup", &backup), ("export", &export)] {
        let ended = on_a_full_disk(&[command, "--admin", &url, "--to", text(to)]);
        fails(&ended, "File too large");
        assert_eq!(names(folder.path()), before, "{command}");
    }
    for (command, to) in [("backup", &backup), ("export", &export)] {
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", text(to)]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    }
    let restore = restoring(&backup, &copy);
    fails(&on_a_full_disk(&restore), "File too large");
    assert_eq!(names(&copy), ["lock"]);
    assert_eq!(prefd(BINARY, &restore).status.code(), Some(0));
    let import = ["import", "--from", text(&export)];
    let full = Launch::new(BINARY, &folder.path().join("full"))
        .with(&ADMIN)
        .after_shell(FULL_DISK)
        .start();
    let url = admin_url(&full);
    let ended = prefd(BINARY, &[&import[..], &["--admin", &url]].concat());
    fails(&ended, "507");
    assert!(ended.err.contains("line 1"), "{}", ended.err);
    let small = get(&mut full.connect(), "xyz", &token::of("alice", "xyz"));
    assert_eq!(small, "{}");
    let closed = folder.path().join("closed");
    let ended = on_a_full_disk(&[&import[..], &["--data-dir", text(&closed)]].concat());
    fails(&ended, "no space is left");
}

#[test]
fn a_restore_that_was_killed_is_no_store_and_can_be_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = filled(&folder.path().join("data"));
    let backup = folder.path().join("backup.tar");
    back_up(&server, &backup);
    let lines = folder.path().join("lines.jsonl");
    fs::write(&lines, "").unwrap();
    // What is there, step by step as a restore puts it in place.
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
        let before = names(&copy);
        let told = "an unfinished restore";
        fails(&Launch::new(BINARY, &copy).run(), told);
        for command in [
            &["import", "--from", text(&lines)][..],
            &["export"],
            &["erase", "--user", "alice"],
            &["backup", "--to", "-"],
            &["compact"],
        ] {
            let command = [command, &["--data-dir", text(&copy)]].concat();
            fails(&prefd(BINARY, &command), told);
        }
        let after: Vec<_> = names(&copy);
        let made = after.iter().filter(|name| !before.contains(name));
        let made: Vec<_> = made.filter(|name| *name != "lock").collect();
        assert!(made.is_empty(), "{made:?}");
        let restore = restoring(&backup, &copy);
        // Not while another one is at it.
        let held = DirectoryLock::acquire(&copy).unwrap();
        fails(&prefd(BINARY, &restore), "is in use by");
        drop(held);
        let ended = prefd(BINARY, &restore);
        assert_eq!(ended.status.code(), Some(0), "{folders:?}: {ended:?}");
        let engine = Engine::open(Config::new(&copy)).unwrap();
        assert_eq!(engine.documents(), 2);
        engine.close().unwrap();
        // Now it is a store, and stays one.
        fails(&prefd(BINARY, &restore), "is not empty");
    }
}

/// Answers one connection with this, and closes it.
fn answering(answer: &'static str) -> String {
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
        stream.write_all(answer.as_bytes()).unwrap();
    });
    url
}

#[test]
fn what_breaks_off_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    for command in ["backup", "export"] {
        let url = answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        let ended = prefd(BINARY, &[command, "--admin", &url, "--to", text(&file)]);
        fails(&ended, "the connection to the server failed");
        assert_eq!(names(folder.path()), [""; 0], "{command}");
    }
}

#[test]
fn an_export_of_a_damaged_store_has_every_document_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(filled(&data_dir).stop().code(), Some(0));
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
    fails(&ended, "the export is incomplete");
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
    fails(&prefd(BINARY, &command), "is corrupt at byte");
    has_the_other_document(&offline);
}

#[test]
fn a_backup_of_a_damaged_store_gives_back_all_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(filled(&data_dir).stop().code(), Some(0));
    damage_last_document(&data_dir);
    let launch = Launch::new(BINARY, &data_dir).with(&ADMIN);
    let backed_up = |name: &str| {
        let server = launch.start();
        let file = folder.path().join(name);
        back_up(&server, &file);
        (server, file)
    };
    let restore = |from: &Path, to: &Path, more: &[&str]| {
        prefd(BINARY, &[&restoring(from, to)[..], more].concat())
    };
    let (server, damaged) = backed_up("damaged.tar");
    let copy = folder.path().join("copy");
    fails(&restore(&damaged, &copy, &[]), "--accept-damage");
    let ended = restore(&damaged, &copy, &["--accept-damage"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let restored = Launch::new(BINARY, &copy).start();
    let large = get(&mut restored.connect(), "large", &token::of("zoe", "large"));
    assert_eq!(large.len(), 400_000 + 12);
    let small = token::of("alice", "xyz");
    let lost = Request::of("GET", "xyz", &small);
    assert_eq!(restored.connect().request(&lost).status, 501);
    // Once it is replaced nobody misses what is damaged.
    put(&mut server.connect(), "xyz", &small, "{\"again\":1}");
    assert_eq!(server.stop().code(), Some(0));
    let (_server, mended) = backed_up("mended.tar");
    let copy = folder.path().join("mended");
    let ended = restore(&mended, &copy, &[]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let restored = Launch::new(BINARY, &copy).start();
    assert_eq!(get(&mut restored.connect(), "xyz", &small), "{\"again\":1}");
    // One that is damaged itself is refused whatever is accepted.
    let mut bytes = fs::read(&damaged).unwrap();
    let at = bytes.windows(8).position(|w| w == b"yyyyyyyy").unwrap();
    bytes[at] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let other = folder.path().join("other");
    let ended = restore(&damaged, &other, &["--accept-damage"]);
    fails(&ended, "the checksum of the file is wrong");
}

#[test]
fn an_import_ends_where_a_line_is_refused_though_more_could_come() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path()).with(&ADMIN).start();
    let mut import = Command::new(BINARY)
        .args(["import", "--admin", &admin_url(&server)])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = import.stdin.take().unwrap();
    // Enough that it is sent, and not gathered.
    let keys: Vec<String> = (0..11).map(|key| format!("\"{key}\":1")).collect();
    let keys = keys.join(",");
    let padding = " ".repeat(MIB);
    let line = format!("{{\"user\":\"u\",\"client\":\"c\",\"document\":{{{keys}}}}}{padding}\n");
    // It may have ended before it has taken all of that.
    let _ = lines.write_all(line.as_bytes());
    let began = Instant::now();
    let status = loop {
        if let Some(status) = import.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed().as_secs() < 30, "it waits for more");
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut told = String::new();
    import.stderr.unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("413") && told.contains("line 1"), "{told}");
    drop(lines);
}

#[test]
fn what_an_operator_has_begun_ends_before_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path()).with(&ADMIN).start();
    let line = "{\"user\":\"u\",\"client\":\"c\",\"document\":{\"n\":1}}\n";
    let import = Request::to("localhost", "POST", "/documents")
        .header("Content-Length", &(2 * line.len()).to_string());
    let mut begun = server.connect_admin();
    begun.send(&import.head()).unwrap();
    begun.send(line.as_bytes()).unwrap();
    // It has been taken up once its first line is there.
    let token = token::of("u", "c");
    let began = Instant::now();
    while get(&mut server.connect(), "c", &token) == "{}" {
        assert!(began.elapsed().as_secs() < 30, "it is not imported");
    }
    server.terminate();
    server.wait_for_log("shutdown started");
    begun.send(line.as_bytes()).unwrap();
    let response = begun.read_response(false).unwrap();
    assert_eq!(response.text(), "{\"documents\":2,\"kept\":0}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_document_of_100_mib_is_imported_below_100_mib_of_memory() {
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
    // The same of an export.
    let again = folder.path().join("again.jsonl");
    let ended = prefd(BINARY, &["export", "--admin", &url, "--to", text(&again)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(fs::metadata(&again).unwrap().len() > document.len() as u64);
    let peak = server.peak_rss_bytes();
    assert!(peak < 200 * MIB as u64, "{} MiB", peak / MIB as u64);
}

#[test]
fn a_flag_outdoes_what_the_environment_says_of_another_store() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    assert_eq!(filled(&data_dir).stop().code(), Some(0));
    let export = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.env("PREFD_ADMIN", "http://127.0.0.1:1");
        command.arg("export").args(arguments).output().unwrap()
    };
    let exported = export(&["--data-dir", text(&data_dir)]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let lines = String::from_utf8(exported.stdout).unwrap();
    assert_eq!(lines.lines().count(), 2);
    let asked = export(&[]);
    assert_eq!(asked.status.code(), Some(1), "{asked:?}");
    let both = [
        "--data-dir",
        text(&data_dir),
        "--admin",
        "http://127.0.0.1:1",
    ];
    assert_eq!(export(&both).status.code(), Some(2));
}
