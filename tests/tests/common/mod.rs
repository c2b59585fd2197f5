//! What the tests over HTTP begin with.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prefd_tests::api_error::Expected;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::server::{Launch, Server};
use serde_json::{Value, json};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions whether it has.
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_prefd-under-test");

/// A server on a directory of its own.
pub(crate) fn fresh(arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Launch::new(BINARY, dir.path()).with(arguments).start();
    (server, dir)
}

pub(crate) fn target(client: &str) -> String {
    format!("/user/2025-1/preferences/{client}")
}

/// A PUT that succeeds; its tag.
pub(crate) fn put(connection: &mut Client, client: &str, token: &str, body: &str) -> String {
    let response = connection.request(&Request::of("PUT", client, token).body(body));
    assert_eq!(response.status, 204, "{response:?}");
    response.header("etag").expect("a tag").to_owned()
}

/// A GET that succeeds.
pub(crate) fn get(connection: &mut Client, client: &str, token: &str) -> String {
    let response = connection.request(&Request::of("GET", client, token));
    assert_eq!(response.status, 200, "{response:?}");
    response.text().to_owned()
}

/// A namespace that holds a document, for requests that must not change it.
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

    /// Sends bytes on a connection of their own, and expects this error, and the
    /// document to be what it was.
    pub(crate) fn refuses_bytes(
        &self,
        bytes: &[u8],
        expected: &Expected,
        context: &str,
    ) -> Response {
        let mut connection = self.server.connect();
        // The server may refuse before all of it is sent.
        let _ = connection.send(bytes);
        let response = connection.read_response(false).expect("an answer");
        expected.check(&response, context);
        self.check(context);
        response
    }

    pub(crate) fn refuses(
        &self,
        request: &Request,
        expected: &Expected,
        context: &str,
    ) -> Response {
        self.refuses_bytes(&request.bytes(), expected, context)
    }

    /// Expects this error for a PUT of this body.
    pub(crate) fn refuses_body(&self, body: &[u8], expected: &Expected, context: &str) -> Response {
        self.refuses(
            &Request::of("PUT", self.client, self.token).body(body),
            expected,
            context,
        )
    }

    /// The document is what it was.
    pub(crate) fn check(&self, context: &str) {
        let found = get(&mut self.server.connect(), self.client, self.token);
        assert_eq!(found, self.document, "{context}");
    }

    /// A PUT that succeeds, and what is read after it; then the document is put back.
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
        assert!(found.body == kept, "{context}: it came back changed");
        put(&mut connection, self.client, self.token, &self.document);
    }
}

/// Changes the last byte of a closed store's log, which is one of the document that was put
/// last.
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

/// For [`Launch::after_shell`]: no file may grow beyond 64 KiB, which is a full disk for all
/// that a file sees.
pub(crate) const FULL_DISK: &str = "trap '' XFSZ; ulimit -f 128";

/// The status of a GET with this token.
pub(crate) fn status(server: &Server, token: &str) -> u16 {
    server
        .connect()
        .request(&Request::of("GET", "xyz", token))
        .status
}

/// Expects a GET with this token to be refused as invalid.
pub(crate) fn refused(server: &Server, token: &str, context: &str) -> Response {
    let response = server.connect().request(&Request::of("GET", "xyz", token));
    let expected = Expected::code("invalid-token").source(json!({"header": "Authorization"}));
    expected.check(&response, context);
    response
}

/// The same, with this detail.
pub(crate) fn refused_because(server: &Server, token: &str, detail: &str, context: &str) {
    let response = refused(server, token, context);
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["errors"][0]["detail"], detail, "{context}");
}

/// Asks again until this holds, with a pause that leaves the processor to whoever is
/// waited for.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Asks again until it is answered with this status.
pub(crate) fn wait_for_status(server: &Server, token: &str, expected: u16) {
    let what = format!("an answer with {expected}");
    wait_until(&what, || status(server, token) == expected);
}

/// Tests that measure take turns.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
