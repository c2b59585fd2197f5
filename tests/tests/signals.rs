//! SIGHUP, notifications to the service manager, and the log.

mod common;

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use common::{BINARY, refused, status};
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token;
use serde_json::{Value, json};

#[test]
fn sighup_reloads_keys_and_keeps_the_old_key_after_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, token::SECRET).unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .without_key()
        .with(&["--jwt-hs256-secret-file", secret.to_str().unwrap()])
        .start();
    let token = token::of("alice", "xyz");
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token);
    assert_eq!(connection.request(&request).status, 200);
    std::fs::write(&secret, "short").unwrap();
    server.hang_up();
    server.wait_for_log("what=\"keys\" error=");
    assert_eq!(
        connection.request(&request).status,
        200,
        "expected the old key to stay valid after a failed reload"
    );
    let other = "another secret of 32 bytes or more";
    std::fs::write(&secret, other).unwrap();
    server.hang_up();
    server.wait_for_log("reload completed what=\"keys\"");
    assert_eq!(
        connection.request(&request).status,
        401,
        "expected the connection not to accept a withdrawn key"
    );
    refused(&server, &token, "a withdrawn key");
    let key = jsonwebtoken::EncodingKey::from_secret(other.as_bytes());
    let claims = token::claims("alice", "xyz");
    let header = json!({"alg": "HS256"});
    let new = token::signed(&header, &claims, jsonwebtoken::Algorithm::HS256, &key);
    assert_eq!(status(&server, &new), 200);
}

#[test]
fn sighup_reloads_the_log_filter() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prefd.toml");
    std::fs::write(&config, "log = \"warn\"").unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with(&["--config", config.to_str().unwrap()])
        .start();
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    std::fs::write(&config, "log = \"info\"\nmax-keys = 3").unwrap();
    server.hang_up();
    server.wait_for_log("some changed settings take effect only after a restart");
    assert!(!server.has_logged("status=200"));
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    server.wait_for_log("status=200");
    std::fs::write(&config, "log = \"=\"").unwrap();
    server.hang_up();
    server.wait_for_log("what=\"log\" error=");
    assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
    server.wait_for_log_times("status=200", 2);
}

#[test]
fn service_manager_receives_state_and_watchdog_notifications() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .with_variable("NOTIFY_SOCKET", path.to_str().unwrap())
        .with_variable("WATCHDOG_USEC", "60000")
        .start();
    let mut notifications = Vec::new();
    let mut wait_for = |state: &str| {
        loop {
            let mut buffer = [0; 1024];
            let bytes = socket
                .recv(&mut buffer)
                .expect("the server sends a notification");
            let notification = String::from_utf8_lossy(&buffer[..bytes]).into_owned();
            let has_state = notification.lines().any(|line| line == state);
            notifications.push(notification);
            if has_state {
                return;
            }
        }
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    wait_for("WATCHDOG=1");
    server.hang_up();
    wait_for("RELOADING=1");
    wait_for("READY=1");
    server.terminate();
    wait_for("STOPPING=1");
    assert!(
        notifications
            .iter()
            .any(|notification| notification.contains("MONOTONIC_USEC="))
    );
    assert_eq!(server.wait().code(), Some(0));
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
