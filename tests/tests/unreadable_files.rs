//! Exports and backups of a store with files that are missing, truncated or cannot be opened.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::BINARY;
use prefd_tests::http::Request;
use prefd_tests::server::{CommandOutput, Launch, Server, prefd};
use serde_json::{Value, json};

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];
/// Number of small documents, which are all in one segment.
const SMALL: usize = 9;
/// Length of a value that makes the engine store its document in a blob.
const LARGE_BYTES: usize = 300_000;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Imports documents with the given users and clients into a new data directory. The documents
/// in `large` are stored in blobs.
fn create_store(dir: &Path, small: &[(String, String)], large: &[(String, String)]) {
    let line = |(user, client): &(String, String), bytes: usize| {
        let document = json!({"value": "x".repeat(bytes)});
        json!({"user": user, "client": client, "document": document}).to_string() + "\n"
    };
    let mut lines: String = small.iter().map(|name| line(name, 1)).collect();
    lines.extend(large.iter().map(|name| line(name, LARGE_BYTES)));
    let file = dir.with_extension("jsonl");
    fs::write(&file, lines).unwrap();
    let import = ["import", "--from", text(&file), "--data-dir", text(dir)];
    let ended = prefd(BINARY, &import);
    assert!(ended.status.success(), "{ended:?}");
}

/// Creates a store with [`SMALL`] small documents of several users, and one large document of the
/// user "large".
fn nine_good_documents(dir: &Path) {
    let small: Vec<_> = (0..SMALL)
        .map(|n| (format!("user-{n}"), "app".to_owned()))
        .collect();
    create_store(dir, &small, &[("large".to_owned(), "app".to_owned())]);
}

/// Returns the files of the store with an extension, such as `blob`.
fn files(data_dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["log", "blobs"] {
        let entries = fs::read_dir(data_dir.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.extension().is_some_and(|e| e == extension)));
    }
    found
}

fn only_file(data_dir: &Path, extension: &str) -> PathBuf {
    let mut found = files(data_dir, extension);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Replaces a file by a symbolic link to itself, so that even root cannot open it.
fn make_unopenable(path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(path, path).unwrap();
}

/// The store that a command uses: a running server or a closed data directory.
enum Store<'a> {
    Running(&'a Server),
    Closed(&'a Path),
}

impl Store<'_> {
    fn run(&self, arguments: &[&str]) -> CommandOutput {
        let (flag, value) = match self {
            Self::Running(server) => ("--admin", format!("http://{}", server.admin_address())),
            Self::Closed(dir) => ("--data-dir", text(dir).to_owned()),
        };
        prefd(BINARY, &[arguments, &[flag, &value]].concat())
    }
}

/// Returns the users in an export.
fn users(lines: &str) -> BTreeSet<String> {
    let user = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["user"].as_str().unwrap().to_owned()
    };
    lines.lines().map(user).collect()
}

fn check_export_without_the_large_document(store: &Store<'_>, blob: &Path) {
    let ended = store.run(&["export"]);
    assert_eq!(ended.status.code(), Some(1), "{:.1000}", ended.err);
    let expected: BTreeSet<_> = (0..SMALL).map(|n| format!("user-{n}")).collect();
    assert_eq!(users(&ended.out), expected, "{}", ended.err);
    let place = format!(
        "prefd: the document of user \"large\", client \"app\" cannot be read: {} at byte 0: \
         cannot open the file: Too many levels of symbolic links",
        blob.display()
    );
    assert!(ended.err.contains(&place), "{}", ended.err);
    assert!(
        ended.err.contains("1 document cannot be read"),
        "{}",
        ended.err
    );
    // The filter applies to the documents and to the report.
    let other = store.run(&["export", "--user", "user-3"]);
    assert_eq!(other.status.code(), Some(0), "{other:?}");
    assert_eq!(users(&other.out).len(), 1);
    let only = store.run(&["export", "--user", "large"]);
    assert_eq!((only.status.code(), &*only.out), (Some(1), ""), "{only:?}");
    assert!(only.err.contains(&place), "{}", only.err);
}

#[test]
fn export_skips_and_names_a_document_that_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    nine_good_documents(&data_dir);
    let blob = only_file(&data_dir, "blob");
    make_unopenable(&blob);
    check_export_without_the_large_document(&Store::Closed(&data_dir), &blob);
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    check_export_without_the_large_document(&Store::Running(&server), &blob);
}

/// A segment is removed while the server runs, and then the list of documents is built again.
#[test]
fn export_reports_a_segment_that_was_removed_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    nine_good_documents(&data_dir);
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    let store = Store::Running(&server);
    assert_eq!(users(&store.run(&["export"]).out).len(), SMALL + 1);
    let segment = only_file(&data_dir, "seg");
    fs::remove_file(&segment).unwrap();
    fs::remove_file(segment.with_extension("sum")).unwrap();
    let erased = store.run(&["erase", "--user", "nobody"]);
    assert!(erased.err.contains(text(&segment)), "{erased:?}");
    for user in [&[][..], &["--user", "user-3"]] {
        let ended = store.run(&[&["export"], user].concat());
        assert_eq!(
            (ended.status.code(), &*ended.out),
            (Some(1), ""),
            "{user:?}"
        );
        let place = format!(
            "prefd: documents may be missing, because a part of the log is damaged or cannot be \
             read: {} at byte 0",
            segment.display()
        );
        assert!(ended.err.contains(&place), "{}", ended.err);
    }
}

