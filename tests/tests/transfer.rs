//! `prefd export`, `import` and `erase`, online with a running server, and offline with a data
//! directory.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{BINARY, get, put, wait_until};
use prefd_tests::http::Request;
use prefd_tests::server::{CommandOutput, Launch, Server, prefd};
use prefd_tests::token;
use serde_json::Value;

const ADMIN: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs `prefd` on a store.
fn run_on(store: &Store<'_>, arguments: &[&str]) -> CommandOutput {
    let (flag, value) = match store {
        Store::Running(server) => ("--admin", format!("http://{}", server.admin_address())),
        Store::Closed(dir) => ("--data-dir", text(dir).to_owned()),
    };
    prefd(BINARY, &[arguments, &[flag, &value]].concat())
}

/// A store that a command uses.
enum Store<'a> {
    /// Online, through the admin listener.
    Running(&'a Server),
    /// Offline, in its data directory.
    Closed(&'a Path),
}

/// Expects exit code 0, and returns the standard output.
fn expect_success(ended: &CommandOutput) -> &str {
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    &ended.out
}

/// Returns documents with everything that a line must represent: large documents, line breaks,
/// escapes and non-ASCII characters.
fn documents() -> Vec<(&'static str, &'static str, String)> {
    let large = format!(
        "{{\"large\":\"{}\\\"\",\"list\":[1,\n2]}}",
        "z".repeat(400_000)
    );
    vec![
        (
            "alice",
            "xyz",
            "{\"a\":1.50,\"b\":\"\\u0041\\n\"}".to_owned(),
        ),
        ("alice", "lines", "{\"a\":[1,\n  2,\r\n  3]}".to_owned()),
        ("alice", "empty", "{}".to_owned()),
        ("bob", "xyz", large),
        ("zo\u{eb} \"q\"", "a/b", "{\"\u{1f600}\":null}".to_owned()),
    ]
}

/// Stores all [`documents`].
fn fill(server: &Server) {
    for (user, client, body) in documents() {
        put(
            &mut server.connect(),
            &encoded(client),
            &token::of(user, client),
            &body,
        );
    }
}

/// Percent-encodes the slash of a client id.
fn encoded(client: &str) -> String {
    client.replace('/', "%2F")
}

/// Expects all [`documents`] to be stored unchanged.
fn check_documents(server: &Server) {
    for (user, client, body) in documents() {
        let found = get(
            &mut server.connect(),
            &encoded(client),
            &token::of(user, client),
        );
        assert_eq!(found, body, "{user} {client}");
    }
}

#[test]
fn exported_documents_are_imported_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let third = folder.path().join("third");
    let server = Launch::new(BINARY, &first).with(&ADMIN).start();
    fill(&server);
    let lines = expect_success(&run_on(&Store::Running(&server), &["export"])).to_owned();
    assert_eq!(lines.lines().count(), 5);
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).expect("each line is JSON");
        assert!(
            line["modified_ms"].as_u64().unwrap() > 1_600_000_000_000,
            "{line}"
        );
    }
    // Online import.
    let file = folder.path().join("lines.jsonl");
    fs::write(&file, &lines).unwrap();
    let other = Launch::new(BINARY, &second).with(&ADMIN).start();
    let import = ["import", "--json", "--from", text(&file)];
    let summary = expect_success(&run_on(&Store::Running(&other), &import)).to_owned();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (summary["documents"].as_u64(), summary["kept"].as_u64()),
        (Some(5), Some(0))
    );
    check_documents(&other);
    // Offline export, and offline import into a new directory.
    assert_eq!(other.stop().code(), Some(0));
    let again = expect_success(&run_on(&Store::Closed(&second), &["export"])).to_owned();
    let without_times = |lines: &str| {
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["modified_ms"] = Value::Null;
            line.to_string()
        };
        lines.lines().map(line).collect::<Vec<_>>()
    };
    assert_eq!(without_times(&again), without_times(&lines));
    expect_success(&run_on(&Store::Closed(&third), &import));
    let server = Launch::new(BINARY, &third).start();
    check_documents(&server);
}

