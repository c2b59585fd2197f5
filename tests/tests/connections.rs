//! Connections over a pipe in memory. The test controls how many bytes arrive at once and how
//! many bytes the pipe holds, and so reproduces behaviour that depends on timing with sockets.

use std::path::Path;

use prefd::fuzzing::{InMemoryServer, KeyFiles};
use prefd_engine::{Config, Engine, Limits};
use prefd_tests::api_error::{ExpectedError, check_any};
use prefd_tests::http::{Request, Response};
use prefd_tests::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Pipe capacity that is smaller than a response, so that the server has to wait for the client.
const SMALL_PIPE_BYTES: usize = 64;
/// Pipe capacity that is larger than every request and response of these tests.
const LARGE_PIPE_BYTES: usize = 64 * 1024;

/// A server on an empty store. The store writes documents of more than 16 bytes to blobs.
fn new_server(dir: &Path) -> InMemoryServer {
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

/// Sends a request over a pipe with the given capacity, ends the client's side, and returns the
/// response.
fn response_to(request: &[u8], pipe_bytes: usize) -> Response {
    let dir = tempfile::tempdir().unwrap();
    let server = new_server(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let bytes = runtime.block_on(exchange(&server, request, pipe_bytes));
    Response::read(&mut &bytes[..], false).unwrap()
}

/// Sends the request and returns everything that the server sends.
async fn exchange(server: &InMemoryServer, request: &[u8], pipe_bytes: usize) -> Vec<u8> {
    let (client, end) = tokio::io::duplex(pipe_bytes);
    let (mut from, mut to) = tokio::io::split(client);
    let send = async {
        to.write_all(request).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        from.read_to_end(&mut received).await.unwrap();
        received
    };
    tokio::join!(receive, send, server.serve_connection(end)).0
}

/// A bug that the connection fuzzer found: when the server stopped reading a request body, it
/// discarded the part of the response that it had not yet written.
#[test]
fn error_response_is_complete_if_the_body_is_not_read() {
    let request =
        Request::new("PUT", "/user/2025-1/preferences/xyz").body([b' '; 10 * SMALL_PIPE_BYTES]);
    let response = response_to(&request.bytes(), SMALL_PIPE_BYTES);
    ExpectedError::code("missing-token").check(&response, "a client with a small pipe");
}

/// A bug that the connection fuzzer found: for a document in a blob, the response reported an
/// invalid chunk although the JSON before that chunk was already invalid.
#[test]
fn invalid_json_before_an_invalid_chunk_is_reported_first() {
    let request = Request::of("PUT", "xyz", &token::of("alice", "xyz"))
        .header("Transfer-Encoding", "chunked");
    for (body, code) in [
        ("{\"a\": [1, 2, 3, 4, 5], \"b\" x", "invalid-json"),
        ("{\"a\": [1, 2, 3, 4, 5], \"b\": 2", "invalid-request"),
    ] {
        let framed = format!("{:x}\r\n{body}\r\nnot a length\r\n", body.len());
        let bytes = [request.head(), framed.into_bytes()].concat();
        let response = response_to(&bytes, LARGE_PIPE_BYTES);
        assert_eq!(check_any(&response, body), code);
    }
}

/// A bug that a review found: hyper checked the length of an incomplete head only, so a head of 100
/// KB that arrived at once was accepted.
#[test]
fn head_over_the_limit_is_431_however_it_arrives() {
    const MAX_HEAD_BYTES: usize = 80 * 1024;
    let first = Request::new("GET", "/livez").bytes();
    for (length, status) in [
        (MAX_HEAD_BYTES, 200),
        (MAX_HEAD_BYTES + 1, 431),
        (100_000, 431),
        (10 * MAX_HEAD_BYTES, 431),
    ] {
        let empty = Request::new("GET", "/livez").header("X", "").head().len();
        let padding = "x".repeat(length - empty);
        let head = Request::new("GET", "/livez").header("X", &padding).head();
        assert_eq!(head.len(), length);
        for piece_bytes in [length, 60_000, 8192, 1000] {
            for (name, sent) in [
                ("alone", head.clone()),
                ("after a request", [first.clone(), head.clone()].concat()),
                ("before a request", [head.clone(), first.clone()].concat()),
            ] {
                let statuses = statuses_in_pieces(&sent, piece_bytes);
                let expected = match (name, status) {
                    ("alone", status) => vec![status],
                    ("before a request", 431) => vec![431],
                    (_, status) => vec![200, status],
                };
                assert_eq!(statuses, expected, "{length} {name}, {piece_bytes}");
            }
        }
    }
}

/// Sends the bytes in pieces, and waits until the server has received each piece. Returns the
/// statuses of all responses.
fn statuses_in_pieces(bytes: &[u8], piece_bytes: usize) -> Vec<u16> {
    let dir = tempfile::tempdir().unwrap();
    let server = new_server(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let received = runtime.block_on(async {
        // The pipe holds one piece, so that the server receives the pieces one after the other.
        let (client, end) = tokio::io::duplex(piece_bytes);
        let (mut from, mut to) = tokio::io::split(client);
        let send = async {
            for piece in bytes.chunks(piece_bytes) {
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
            let _ = to.shutdown().await;
        };
        let receive = async {
            let mut received = Vec::new();
            from.read_to_end(&mut received).await.unwrap();
            received
        };
        tokio::join!(receive, send, server.serve_connection(end)).0
    });
    let mut rest = &received[..];
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        statuses.push(Response::read(&mut rest, false).unwrap().status);
    }
    statuses
}