#[test]
fn export_reports_unreadable_documents_with_long_names() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    // Names of the maximum length. The report of an online export is percent-encoded, so these
    // names need about 3 KiB for each document.
    let client = "\u{e9}".repeat(127);
    let names: Vec<_> = (10..22)
        .map(|n| ("\u{e9}".repeat(126) + &n.to_string(), client.clone()))
        .collect();
    create_store(&data_dir, &[], &names);
    for blob in files(&data_dir, "blob") {
        make_unopenable(&blob);
    }
    let offline = Store::Closed(&data_dir).run(&["export"]);
    assert_eq!(offline.status.code(), Some(1));
    for (user, _) in &names {
        assert!(offline.err.contains(user), "{}", offline.err);
    }
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    let online = Store::Running(&server).run(&["export"]);
    assert_eq!(online.status.code(), Some(1));
    assert!(
        online.err.contains("12 documents cannot be read"),
        "{}",
        online.err
    );
    assert!(online.err.contains(&names[0].0), "{}", online.err);
}

#[test]
fn incomplete_export_to_a_client_without_trailers_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    nine_good_documents(&data_dir);
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    let export = |user: &str, te: Option<&str>| {
        let path = format!("/users/{user}/documents");
        let mut request = Request::to("localhost", "GET", &path).header("Connection", "close");
        if let Some(te) = te {
            request = request.header("TE", te);
        }
        let mut connection = server.connect_admin();
        connection.send(&request.bytes()).unwrap();
        // The server resets the connection if it cannot send the end of the body.
        let response = String::from_utf8(connection.read_until_closed()).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        response
    };
    make_unopenable(&only_file(&data_dir, "blob"));
    // A body with chunks ends with a chunk of length 0.
    assert!(!export("large", None).ends_with("0\r\n\r\n"));
    assert!(!export("large", Some("gzip, deflate")).ends_with("0\r\n\r\n"));
    assert!(export("user-3", None).ends_with("0\r\n\r\n"));
    let with_trailers = export("large", Some("gzip, Trailers"));
    let (_, trailers) = with_trailers.split_once("\r\n0\r\n").unwrap();
    assert!(
        trailers.starts_with("prefd-unsaved: 1 document cannot be read%0Athe document of user"),
        "{trailers}"
    );
}

/// Takes a backup of a store with a missing or truncated file. Expects exit code 1, the place on
/// standard error, and a backup that `prefd restore` accepts only with `--accept-damage`.
fn check_backup(store: &Store<'_>, folder: &Path, place: &str, documents: usize) {
    let backup = folder.join("backup.tar");
    let ended = store.run(&["backup", "--to", text(&backup)]);
    assert_eq!(ended.status.code(), Some(1), "{place}: {ended:?}");
    let line = format!("prefd: {place}\n");
    assert!(ended.err.contains(&line), "{place}: {}", ended.err);
    let copy = folder.join("copy");
    let restore = [
        "restore",
        "--from",
        text(&backup),
        "--data-dir",
        text(&copy),
    ];
    let refused = prefd(BINARY, &restore);
    assert_eq!(refused.status.code(), Some(1), "{place}: {refused:?}");
    let restored = prefd(BINARY, &[&restore[..], &["--accept-damage"]].concat());
    assert!(restored.status.success(), "{place}: {restored:?}");
    let export = Store::Closed(&copy).run(&["export"]);
    assert_eq!(users(&export.out).len(), documents, "{place}");
    fs::remove_file(backup).unwrap();
    fs::remove_dir_all(copy).unwrap();
}

#[test]
fn backup_without_a_missing_file_names_it_and_exits_1() {
    for extension in ["blob", "seg"] {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        nine_good_documents(&data_dir);
        let file = only_file(&data_dir, extension);
        fs::remove_file(&file).unwrap();
        let place = format!("{} at byte 0: the file is missing", file.display());
        let documents = if extension == "blob" { SMALL } else { 0 };
        let closed = Store::Closed(&data_dir);
        check_backup(&closed, folder.path(), &place, documents);
        let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
        check_backup(&Store::Running(&server), folder.path(), &place, documents);
    }
}

#[test]
fn backup_of_an_unopenable_or_truncated_file_names_it_and_exits_1() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    nine_good_documents(&data_dir);
    let blob = only_file(&data_dir, "blob");
    make_unopenable(&blob);
    let place = format!(
        "{} at byte 0: cannot open the file: Too many levels of symbolic links (os error 40)",
        blob.display()
    );
    let closed = Store::Closed(&data_dir);
    check_backup(&closed, folder.path(), &place, SMALL);

    let data_dir = folder.path().join("truncated");
    nine_good_documents(&data_dir);
    let segment = only_file(&data_dir, "seg");
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    // The segment keeps its header and the first frames.
    let kept = file.metadata().unwrap().len() / 2;
    file.set_len(kept).unwrap();
    let place = format!(
        "{} at byte {kept}: the file is truncated",
        segment.display()
    );
    let closed = Store::Closed(&data_dir);
    let export = closed.run(&["export"]);
    assert_eq!(export.status.code(), Some(1), "{export:?}");
    let readable = users(&export.out).len();
    assert!((1..SMALL).contains(&readable), "{readable}");
    check_backup(&closed, folder.path(), &place, readable);
}

#[test]
fn backup_without_a_missing_summary_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    nine_good_documents(&data_dir);
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    fs::remove_file(only_file(&data_dir, "sum")).unwrap();
    let backup = folder.path().join("backup.tar");
    let ended = Store::Running(&server).run(&["backup", "--to", text(&backup)]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let copy = folder.path().join("copy");
    let restore = [
        "restore",
        "--from",
        text(&backup),
        "--data-dir",
        text(&copy),
    ];
    let restored = prefd(BINARY, &restore);
    assert!(restored.status.success(), "{restored:?}");
    let export = Store::Closed(&copy).run(&["export"]);
    assert_eq!(users(&export.out).len(), SMALL + 1);
}