#[test]
fn export_of_one_user_contains_only_that_user() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    fill(&server);
    let file = folder.path().join("user.jsonl");
    for (user, count) in [("alice", 3), ("zo\u{eb} \"q\"", 1), ("nobody", 0)] {
        let _ = fs::remove_file(&file);
        let arguments = ["export", "--user", user, "--to", text(&file)];
        expect_success(&run_on(&Store::Running(&server), &arguments));
        let lines = fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().count(), count, "{user}");
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["user"], user);
        }
        // The command does not overwrite an existing file.
        let again = run_on(&Store::Running(&server), &arguments);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
    }
}

#[test]
fn import_stops_at_a_refused_line_and_keeps_earlier_lines() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let file = folder.path().join("lines.jsonl");
    let good = "{\"user\":\"u\",\"client\":\"first\",\"document\":{\"n\":1}}\n\n";
    let later = "\n{\"user\":\"u\",\"client\":\"later\",\"document\":{\"n\":1}}\n";
    let closed = folder.path().join("closed");
    for (bad, word) in [
        ("not JSON", "line 3"),
        ("{\"user\":\"u\",\"client\":\"c\"}", "document"),
        ("{\"user\":\"\",\"client\":\"c\",\"document\":{}}", "user"),
        (
            "{\"user\":\"u\",\"client\":\"c\",\"document\":[1]}",
            "not a JSON object",
        ),
        (
            "{\"user\":\"u\",\"client\":\"c\",\"document\":\"{\\\"a\\\":1\"}",
            "line 3",
        ),
        (
            "{\"user\":\"u\",\"client\":\"c\",\"document\":{\"a\":1,\"a\":2}}",
            "line 3",
        ),
    ] {
        fs::write(&file, format!("{good}{bad}{}", later.repeat(1000))).unwrap();
        for store in [Store::Running(&server), Store::Closed(&closed)] {
            let ended = run_on(&store, &["import", "--from", text(&file)]);
            assert_eq!(ended.status.code(), Some(1), "{bad}: {ended:?}");
            assert!(ended.err.contains(word), "{bad}: {}", ended.err);
        }
    }
    let closed = Launch::new(BINARY, &closed).start();
    for server in [&server, &closed] {
        let found = |client| get(&mut server.connect(), client, &token::of("u", client));
        assert_eq!(found("first"), "{\"n\":1}", "expected the first line");
        assert_eq!(found("later"), "{}", "expected no later line");
    }
}

#[test]
fn offline_import_uses_the_limits_of_the_config_file() {
    let folder = tempfile::tempdir().unwrap();
    let [lines, config, closed] =
        ["lines.jsonl", "prefd.toml", "closed"].map(|name| folder.path().join(name));
    let keys: Vec<String> = (0..12).map(|key| format!("\"{key}\":1")).collect();
    let document = format!("{{{}}}", keys.join(","));
    let line = format!("{{\"user\":\"u\",\"client\":\"c\",\"document\":{document}}}\n");
    fs::write(&lines, line).unwrap();
    fs::write(&config, "max-keys = 12\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let import = ["import", "--from", text(&lines)];
    let refused = run_on(&Store::Closed(&closed), &import);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let missing = folder.path().join("missing.toml");
    for (file, word) in [(&missing, "missing.toml"), (&lines, "is invalid")] {
        let with_file = [&import[..], &["--config", text(file)]].concat();
        let refused = run_on(&Store::Closed(&closed), &with_file);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(refused.err.contains(word), "{}", refused.err);
    }
    let with_config = [&import[..], &["--config", text(&config)]].concat();
    expect_success(&run_on(&Store::Closed(&closed), &with_config));
    let server = Launch::new(BINARY, &closed).start();
    let found = get(&mut server.connect(), "c", &token::of("u", "c"));
    assert_eq!(found, document);
}

#[test]
fn import_with_keep_existing_keeps_stored_documents() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let token = token::of("u", "c");
    put(&mut server.connect(), "c", &token, "{\"old\":1}");
    let file = folder.path().join("lines.jsonl");
    let line = |client: &str| {
        format!("{{\"user\":\"u\",\"client\":\"{client}\",\"document\":{{\"new\":1}}}}\n")
    };
    fs::write(&file, line("c") + &line("d")).unwrap();
    let arguments = ["import", "--json", "--keep-existing", "--from", text(&file)];
    let summary: Value = serde_json::from_str(expect_success(&run_on(
        &Store::Running(&server),
        &arguments,
    )))
    .unwrap();
    assert_eq!(
        (summary["documents"].as_u64(), summary["kept"].as_u64()),
        (Some(1), Some(1))
    );
    assert_eq!(get(&mut server.connect(), "c", &token), "{\"old\":1}");
    expect_success(&run_on(
        &Store::Running(&server),
        &["import", "--from", text(&file)],
    ));
    assert_eq!(get(&mut server.connect(), "c", &token), "{\"new\":1}");
}

