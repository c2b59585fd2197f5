//! Helper functions for the tests over HTTP.
#![allow(dead_code, reason = "each test file uses only some of these functions")]

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::server::{Launch, Server};
use serde_json::{Value, json};

/// How long a test waits for an expected state before it fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two checks of an expected state.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_prefd-under-test");

/// Starts a server on a new data directory.
pub(crate) fn fresh(arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory is created");
    let server = Launch::new(BINARY, dir.path()).with(arguments).start();
    (server, dir)
}

pub(crate) fn target(client: &str) -> String {
    format!("/user/2025-1/preferences/{client}")
}

/// Stores a document, expects 204, and returns its ETag.
pub(crate) fn put(connection: &mut Client, client: &str, token: &str, body: &str) -> String {
    let response = connection.request(&Request::of("PUT", client, token).body(body));
    assert_eq!(response.status, 204, "{response:?}");
    response
        .header("etag")
        .expect("the response to a PUT has an ETag")
        .to_owned()
}

/// Reads a document, expects 200, and returns the body.
pub(crate) fn get(connection: &mut Client, client: &str, token: &str) -> String {
    let response = connection.request(&Request::of("GET", client, token));
    assert_eq!(response.status, 200, "{response:?}");
    response.text().to_owned()
}

/// A namespace with a document that refused requests must leave unchanged.
pub(crate) struct Kept<'a> {
    pub(crate) server: &'a Server,
    pub(crate) client: &'a str,
    pub(crate) token: &'a str,
    document: String,
}

impl<'a> Kept<'a> {
    pub(crate) fn new(server: &'a Server, client: &'a str, token: &'a str) -> Self {
        let document = format!("{{\"kept\":\"{client}\"}}");
        put(&mut server.connect(), client, token, &document);
        Self {
            server,
            client,
            token,
            document,
        }
    }

    /// Sends bytes on a new connection. Expects the given error, and the document to be
    /// unchanged.
    pub(crate) fn refuses_bytes(
        &self,
        bytes: &[u8],
        expected: &ExpectedError,
        context: &str,
    ) -> Response {
        let mut connection = self.server.connect();
        // The server may refuse the request before all bytes are sent.
        let _ = connection.send(bytes);
        let response = connection
            .read_response(false)
            .expect("the server sends a response");
        expected.check(&response, context);
        self.check(context);
        response
    }

    /// Sends a request, and expects the given error and an unchanged document.
    pub(crate) fn refuses(
        &self,
        request: &Request,
        expected: &ExpectedError,
        context: &str,
    ) -> Response {
        self.refuses_bytes(&request.bytes(), expected, context)
    }

    /// Sends a PUT with the given body, and expects the given error and an unchanged document.
    pub(crate) fn refuses_body(
        &self,
        body: &[u8],
        expected: &ExpectedError,
        context: &str,
    ) -> Response {
        self.refuses(
            &Request::of("PUT", self.client, self.token).body(body),
            expected,
            context,
        )
    }

    /// Expects the document to be unchanged.
    pub(crate) fn check(&self, context: &str) {
        let found = get(&mut self.server.connect(), self.client, self.token);
        assert_eq!(found, self.document, "{context}");
    }

    /// Sends a PUT, expects 204, and expects a GET to return `kept`. Then restores the
    /// original document.
    pub(crate) fn accepts_body(&self, body: &[u8], kept: &[u8], context: &str) {
        let mut connection = self.server.connect();
        let request = Request::of("PUT", self.client, self.token).body(body);
        let response = connection.request(&request);
        assert_eq!(
            response.status,
            204,
            "{context}: {}",
            String::from_utf8_lossy(&response.body)
        );
        let found = connection.request(&Request::of("GET", self.client, self.token));
        assert!(
            found.body == kept,
            "{context}: expected GET to return the stored document"
        );
        put(&mut connection, self.client, self.token, &self.document);
    }
}

/// Waits until the server has opened its catalogue in the background. A test calls this before it
/// renames, removes or copies the data directory, because sled would create a missing directory
/// again. The server must have been started with `--admin-listen 127.0.0.1:0`.
pub(crate) fn wait_for_catalogue(server: &Server) {
    let export = Request::to("localhost", "GET", "/users/alice/documents");
    let mut connection = server.connect_admin();
    let request = export.header("Connection", "close").bytes();
    connection.send(&request).unwrap();
    let response = connection.read_until_closed();
    assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Reads the value of a metric without labels. The server must have been started with
/// `--admin-listen 127.0.0.1:0`.
pub(crate) fn metric(server: &Server, name: &str) -> u64 {
    let request = Request::to("localhost", "GET", "/metrics");
    let response = server.connect_admin().request(&request);
    let lines = response.text().lines();
    let value = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = { value }.next().expect("the server has this metric");
    value.parse().expect("the value is an integer")
}

/// Damages the document that was stored last, by changing the last byte of the segment.
/// The store must be closed and have one segment.
pub(crate) fn damage_last_document(data_dir: &Path) {
    let segment = std::fs::read_dir(data_dir.join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "seg"))
        .unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&segment, bytes).unwrap();
}

/// For [`Launch::after_shell`]: simulates a full disk. Writes fail once a file is 64 KiB
/// long.
pub(crate) const FULL_DISK: &str = "ulimit -f 128";

/// Sends a GET with the given token, and returns the status.
pub(crate) fn status(server: &Server, token: &str) -> u16 {
    server
        .connect()
        .request(&Request::of("GET", "xyz", token))
        .status
}

/// Sends a GET with the given token, and expects the error `invalid-token`.
pub(crate) fn refused(server: &Server, token: &str, context: &str) -> Response {
    let response = server.connect().request(&Request::of("GET", "xyz", token));
    let expected = ExpectedError::code("invalid-token").source(json!({"header": "Authorization"}));
    expected.check(&response, context);
    response
}

/// Sends a GET with the given token, and expects the error `invalid-token` with the given
/// detail.
pub(crate) fn refused_because(server: &Server, token: &str, detail: &str, context: &str) {
    let response = refused(server, token, context);
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["errors"][0]["detail"], detail, "{context}");
}

/// Calls `holds` until it returns true, and fails after [`PATIENCE`]. It pauses between
/// calls, so that the process under test gets the processor.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Repeats a GET with the given token until the response has the expected status.
pub(crate) fn wait_for_status(server: &Server, token: &str, expected: u16) {
    let what = format!("a response with status {expected}");
    wait_until(&what, || status(server, token) == expected);
}

/// Locks out the other tests of this binary that measure times or memory, until the
/// guard is dropped.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
