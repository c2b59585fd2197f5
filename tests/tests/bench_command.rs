//! `prefd bench`: its report, its cleanup, and that it changes no other files.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{BINARY, put};
use prefd_tests::loop_mount::{Format, LoopMount};
use prefd_tests::machine::ensure_isolated;
use prefd_tests::server::{CommandOutput, Launch, prefd};
use prefd_tests::token;
use serde_json::Value;

fn bench(dir: &Path, arguments: &[&str]) -> CommandOutput {
    let dir = dir.to_str().unwrap();
    let mut all = vec!["bench", "--dir", dir, "--seconds", "0.01"];
    all.extend(arguments);
    prefd(BINARY, &all)
}

/// Every file below `dir`, with its contents.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn bench_measures_every_row_and_removes_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let ended = bench(
        dir.path(),
        &["--json", "--writers", "1,3", "--sizes", "100,300KiB"],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    let rows = report["rows"].as_array().unwrap();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["what"].as_str().unwrap(),
                row["bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let cached = "get, in the document cache";
    let uncached = "get, past the document cache";
    assert_eq!(
        shown,
        [
            ("bare append + fdatasync", 1024),
            ("durable put", 1024),
            ("durable put", 1024),
            ("put without sync", 1024),
            (cached, 1024),
            ("durable put", 100),
            ("durable put", 307_200),
            (uncached, 1024),
            (uncached, 100),
            (uncached, 307_200),
        ]
    );
    assert_eq!(rows[1]["threads"], 1);
    assert_eq!(rows[2]["threads"], 3);
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("operations") >= number("threads"), "{row}");
        assert!(
            number("seconds") > 0.0 && number("per_second") > 0.0,
            "{row}"
        );
        assert!(number("p50_us") > 0.0, "{row}");
        assert!(number("p50_us") <= number("p99_us"), "{row}");
        assert!(number("p99_us") <= number("p999_us"), "{row}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bench_leaves_a_data_directory_in_its_folder_unchanged() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("prefd-data");
    let server = Launch::new(BINARY, &data).start();
    let mut connection = server.connect();
    put(
        &mut connection,
        "c",
        &token::of("u", "c"),
        "{\"kept\":true}",
    );
    assert!(server.stop().success());
    let before = files(dir.path());
    assert!(!before.is_empty());
    for folder in [dir.path(), &data] {
        let ended = bench(folder, &["--sizes", "100", "--writers", "2"]);
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        let head = ended.out.lines().next().unwrap();
        assert!(
            head.contains("per second") && head.contains("p99.9"),
            "{head}"
        );
        // The header, five rows that do not depend on --sizes, and two rows for the one size.
        assert_eq!(ended.out.lines().count(), 1 + 5 + 2, "{}", ended.out);
    }
    assert!(
        files(dir.path()) == before,
        "bench must not change other files"
    );
}

#[test]
fn invalid_bench_arguments_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for invalid in [
        ["--writers", "0"],
        ["--writers", "many"],
        ["--sizes", "11MiB"],
        ["--sizes", "1"],
        ["--sizes", "1KB"],
        ["--seconds", "0"],
    ] {
        let all = [&["bench"][..], &invalid].concat();
        let ended = prefd(BINARY, &all);
        assert_eq!(ended.status.code(), Some(2), "{invalid:?}: {ended:?}");
        assert!(ended.err.contains(invalid[0]), "{ended:?}");
    }
    let missing = dir.path().join("missing");
    let ended = bench(&missing, &[]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains(missing.to_str().unwrap()), "{ended:?}");
    assert!(!missing.exists());
}

#[test]
fn bench_on_a_disk_that_is_too_small_fails_and_cleans_up() {
    if !ensure_isolated(
        "bench_on_a_disk_that_is_too_small_fails_and_cleans_up",
        &["ext4"],
    ) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let mount = LoopMount::make(Format::Ext4, &image, 16 << 20, &dir.path().join("disk"));
    let entries = || fs::read_dir(&mount.path).unwrap().count();
    let before = entries();
    let ended = bench(&mount.path, &["--sizes", "10MiB", "--writers", "1"]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(ended.err.contains("prefd-bench-"), "{ended:?}");
    assert!(ended.err.contains("no space left to write"), "{ended:?}");
    assert_eq!(entries(), before);
}
