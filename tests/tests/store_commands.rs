//! `prefd verify`, `stats` and `compact` on data directories that the server has written.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BINARY, get, put};
use prefd_tests::http::Request;
use prefd_tests::server::{CommandOutput, Launch, prefd};
use prefd_tests::token;
use serde_json::Value;

/// Runs a command on a data directory.
fn run(command: &str, dir: &Path, arguments: &[&str]) -> CommandOutput {
    let dir = dir.to_str().unwrap();
    let mut all = vec![command, "--data-dir", dir];
    all.extend(arguments);
    prefd(BINARY, &all)
}

/// Runs a command with `--json`, and returns its parsed output as well.
fn json(command: &str, dir: &Path) -> (CommandOutput, Value) {
    let ended = run(command, dir, &["--json"]);
    let value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, value)
}

/// Returns the text of a small document.
fn text(n: usize) -> String {
    format!("{{\"n\":{n},\"pad\":\"{}\"}}", "p".repeat(2_000))
}

/// Creates a data directory in three runs of the server. Each run writes ten documents for each
/// of three users. The last run also deletes two documents, and writes a large one.
fn create_data_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let server = Launch::new(BINARY, dir.path()).start();
        let mut connection = server.connect();
        for user in ["alice", "bob", "carol"] {
            for client in 0..10 {
                let client = format!("client-{client}");
                let token = token::of(user, &client);
                put(&mut connection, &client, &token, &text(run));
            }
        }
        if run == 2 {
            for user in ["alice", "bob"] {
                let request = Request::of("DELETE", "client-0", &token::of(user, "client-0"));
                assert_eq!(connection.request(&request).status, 204);
            }
            let large = format!("{{\"large\":\"{}\"}}", "l".repeat(400_000));
            let token = token::of("carol", "large");
            put(&mut connection, "large", &token, &large);
        }
        assert!(server.stop().success());
    }
    dir
}

/// Returns the paths of the segments, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<_> = fs::read_dir(dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    segments
}

#[test]
fn stats_count_the_store_and_compact_frees_the_dead_bytes() {
    let dir = create_data_dir();
    let (ended, stats) = json("stats", dir.path());
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(stats["documents"], 29);
    assert_eq!(stats["users"], 3);
    assert_eq!(stats["tombstones"], 2);
    assert_eq!(stats["blobs"], 1);
    assert_eq!(stats["damaged_frames"], 0);
    let bytes = |stats: &Value, name: &str| stats[name].as_u64().unwrap();
    assert_eq!(bytes(&stats, "document_bytes"), 28 * 2_016 + 400_012);
    assert!(bytes(&stats, "live_bytes") > 28 * 2_000);
    assert!(bytes(&stats, "blob_bytes") > 400_000 && bytes(&stats, "catalogue_bytes") > 0);
    let printed = run("stats", dir.path(), &[]);
    assert!(
        printed.out.contains("documents            29\n"),
        "{printed:?}"
    );

    let (ended, compacted) = json("compact", dir.path());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(compacted["before"], stats);
    let after = &compacted["after"];
    assert_eq!(after["dead_bytes"], 0);
    assert_eq!(after["tombstones"], 0);
    for kept in [
        "documents",
        "users",
        "document_bytes",
        "live_bytes",
        "blobs",
    ] {
        assert_eq!(after[kept], stats[kept], "{kept}");
    }
    assert!(bytes(after, "log_bytes") < bytes(&stats, "log_bytes"));
    assert_eq!(json("stats", dir.path()).1, *after);
    let (ended, verified) = json("verify", dir.path());
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(
        (&verified["clean"], &verified["documents"]),
        (&true.into(), &29.into())
    );

    let server = Launch::new(BINARY, dir.path()).start();
    let mut connection = server.connect();
    let token = |client: &str, user: &str| token::of(user, client);
    assert_eq!(
        get(&mut connection, "client-1", &token("client-1", "bob")),
        text(2)
    );
    assert_eq!(
        get(&mut connection, "client-0", &token("client-0", "bob")),
        "{}"
    );
    let again = run("compact", dir.path(), &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.err.contains("is in use by"), "{again:?}");
}