/// Returns all files in a folder and its subfolders.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Finds a file in the folder that contains the given text.
fn find_in_files(folder: &Path, needle: &str) -> Option<PathBuf> {
    files(folder).into_iter().find(|path| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes
            .windows(needle.len())
            .any(|window| window == needle.as_bytes())
    })
}

#[test]
fn erase_leaves_no_byte_of_the_user_in_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let launch = Launch::new(BINARY, &data_dir).with(&ADMIN);
    let mut server = launch.start();
    let needles = [
        "NEEDLE-OF-THE-USER",
        "NEEDLE-OF-A-KEY",
        "NEEDLE-OF-A-VALUE",
        "NEEDLE-IN-A-BLOB",
    ];
    let [user, key, value, blob] = needles;
    for is_running in [true, false] {
        let large = format!("{{\"{key}\":\"{}{blob}\"}}", "b".repeat(400_000));
        for number in 0..20 {
            let client = format!("client-{}", number % 3);
            let body = format!("{{\"{key}\":\"{value}-{number}\"}}");
            put(
                &mut server.connect(),
                &client,
                &token::of(user, &client),
                &body,
            );
            put(
                &mut server.connect(),
                &client,
                &token::of("other", &client),
                "{\"kept\":1}",
            );
        }
        put(
            &mut server.connect(),
            "blob",
            &token::of(user, "blob"),
            &large,
        );
        for needle in needles {
            assert!(find_in_files(&data_dir, needle).is_some(), "{needle}");
        }
        let erase = ["erase", "--json", "--user", user];
        let summary = if is_running {
            expect_success(&run_on(&Store::Running(&server), &erase)).to_owned()
        } else {
            assert_eq!(server.stop().code(), Some(0));
            let summary = expect_success(&run_on(&Store::Closed(&data_dir), &erase)).to_owned();
            server = launch.start();
            summary
        };
        let summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(
            (&summary["complete"], summary["documents"].as_u64()),
            (&Value::Bool(true), Some(4))
        );
        for needle in needles {
            assert_eq!(find_in_files(&data_dir, needle), None, "{needle}");
        }
        for client in ["client-0", "client-1", "client-2"] {
            assert_eq!(
                get(&mut server.connect(), client, &token::of(user, client)),
                "{}"
            );
            let kept = get(&mut server.connect(), client, &token::of("other", client));
            assert_eq!(kept, "{\"kept\":1}");
        }
        if is_running {
            server.wait_for_log("method=\"DELETE\" route=\"/users/{user}\" status=200");
        }
        assert!(!server.has_logged(user));
    }
    assert!(!server.has_logged(user));
    assert_eq!(server.stop().code(), Some(0));
    assert!(
        prefd(BINARY, &["verify", "--data-dir", text(&data_dir)])
            .status
            .success()
    );
    for needle in needles {
        assert_eq!(find_in_files(&data_dir, needle), None, "{needle}");
    }
}

