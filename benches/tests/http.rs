//! Runs the HTTP scenario from end to end with the smallest size: starts each installed server,
//! stores documents, sends requests with wrk, and checks the report.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Path of the `prefd` example. Cargo builds examples into a folder next to the binaries.
fn prefd() -> PathBuf {
    let storage = Path::new(env!("CARGO_BIN_EXE_storage"));
    storage.with_file_name("examples").join("prefd")
}

fn is_installed(program: &str) -> bool {
    // With -v, each of the programs prints its version and ends.
    let found = Command::new(program)
        .arg("-v")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.is_ok()
}

/// Writes to standard error directly, because `eprintln!` prints nothing in a test that passes.
fn skip(program: &str) {
    let mut stderr = std::io::stderr();
    writeln!(
        stderr,
        "SKIPPED {program}: not installed (apt-get install {program})"
    )
    .unwrap();
}

fn compare(contenders: &str, out: &Path) -> (Vec<Value>, String) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_storage"))
        .args(["compare", "--form", "tiny", "--topics", "http"])
        .args(["--contenders", contenders])
        .arg("--prefd")
        .arg(prefd())
        .arg("--dir")
        .arg(dir.path())
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let lines = std::fs::read_to_string(out.join("comparison.jsonl")).unwrap();
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let markdown = std::fs::read_to_string(out.join("comparison.md")).unwrap();
    (lines.collect(), markdown)
}

fn phases<'a>(lines: &'a [Value], contender: &str) -> Vec<&'a str> {
    let results = lines.iter().filter_map(|line| line.get("outcome"));
    results
        .filter(|result| result["contender"] == contender)
        .inspect(|result| assert!(result["operations"].as_u64() > Some(0), "{result}"))
        .map(|result| result["phase"].as_str().unwrap())
        .collect()
}

#[test]
fn http_comparison_measures_every_installed_server() {
    if !is_installed("wrk") {
        skip("wrk");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let mut contenders = vec!["prefd", "hyper"];
    if is_installed("nginx") {
        contenders.push("nginx");
    } else {
        skip("nginx");
    }
    let (lines, markdown) = compare(&contenders.join(","), out.path());
    for contender in contenders {
        let phases = phases(&lines, contender);
        assert!(
            phases.contains(&"HTTP GET 1 KiB, 32 connections, RS256"),
            "{phases:?}"
        );
    }
    let of_prefd = phases(&lines, "prefd");
    for phase in [
        "HTTP durable PUT 1 KiB, 64 connections, RS256",
        "HTTP durable PUT 10 MiB, 1 connection",
        "HTTP start, empty",
        "HTTP 16 PUTs of 100 MB at once",
    ] {
        assert!(of_prefd.contains(&phase), "{of_prefd:?}");
    }
    assert!(!markdown.contains("Failed runs"), "{markdown}");
    assert!(markdown.contains("\n## HTTP\n"), "{markdown}");
    assert!(!markdown.contains("\n## Storage\n"), "{markdown}");
}
