//! SIGHUP, and notifications to the service manager.

mod common;

use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{BINARY, get, put, refused, status, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::json;

/// The flag of open(2) on Linux.
const O_NONBLOCK: i32 = 0o4000;

/// Starts a server with a secret file, and returns the path of this file.
fn start_with_secret_file() -> (Server, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, token::SECRET).unwrap();
    let server = Launch::new(BINARY, &folder.path().join("data"))
        .without_key()
        .with(&["--jwt-hs256-secret-file", secret.to_str().unwrap()])
        .start();
    (server, secret, folder)
}

#[test]
fn sighup_reloads_keys_and_keeps_the_old_key_after_an_error() {
    let (server, secret, _folder) = start_with_secret_file();
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
    let key = jsonwebtoken::EncodingKey::from_secret(other.as_bytes()).unwrap();
    let claims = token::claims("alice", "xyz");
    let header = json!({"alg": "HS256"});
    let new = token::signed(&header, &claims, jsonwebtoken::Algorithm::HS256, &key);
    assert_eq!(status(&server, &new), 200);
}

/// Regression test. The reload ran on the task that accepts connections and waits for signals. A
/// FIFO to which nobody writes simulates a file that cannot be read in time, for example on a
/// network file system that does not respond.
#[test]
fn reload_of_a_file_that_does_not_respond_stops_neither_requests_nor_sigterm() {
    let (server, secret, _folder) = start_with_secret_file();
    std::fs::remove_file(&secret).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&secret).status();
    assert!(made.unwrap().success());
    server.hang_up();
    let writer = wait_until_opened(&secret);
    let token = token::of("alice", "xyz");
    assert_eq!(get(&mut server.connect(), "xyz", &token), "{}");
    server.terminate();
    assert!(server.wait().success());
    drop(writer);
}

/// Waits until another process opens a FIFO for reading, and opens it for writing. As long as the
/// result exists, the other process waits for data.
fn wait_until_opened(fifo: &Path) -> std::fs::File {
    let mut opened = None;
    wait_until("the server opens the file", || {
        // Without a reader, this call fails at once (fifo(7)).
        opened = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(fifo)
            .ok();
        opened.is_some()
    });
    opened.unwrap()
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
fn write_past_the_limit_on_file_sizes_gets_507_and_no_signal() {
    let folder = tempfile::tempdir().unwrap();
    // 12 MiB: more than the reserve, and less than the document below.
    let server = Launch::new(BINARY, folder.path())
        .after_shell("ulimit -f 24576")
        .start();
    let token = token::of("alice", "xyz");
    put(&mut server.connect(), "xyz", &token, "{\"kept\":1}");
    let value = "z".repeat(7 << 20);
    let body = format!("{{\"a\":\"{value}\",\"b\":\"{value}\"}}");
    let request = Request::of("PUT", "xyz", &token).body(body);
    let response = server.connect().request(&request);
    ExpectedError::code("insufficient-storage").check(&response, "past the limit");
    let mut connection = server.connect();
    assert_eq!(get(&mut connection, "xyz", &token), "{\"kept\":1}");
    put(&mut connection, "xyz", &token, "{\"kept\":2}");
    assert!(server.stop().success());
}