#[test]
fn erase_during_a_backup_is_incomplete_and_a_rerun_completes() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    // The document is larger than all socket buffers, so the backup does not end by itself.
    let value = format!("\"{}NEEDLE-IN-A-BLOB\"", "b".repeat(10_000_000));
    let body = format!("{{\"a\":{value},\"b\":{value},\"c\":{value}}}");
    put(&mut server.connect(), "c", &token::of("user", "c"), &body);
    // The client does not read the backup, so the snapshot stays open.
    let mut reader = server.connect_admin();
    reader
        .send(&Request::to("localhost", "GET", "/backup").bytes())
        .unwrap();
    let mut status = [0; 12];
    reader.read_body(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    let erase = ["erase", "--user", "user"];
    let refused = run_on(&Store::Running(&server), &erase);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let words = "that a running backup still needs";
    assert!(refused.err.contains(words), "{}", refused.err);
    drop(reader);
    wait_until("the snapshot to be released", || {
        let ended = run_on(&Store::Running(&server), &erase);
        ended.status.code() == Some(0)
    });
    assert_eq!(find_in_files(&data_dir, "NEEDLE-IN-A-BLOB"), None);
}

#[test]
fn invalid_user_is_refused_before_a_store_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    // Neither a data directory nor a running server exists.
    let missing = folder.path().join("data");
    let long = "u".repeat(256);
    for (user, reason) in [
        ("", "the name is empty"),
        (&long, "the name is longer than 255 bytes"),
        ("a\nb", "the name contains a control character"),
    ] {
        for command in ["erase", "export", "token"] {
            for place in [&["--data-dir", text(&missing)][..], &[]] {
                let client: &[&str] = if command == "token" {
                    &["--client", "c"]
                } else {
                    &[]
                };
                let arguments = [&[command, "--user", user], client, place].concat();
                let ended = prefd(BINARY, &arguments);
                assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
                assert!(ended.err.contains(reason), "{}", ended.err);
            }
        }
    }
}

#[test]
fn erase_of_an_unknown_user_says_that_nothing_was_erased() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Launch::new(BINARY, &data_dir).with(&ADMIN).start();
    fill(&server);
    let check = |store: &Store<'_>, user: &str, is_known: bool| {
        let ended = run_on(store, &["erase", "--user", user]);
        assert_eq!(ended.status.code(), Some(0), "{user}: {ended:?}");
        let says_so = ended.err.contains("nothing was erased") && ended.err.contains(user);
        assert_eq!(says_so, !is_known, "{user}: {ended:?}");
    };
    let running = Store::Running(&server);
    check(&running, "alcie", false);
    check(&running, "alice", true);
    check(&running, "alice", false);
    assert!(server.stop().success());
    let closed = Store::Closed(&data_dir);
    check(&closed, "alice", false);
    check(&closed, "bob", true);
    check(&closed, "bob", false);
}

#[test]
fn failed_export_prints_the_cause_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let launch = Launch::new(BINARY, &data_dir).with(&ADMIN);
    let server = launch.start();
    fill(&server);
    assert!(server.stop().success());
    // The catalogue cannot be opened, so the server cannot list the documents.
    fs::remove_dir_all(data_dir.join("catalogue")).unwrap();
    fs::write(data_dir.join("catalogue"), "").unwrap();
    let server = launch.start();
    let file = folder.path().join("export.jsonl");
    let ended = run_on(&Store::Running(&server), &["export", "--to", text(&file)]);
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let words = "the server could not complete the response: cannot read the documents: the \
                 catalogue is not available";
    assert!(ended.err.contains(words), "{}", ended.err);
    assert!(!file.exists());
    // A client that does not check the trailer receives no end of the body.
    let request = Request::to("localhost", "GET", "/documents")
        .header("TE", "trailers")
        .header("Connection", "close");
    let mut connection = server.connect_admin();
    connection.send(&request.bytes()).unwrap();
    let response = connection.read_until_closed();
    assert!(!response.ends_with(b"0\r\n\r\n"));
}

#[test]
fn online_import_names_an_input_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&ADMIN)
        .start();
    let closed = folder.path().join("closed");
    for store in [Store::Running(&server), Store::Closed(&closed)] {
        let ended = run_on(&store, &["import", "--from", text(folder.path())]);
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        let words = "Is a directory (os error 21)";
        assert!(ended.err.contains(words), "{}", ended.err);
    }
}
