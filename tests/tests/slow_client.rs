//! Clients that take their answer slowly, over a pipe that holds less than it: all of
//! it arrives, however the connection ends.

use std::path::Path;

use prefd::fuzzing::{KeyFiles, Server};
use prefd_engine::{Config, Engine, Limits};
use prefd_tests::api_error::Expected;
use prefd_tests::http::{Request, Response};
use prefd_tests::token;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the pipe holds.
const PIPE_BYTES: usize = 64;

/// A server on an empty store.
fn serving(dir: &Path) -> Server {
    let engine = Engine::open(Config::new(dir)).unwrap();
    let secret = token::secret_file();
    let keys = KeyFiles {
        secret: Some(&secret),
        ..KeyFiles::default()
    };
    Server::new(engine, &keys, Limits::DEFAULT.max_body_bytes).unwrap()
}

/// All that is answered to a client that sends this and then ends its side.
async fn answer(server: &Server, request: &[u8]) -> Vec<u8> {
    let (client, end) = tokio::io::duplex(PIPE_BYTES);
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
    tokio::join!(receive, send, server.carry(end)).0
}

/// Found by the fuzzer of connections: what was still to be written when it was known
/// that nothing more would be read was thrown away.
#[test]
fn a_refusal_arrives_whole_although_the_body_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let server = serving(dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let request = Request::new("PUT", "/user/2025-1/preferences/xyz").body([b' '; 10 * PIPE_BYTES]);
    let bytes = runtime.block_on(answer(&server, &request.bytes()));
    let response = Response::read(&mut &bytes[..], false).unwrap();
    Expected::code("missing-token").check(&response, "a slow client");
}
