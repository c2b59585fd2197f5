//! The connection limit: which connection the server sheds when all connection slots are in
//! use and a new client connects.

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::{fresh, get, put};
use prefd_tests::http::{Client, Request};
use prefd_tests::server::Server;
use prefd_tests::token;

/// Pause between two writes of an upload.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);

/// How long a new client waits for a slot before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server that allows two connections, so that a third one causes shedding.
fn start_with_two_slots() -> (Server, tempfile::TempDir) {
    fresh(&["--max-connections", "2", "--head-timeout", "10m"])
}

fn token() -> String {
    token::of("alice", "xyz")
}

/// Opens a connection, and sends `requests` requests that the server grants.
fn granted(server: &Server, requests: usize) -> Client {
    let mut connection = server.connect();
    for _ in 0..requests {
        put(&mut connection, "xyz", &token(), "{\"a\":1}");
    }
    connection
}

/// Connects to a server without a free slot, and expects a response.
fn connect_at_limit(server: &Server) -> Client {
    let mut connection = server.connect();
    assert_eq!(get(&mut connection, "xyz", &token()), "{\"a\":1}");
    connection
}

/// Waits until the server closes the connection. Returns false if it sent a response first.
fn wait_until_closed(connection: &mut Client) -> bool {
    match connection.read_to_end() {
        Ok(rest) => rest.is_empty(),
        // The kernel resets the connection if data arrives after the server closed it.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn connection_without_a_complete_head_is_shed_first() {
    let (server, _dir) = start_with_two_slots();
    for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut established = granted(&server, 2);
        let mut stranger = server.connect();
        stranger.send(sent.as_bytes()).unwrap();
        let _newcomer = connect_at_limit(&server);
        assert!(wait_until_closed(&mut stranger), "{sent}");
        assert_eq!(
            get(&mut established, "xyz", &token()),
            "{\"a\":1}",
            "{sent}"
        );
    }
}

#[test]
fn connection_with_a_refused_request_is_shed_first() {
    let (server, _dir) = start_with_two_slots();
    let mut established = granted(&server, 2);
    let mut refused = granted(&server, 1);
    let request = Request::of("GET", "xyz", "nonsense");
    assert_eq!(refused.request(&request).status, 401);
    let _newcomer = connect_at_limit(&server);
    assert!(wait_until_closed(&mut refused));
    assert_eq!(get(&mut established, "xyz", &token()), "{\"a\":1}");
}

#[test]
fn connection_with_only_public_requests_is_shed_first() {
    let (server, _dir) = start_with_two_slots();
    for page in ["/livez", "/readyz", "/openapi.json"] {
        let mut established = granted(&server, 2);
        let mut public_client = server.connect();
        for _ in 0..3 {
            assert_eq!(
                public_client.request(&Request::new("GET", page)).status,
                200
            );
        }
        let _newcomer = connect_at_limit(&server);
        assert!(wait_until_closed(&mut public_client), "{page}");
        assert_eq!(
            get(&mut established, "xyz", &token()),
            "{\"a\":1}",
            "{page}"
        );
    }
}

#[test]
fn connection_with_a_refused_upload_is_shed_first() {
    let (server, _dir) = start_with_two_slots();
    let mut established = granted(&server, 2);
    let mut lingering = server.connect();
    let upload = Request::of("PUT", "xyz", "nonsense").header("Content-Length", "1000");
    lingering.send(&upload.head()).unwrap();
    assert_eq!(lingering.read_response(false).unwrap().status, 401);
    let _newcomer = connect_at_limit(&server);
    assert!(wait_until_closed(&mut lingering));
    assert_eq!(get(&mut established, "xyz", &token()), "{\"a\":1}");
}

#[test]
fn unfinished_first_upload_is_shed_before_established_clients() {
    let (server, _dir) = start_with_two_slots();
    let mut established = granted(&server, 2);
    let mut slow = server.connect();
    let upload = Request::of("PUT", "xyz", &token()).header("Content-Length", "1000");
    slow.send(&upload.head()).unwrap();
    slow.send(b"{").unwrap();
    let _newcomer = connect_at_limit(&server);
    assert!(wait_until_closed(&mut slow));
    assert_eq!(get(&mut established, "xyz", &token()), "{\"a\":1}");
}

/// Regression test. While one silent connection waited, no other idle connection was shed. If idle
/// clients used all other slots, each new client had to wait for this one slot, which a flood of
/// silent connections took again and again.
#[test]
fn flood_of_silent_connections_gets_slots_of_idle_clients() {
    let slots = 16;
    let limit = slots.to_string();
    let (server, _dir) = fresh(&["--max-connections", &limit, "--head-timeout", "10m"]);
    let idle: Vec<Client> = (1..slots).map(|_| granted(&server, 2)).collect();
    let has_closed = || idle.iter().filter(|client| client.is_closed()).count();
    let mut flood = Vec::new();
    let began = Instant::now();
    while has_closed() < slots / 4 - 1 {
        assert!(
            began.elapsed() < PATIENCE,
            "expected the server to shed idle clients"
        );
        flood.push(server.connect());
        std::thread::sleep(WRITE_INTERVAL);
    }
    // The other idle clients keep their connections.
    assert!(has_closed() < slots - 1);
}

#[test]
fn longest_waiting_of_two_equal_connections_is_shed() {
    let (server, _dir) = start_with_two_slots();
    let mut first = granted(&server, 2);
    let mut second = granted(&server, 2);
    let _newcomer = connect_at_limit(&server);
    assert!(wait_until_closed(&mut first));
    assert_eq!(get(&mut second, "xyz", &token()), "{\"a\":1}");
    server.wait_for_log("connection limit reached");
}

#[test]
fn dripping_upload_is_shed_and_steady_upload_is_not() {
    let (server, _dir) = start_with_two_slots();
    granted(&server, 1);
    let length = 10_000_000;
    let upload = || {
        let mut connection = server.connect();
        let request = Request::of("PUT", "xyz", &token());
        let request = request.header("Content-Length", &length.to_string());
        connection.send(&request.head()).unwrap();
        connection.send(b"{\"a\":\"").unwrap();
        connection
    };
    let mut dripping = upload();
    let mut steady = upload();
    let mut sent = 6;
    // A third client connects. Until it gets a response, one upload sends single bytes, and
    // the other upload sends large pieces.
    let mut third = server.connect();
    third
        .send(&Request::of("GET", "xyz", &token()).bytes())
        .unwrap();
    let piece = vec![b'x'; 20_000];
    let began = Instant::now();
    while !third.wait_for_response(WRITE_INTERVAL) {
        assert!(
            began.elapsed() < PATIENCE,
            "expected a response to the third client"
        );
        let _ = dripping.send(b"x");
        if sent + piece.len() + 2 < length {
            steady.send(&piece).unwrap();
            sent += piece.len();
        }
    }
    assert_eq!(third.read_response(false).unwrap().status, 200);
    steady.send(&vec![b'x'; length - sent - 2]).unwrap();
    steady.send(b"\"}").unwrap();
    assert_eq!(steady.read_response(false).unwrap().status, 204);
    assert!(wait_until_closed(&mut dripping));
}
