//! The server log on standard error.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;

use common::BINARY;
use prefd_tests::http::{Request, Response};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::{Value, json};

/// Sends GETs over one connection, and returns the ids of the responses.
fn get_repeatedly(server: &Server, requests: usize) -> HashSet<String> {
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token::of("alice", "xyz"));
    let id = |response: Response| response.header("request-id").unwrap().to_owned();
    (0..requests)
        .map(|_| id(connection.request(&request)))
        .collect()
}

/// Parses the lines of a log in JSON.
fn parse(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    log.lines().map(parse).collect()
}

#[test]
fn json_log_lines_are_objects_and_contain_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path())
        .with(&["--log-format", "json", "--log", "debug"])
        .start();
    let token = token::of("alice-in-the-log", "client-in-the-log");
    let body = "{\"key-in-the-log\":\"value-in-the-log\"}";
    let client = "client-in-the-log";
    let mut connection = server.connect();
    let put = connection.request(&Request::of("PUT", client, &token).body(body));
    assert_eq!(put.status, 204);
    assert_eq!(
        connection
            .request(&Request::of("GET", client, &token))
            .status,
        200
    );
    let bad = connection.request(&Request::of("GET", client, &format!("{token}x")));
    assert_eq!(bad.status, 401);
    let broken =
        connection.request(&Request::of("PUT", client, &token).body("{\"value-in-the-log"));
    assert_eq!(broken.status, 400);
    let id = broken.header("request-id").unwrap();
    server.wait_for_log(id);
    let logged = server.logged();
    for line in logged.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    let line = logged.lines().find(|line| line.contains(id)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        (&line["status"], &line["code"], &line["method"]),
        (&json!(400), &json!("invalid-json"), &json!("PUT"))
    );
    for secret in ["alice-in", "client-in", "key-in", "value-in", &token[..40]] {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
    // The server logs one line per request.
    assert_eq!(logged.matches("\"micros\"").count(), 4);
}

#[test]
fn request_is_logged_although_no_other_line_follows() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path()).start();
    for _ in 0..3 {
        let ids = get_repeatedly(&server, 1);
        server.wait_for_log(ids.iter().next().unwrap());
    }
}

#[test]
fn each_request_before_sigterm_is_logged_once() {
    const REQUESTS: usize = 2000;
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, folder.path())
        .with(&["--log-format", "json", "--workers", "2"])
        .start();
    let ids: Vec<HashSet<String>> = std::thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || get_repeatedly(server, REQUESTS)))
            .collect();
        clients.into_iter().map(|c| c.join().unwrap()).collect()
    });
    let log = server.stop_with_log().err;
    let mut logged = HashSet::new();
    for line in parse(&log) {
        if let Some(id) = line["id"].as_str() {
            assert!(logged.insert(id.to_owned()), "{id} was logged twice");
        }
    }
    let sent: HashSet<String> = ids.into_iter().flatten().collect();
    assert_eq!(sent.len(), 4 * REQUESTS);
    assert!(logged == sent, "{} of {} ids", logged.len(), sent.len());
}

#[test]
fn unread_standard_error_does_not_delay_requests_and_lost_lines_are_counted() {
    // The lines of so many requests are longer than the server's buffer and the pipe together.
    const REQUESTS: u64 = 12_000;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("log");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let path = pipe.clone();
    // Opening a pipe waits until it is also opened for writing.
    let opened = std::thread::spawn(move || File::open(path).unwrap());
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&["--log-format", "json", "--workers", "1"])
        .after_shell(&format!("exec 2>'{}'", pipe.display()))
        .start();
    let mut reader = opened.join().unwrap();
    get_repeatedly(&server, usize::try_from(REQUESTS).unwrap());
    server.terminate();
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert!(server.wait().success());
    let lines = parse(&log);
    let logged = lines.iter().filter(|line| line["id"].is_string()).count() as u64;
    let lost: u64 = lines
        .iter()
        .filter_map(|line| line["lost_lines"].as_u64())
        .sum();
    assert!(lost > 0, "no line was lost");
    // The line that reports the shutdown may be lost too.
    let all = logged + lost;
    assert!(
        (REQUESTS..=REQUESTS + 1).contains(&all),
        "{logged} logged, {lost} lost"
    );
}
