//! The commands and the server on a disk that returns EIO for a sealed segment, its summary,
//! both, or a blob. A command must process everything that is readable. If
//! it needs the unreadable file, it must name the file, report that a read failed, and exit
//! with 1.
//!
//! These are regression tests. EIO in one segment made `stats`, `compact`, `backup`, `erase`
//! and `export` with `--data-dir` fail for the complete store. An online backup stopped at the
//! segment, with the message "the server did not answer". `engine_unreadable.rs` tests the
//! engine in the same way.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::BINARY;
use prefd_engine::{Config, Engine, WriteOptions};
use prefd_tests::machine::has_strace;
use prefd_tests::server::{CommandOutput, Launch, prefd};
use serde_json::Value;

const USERS: usize = 40;
/// Part of the message of a command that could not read a file.
const READ_FAILED: &str = "a read failed";

/// The files for which reads fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unreadable {
    Data,
    Summary,
    DataAndSummary,
    Blob,
}

use Unreadable::{Blob, Data, DataAndSummary, Summary};

const ALL: [Unreadable; 4] = [Data, Summary, DataAndSummary, Blob];

/// A closed store. The first segment contains documents of the client `early`. Every third
/// document of that client is replaced in a later segment.
struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        let mut config = Config::new(store.data_dir());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.background_compaction = false;
        let engine = Engine::open(config).unwrap();
        let put = |user: &str, client: &str, bytes: usize| {
            let body = format!("{{\"k\":\"{}\"}}", "v".repeat(bytes));
            let namespace = engine.namespace(user, client).unwrap();
            let written = namespace.write(body.as_bytes(), WriteOptions::default());
            written.unwrap();
        };
        let user = |n| format!("user-{n:02}");
        for client in ["early", "late"] {
            (0..USERS).for_each(|n| put(&user(n), client, 2000));
        }
        (0..USERS)
            .step_by(3)
            .for_each(|n| put(&user(n), "early", 2000));
        put("large", "large", 600_000);
        engine.close().unwrap();
        store
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of the first segment.
    fn segment(&self) -> PathBuf {
        self.data_dir().join("log/00000001.seg")
    }

    fn files(&self, which: Unreadable) -> Vec<PathBuf> {
        let summary = self.segment().with_extension("sum");
        match which {
            Data => vec![self.segment()],
            Summary => vec![summary],
            DataAndSummary => vec![self.segment(), summary],
            Blob => {
                let blobs = fs::read_dir(self.data_dir().join("blobs")).unwrap();
                blobs.map(|blob| blob.unwrap().path()).collect()
            }
        }
    }

    /// Returns the strace command that makes every read of the files fail with EIO.
    fn strace_command(&self, which: Unreadable) -> Vec<String> {
        let mut arguments: Vec<String> = ["strace", "-f", "-qq", "-o", "/dev/null"]
            .map(str::to_owned)
            .into();
        for file in self.files(which) {
            arguments.extend(["-P".to_owned(), text(&file).to_owned()]);
        }
        let fault = ["-e", "trace=pread64", "-e", "inject=pread64:error=EIO"];
        arguments.extend(fault.map(str::to_owned));
        arguments
    }

    /// Runs a command on the closed store.
    fn run(&self, which: Unreadable, arguments: &[&str]) -> CommandOutput {
        let strace = self.strace_command(which);
        let (program, options) = strace.split_first().unwrap();
        let data_dir = self.data_dir();
        let mut all: Vec<&str> = options.iter().map(String::as_str).collect();
        all.push(BINARY);
        all.extend(arguments);
        all.extend(["--data-dir", text(&data_dir)]);
        prefd(program, &all)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Expects exit code 1, and a message that reports a failed read and names the files.
fn check_names_files(ended: &CommandOutput, files: &[PathBuf], context: &str) {
    assert_eq!(ended.status.code(), Some(1), "{context}: {ended:?}");
    assert!(ended.err.contains(READ_FAILED), "{context}: {}", ended.err);
    for file in files {
        assert!(ended.err.contains(text(file)), "{context}: {}", ended.err);
    }
}

/// Expects exit code 0.
fn check_success(ended: &CommandOutput, context: &str) {
    assert_eq!(ended.status.code(), Some(0), "{context}: {ended:?}");
}

/// Returns the namespaces in an export.
fn exported(file: &Path) -> BTreeSet<(String, String)> {
    let lines = fs::read_to_string(file).unwrap();
    let name = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (text("user"), text("client"))
    };
    lines.lines().map(name).collect()
}

/// Checks that an export contains every document except those in an unreadable segment or blob.
fn check_export(ended: &CommandOutput, file: &Path, store: &Store, which: Unreadable) {
    let context = format!("export, {which:?}");
    let found = exported(file);
    let has = |n: usize, client: &str| {
        let name = (format!("user-{n:02}"), client.to_owned());
        found.contains(&name)
    };
    assert!((0..USERS).all(|n| has(n, "late")), "{context}: {found:?}");
    let has_large = found.contains(&("large".to_owned(), "large".to_owned()));
    assert_eq!(has_large, which != Blob, "{context}");
    assert!((0..USERS).step_by(3).all(|n| has(n, "early")), "{context}");
    let has_all_early = (0..USERS).all(|n| has(n, "early"));
    match which {
        Data | DataAndSummary => {
            assert!(!has_all_early, "{context}");
            check_names_files(ended, &[store.segment()], &context);
        }
        Blob => {
            assert!(has_all_early, "{context}");
            check_names_files(ended, &store.files(which), &context);
        }
        Summary => {
            assert!(has_all_early, "{context}");
            check_success(ended, &context);
        }
    }
}

