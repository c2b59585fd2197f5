//! Connections over a pipe in memory: what shows only where the test decides how much
//! arrives at once, and how much can be under way.

use std::path::Path;

use prefd::fuzzing::{InMemoryServer, KeyFiles};
use prefd_engine::{Config, Engine, Limits};
use prefd_tests::api_error::{Expected, check_any};
use prefd_tests::http::{Request, Response};
use prefd_tests::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Less than an answer.
const LITTLE: usize = 64;
/// More than anything here.
const PLENTY: usize = 64 * 1024;

/// A server on an empty store, in which nearly every document goes to a blob.
fn serving(dir: &Path) -> InMemoryServer {
    let mut config = Config::new(dir);
    config.inline_bytes = 16;
    let engine = Engine::open(config).unwrap();
    let secret = token::secret_file();
    let keys = KeyFiles {
        secret: Some(&secret),
        ..KeyFiles::default()
    };
    InMemoryServer::new(engine, &keys, Limits::DEFAULT.max_body_bytes).unwrap()
}

/// What is answered to a client that sends this, over a pipe of so many bytes, and then
/// ends its side.
fn answer(request: &[u8], pipe_bytes: usize) -> Response {
    let dir = tempfile::tempdir().unwrap();
    let server = serving(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let bytes = runtime.block_on(converse(&server, request, pipe_bytes));
    Response::read(&mut &bytes[..], false).unwrap()
}

async fn converse(server: &InMemoryServer, request: &[u8], pipe_bytes: usize) -> Vec<u8> {
    let (client, end) = tokio::io::duplex(pipe_bytes);
    let (mut from, mut to) = tokio::io::split(client);
    let send = async {
        to.write_all(request).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut answer = Vec::new();
        from.read_to_end(&mut answer).await.unwrap();
        answer
    };
    tokio::join!(receive, send, server.serve_connection(end)).0
}

/// Found by the fuzzer of connections: what was still to be written when it was known
/// that nothing more would be read was thrown away.
#[test]
fn a_refusal_arrives_whole_although_the_body_is_not_read() {
    let request = Request::new("PUT", "/user/2025-1/preferences/xyz").body([b' '; 10 * LITTLE]);
    let response = answer(&request.bytes(), LITTLE);
    Expected::code("missing-token").check(&response, "a slow client");
}

/// Found by the fuzzer of connections: of a document that goes to a blob, the framing
/// was told although the JSON before it was wrong.
#[test]
fn what_is_wrong_before_a_body_breaks_off_is_told_first() {
    let request = Request::of("PUT", "xyz", &token::of("alice", "xyz"))
        .header("Transfer-Encoding", "chunked");
    for (body, code) in [
        ("{\"a\": [1, 2, 3, 4, 5], \"b\" x", "invalid-json"),
        ("{\"a\": [1, 2, 3, 4, 5], \"b\": 2", "invalid-request"),
    ] {
        let framed = format!("{:x}\r\n{body}\r\nnot a length\r\n", body.len());
        let bytes = [request.head(), framed.into_bytes()].concat();
        let response = answer(&bytes, PLENTY);
        assert_eq!(check_any(&response, body), code);
    }
}
