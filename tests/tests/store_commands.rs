//! `prefd verify`, `stats` and `compact` on directories that the server has written.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BINARY, get, put};
use prefd_tests::http::Request;
use prefd_tests::server::{Ended, Launch, prefd};
use prefd_tests::token;
use serde_json::Value;

fn run(command: &str, dir: &Path, arguments: &[&str]) -> Ended {
    let dir = dir.to_str().unwrap();
    let mut all = vec![command, "--data-dir", dir];
    all.extend(arguments);
    prefd(BINARY, &all)
}

fn json(command: &str, dir: &Path) -> (Ended, Value) {
    let ended = run(command, dir, &["--json"]);
    let value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    (ended, value)
}

fn text(n: usize) -> String {
    format!("{{\"n\":{n},\"pad\":\"{}\"}}", "p".repeat(2_000))
}

/// A directory with three users of ten clients each, every document written three
/// times, two deleted, one large, over three lives of the server.
fn served() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..3 {
        let server = Launch::new(BINARY, dir.path()).start();
        let mut connection = server.connect();
        for user in ["alice", "bob", "carol"] {
            for client in 0..10 {
                let client = format!("client-{client}");
                let token = token::of(user, &client);
                put(&mut connection, &client, &token, &text(life));
            }
        }
        if life == 2 {
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
fn stats_count_what_is_there_and_compact_gives_the_rest_back() {
    let dir = served();
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
    let people = run("stats", dir.path(), &[]);
    assert!(
        people.out.contains("documents            29\n"),
        "{people:?}"
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
    let found = |client: &str, user: &str| token::of(user, client);
    assert_eq!(
        get(&mut connection, "client-1", &found("client-1", "bob")),
        text(2)
    );
    assert_eq!(
        get(&mut connection, "client-0", &found("client-0", "bob")),
        "{}"
    );
    let again = run("compact", dir.path(), &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(again.err.contains("is in use by"), "{again:?}");
}

#[test]
fn verify_says_what_is_wrong_and_whose_document_it_is() {
    let dir = served();
    let (ended, clean) = json("verify", dir.path());
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(clean["clean"], true);
    assert_eq!(clean["catalogue"], "agrees");
    assert_eq!(clean["documents"], 29);
    // Those of the last life; of the others, as many as compaction has left.
    assert!(clean["frames"].as_u64().unwrap() >= 33, "{clean}");
    // Having looked, the catalogue is as good as before.
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
        "it was deleted: {problems:?}"
    );
    assert_eq!(problems[0]["file"], last.to_str().unwrap());

    let blob = fs::read_dir(dir.path().join("blobs")).unwrap().next();
    let blob = blob.unwrap().unwrap().path();
    let mut bytes = fs::read(&blob).unwrap();
    bytes[200_000] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let people = run("verify", dir.path(), &[]);
    assert_eq!(people.status.code(), Some(1));
    let expected = "the document of user \"carol\", client \"large\" cannot be read";
    assert!(people.out.contains(expected), "{people:?}");
    assert!(people.out.contains("blobs/") && people.out.contains(" at byte "));
}

#[test]
fn a_catalogue_that_nobody_would_believe_is_to_be_rebuilt() {
    let dir = served();
    let other = served();
    fs::remove_dir_all(dir.path().join("catalogue")).unwrap();
    let (ended, found) = json("verify", dir.path());
    assert_eq!(
        (ended.status.code(), &found["catalogue"]),
        (Some(0), &"to be rebuilt".into())
    );
    // One of another store is not believed either.
    fs::rename(other.path().join("catalogue"), dir.path().join("catalogue")).unwrap();
    let (_, found) = json("verify", dir.path());
    assert_eq!(found["catalogue"], "to be rebuilt");
}

#[test]
fn a_directory_that_is_none_is_refused_and_not_made() {
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
fn what_a_killed_server_leaves_is_nothing_wrong() {
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
fn a_server_says_at_its_start_that_frames_cannot_be_read() {
    let dir = served();
    let last = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let end = bytes.len();
    // In the metadata of the large document, which was written last.
    bytes[end - 20] ^= 1;
    fs::write(&last, bytes).unwrap();
    fs::remove_file(last.with_extension("sum")).unwrap();
    let server = Launch::new(BINARY, dir.path()).start();
    server.wait_for_log("run prefd verify to list the affected documents");
    let request = Request::of("GET", "large", &token::of("carol", "large"));
    assert_eq!(server.connect().request(&request).status, 501);
}