/// Checks that a backup contains everything except the unreadable files, and can be restored.
fn check_backup_contents(archive: &Path, store: &Store, which: Unreadable) {
    let context = format!("backup, {which:?}");
    let copy = store.path("copy");
    let restore = [
        "restore",
        "--from",
        text(archive),
        "--data-dir",
        text(&copy),
    ];
    let restored = prefd(BINARY, &[&restore[..], &["--accept-damage"]].concat());
    check_success(&restored, &context);
    let lines = store.path("copy.jsonl");
    let export = ["export", "--data-dir", text(&copy), "--to", text(&lines)];
    let ended = prefd(BINARY, &export);
    let is_lost = which != Summary;
    assert_eq!(ended.status.code(), Some(i32::from(is_lost)), "{ended:?}");
    let found = exported(&lines);
    let all = 2 * USERS + 1;
    match which {
        Summary => assert_eq!(found.len(), all),
        Blob => assert_eq!(found.len(), all - 1),
        Data | DataAndSummary => assert!(found.len() > USERS && found.len() < all),
    }
}

/// Expects a backup of a closed store to name the files that it lacks. An unreadable summary is not
/// lacking, because it is built from the frames.
fn check_offline_backup_exit(
    ended: &CommandOutput,
    store: &Store,
    which: Unreadable,
    context: &str,
) {
    match which {
        Summary => check_success(ended, context),
        _ => check_names_files(ended, &store.files(which), context),
    }
}

#[test]
fn stats_with_unreadable_files_count_the_rest() {
    if !has_strace() {
        return;
    }
    let store = Store::new();
    for which in ALL {
        let context = format!("stats, {which:?}");
        let ended = store.run(which, &["stats", "--json"]);
        let stats: Value = serde_json::from_str(&ended.out).unwrap();
        let documents = stats["documents"].as_u64().unwrap();
        let all = 2 * USERS as u64 + 1;
        if which == DataAndSummary {
            check_names_files(&ended, &[store.segment()], &context);
            assert!(documents > USERS as u64 && documents < all, "{stats}");
            assert_eq!(stats["damaged_frames"], 1);
            assert_eq!(stats["damage"][0]["path"], text(&store.segment()));
        } else {
            check_success(&ended, &context);
            assert_eq!(documents, all);
        }
    }
}

#[test]
fn compact_with_unreadable_files_rewrites_the_rest() {
    if !has_strace() {
        return;
    }
    for which in ALL {
        let store = Store::new();
        let context = format!("compact, {which:?}");
        let ended = store.run(which, &["compact"]);
        if matches!(which, Data | DataAndSummary) {
            check_names_files(&ended, &[store.segment()], &context);
            assert!(store.segment().exists());
        } else {
            check_success(&ended, &context);
            assert!(!store.segment().exists());
        }
        assert!(ended.out.contains("->"), "{context}: {}", ended.out);
    }
}

#[test]
fn backup_with_unreadable_files_saves_the_rest() {
    if !has_strace() {
        return;
    }
    for which in ALL {
        let store = Store::new();
        let archive = store.path("backup.tar");
        let ended = store.run(which, &["backup", "--to", text(&archive)]);
        check_offline_backup_exit(&ended, &store, which, "backup to a file");
        check_backup_contents(&archive, &store, which);
        let piped = store.run(which, &["backup", "--to", "-"]);
        check_offline_backup_exit(&piped, &store, which, "backup to standard output");
    }
}

#[test]
fn export_with_unreadable_files_saves_the_rest() {
    if !has_strace() {
        return;
    }
    for which in ALL {
        let store = Store::new();
        let lines = store.path("export.jsonl");
        let ended = store.run(which, &["export", "--to", text(&lines)]);
        check_export(&ended, &lines, &store, which);
    }
}

#[test]
fn erase_with_unreadable_files_erases_the_rest() {
    if !has_strace() {
        return;
    }
    for which in ALL {
        let store = Store::new();
        let context = format!("erase, {which:?}");
        let ended = store.run(which, &["erase", "--user", "user-07"]);
        if matches!(which, Data | DataAndSummary) {
            check_names_files(&ended, &[store.segment()], &context);
        } else {
            check_success(&ended, &context);
        }
        let engine = Engine::open(Config::new(store.data_dir())).unwrap();
        assert!(engine.get("user-07", "late").unwrap().is_none());
        assert!(engine.get("user-08", "late").unwrap().is_some());
    }
}

#[test]
fn online_backup_and_export_with_unreadable_files_save_the_rest() {
    if !has_strace() {
        return;
    }
    for which in ALL {
        let store = Store::new();
        let mut strace = store.strace_command(which);
        strace.insert(1, "-D".to_owned());
        let strace: Vec<&str> = strace.iter().map(String::as_str).collect();
        let server = Launch::new(BINARY, &store.data_dir())
            .with(&["--admin-listen", "127.0.0.1:0"])
            .under(&strace)
            .start();
        let admin = format!("http://{}", server.admin_address());
        let archive = store.path("backup.tar");
        let backup = |to: &str| prefd(BINARY, &["backup", "--admin", &admin, "--to", to]);
        let ended = backup(text(&archive));
        check_names_files(&ended, &store.files(which), "online backup");
        check_backup_contents(&archive, &store, which);
        check_names_files(&backup("-"), &store.files(which), "to standard output");
        let lines = store.path("export.jsonl");
        let export = ["export", "--admin", &admin, "--to", text(&lines)];
        check_export(&prefd(BINARY, &export), &lines, &store, which);
        assert!(server.stop().success(), "{which:?}");
    }
}