#[test]
fn verify_names_the_damaged_file_and_the_affected_document() {
    let dir = create_data_dir();
    let (ended, clean) = json("verify", dir.path());
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(clean["clean"], true);
    assert_eq!(clean["catalogue"], "agrees");
    assert_eq!(clean["documents"], 29);
    // The frames of the last run, and the frames of earlier runs that compaction has left.
    assert!(clean["frames"].as_u64().unwrap() >= 33, "{clean}");
    // `verify` must not change the catalogue.
    assert_eq!(json("verify", dir.path()).1, clean);

    let last = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let pad = bytes.windows(9).position(|w| w == b"ppppppppp").unwrap();
    bytes[pad + 100] ^= 1;
    fs::write(&last, bytes).unwrap();
    let (ended, found) = json("verify", dir.path());
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("1 problem was found"), "{}", ended.err);
    assert_eq!(found["clean"], false);
    let problems = found["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0]["harm"], "nothing",
        "expected no harm, because the document was deleted: {problems:?}"
    );
    assert_eq!(problems[0]["file"], last.to_str().unwrap());

    let blob = fs::read_dir(dir.path().join("blobs")).unwrap().next();
    let blob = blob.unwrap().unwrap().path();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let printed = run("verify", dir.path(), &[]);
    assert_eq!(printed.status.code(), Some(1));
    let expected = "the document of user \"carol\", client \"large\" cannot be read";
    assert!(printed.out.contains(expected), "{printed:?}");
    assert!(printed.out.contains("blobs/") && printed.out.contains(" at byte "));
}

#[test]
fn verify_reports_a_missing_or_foreign_catalogue() {
    let dir = create_data_dir();
    let other = create_data_dir();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    let (ended, found) = json("verify", dir.path());
    assert_eq!(
        (ended.status.code(), &found["catalogue"]),
        (Some(0), &"to be rebuilt".into())
    );
    // The catalogue of another store must not be used.
    fs::rename(other.path().join("catalogue"), dir.path().join("catalogue")).unwrap();
    let (_, found) = json("verify", dir.path());
    assert_eq!(found["catalogue"], "to be rebuilt");
}

#[test]
fn commands_refuse_other_directories_and_create_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for command in ["verify", "stats", "compact"] {
        for dir in [&missing, &dir.path().to_owned()] {
            let ended = run(command, dir, &[]);
            assert_eq!(ended.status.code(), Some(1), "{command}: {ended:?}");
            assert!(ended.err.contains("is not a data directory"), "{ended:?}");
        }
        assert!(!missing.exists() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}

#[test]
fn verify_finds_no_problem_after_a_kill_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path()).start();
    let token = token::of("alice", "xyz");
    put(&mut server.connect(), "xyz", &token, &text(1));
    server.kill();
    let (ended, found) = json("verify", dir.path());
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(
        (&found["clean"], &found["catalogue"]),
        (&true.into(), &"to be rebuilt".into())
    );
    let (_, stats) = json("stats", dir.path());
    assert_eq!(stats["documents"], 1);
}

#[test]
fn unreadable_frames_are_logged_at_startup() {
    let dir = create_data_dir();
    let last = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.len();
    // Damages the metadata of the large document, which was written last.
    bytes[end - 20] ^= 1;
    fs::write(&last, bytes).unwrap();
    fs::remove_file(last.with_extension("sum")).unwrap();
    let server = Launch::new(BINARY, dir.path()).start();
    server.wait_for_log("run prefd verify to list the affected documents");
    let request = Request::of("GET", "large", &token::of("carol", "large"));
    assert_eq!(server.connect().request(&request).status, 501);
}
