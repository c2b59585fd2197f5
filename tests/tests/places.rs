//! Who must give up its place where all are taken and another client comes.

mod common;

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use common::{fresh, get, put};
use prefd_tests::http::{Client, Request};
use prefd_tests::server::Server;
use prefd_tests::token;

/// A client that goes on sends something this often.
const PACE: Duration = Duration::from_millis(20);

/// No place is waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with two places, so that the second one who comes takes the last.
fn with_two_places() -> (Server, tempfile::TempDir) {
    fresh(&["--max-connections", "2", "--head-timeout", "10m"])
}

fn token() -> String {
    token::of("alice", "xyz")
}

/// A connection on which so many requests were granted.
fn granted(server: &Server, requests: usize) -> Client {
    let mut connection = server.connect();
    for _ in 0..requests {
        put(&mut connection, "xyz", &token(), "{\"a\":1}");
    }
    connection
}

/// Comes to a server whose places are taken, and is served.
fn comes(server: &Server) -> Client {
    let mut connection = server.connect();
    assert_eq!(get(&mut connection, "xyz", &token()), "{\"a\":1}");
    connection
}

fn is_closed(connection: &mut Client) -> bool {
    match connection.read_to_end() {
        Ok(rest) => rest.is_empty(),
        // What it sent meanwhile was answered by the kernel.
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn who_sends_no_head_goes_before_who_was_served() {
    let (server, _dir) = with_two_places();
    for sent in ["", "GET / HTTP/1.1\r\nHost: x\r\n"] {
        let mut regular = granted(&server, 2);
        let mut stranger = server.connect();
        stranger.send(sent.as_bytes()).unwrap();
        let _newcomer = comes(&server);
        assert!(is_closed(&mut stranger), "{sent}");
        assert_eq!(get(&mut regular, "xyz", &token()), "{\"a\":1}", "{sent}");
    }
}

#[test]
fn who_was_refused_goes_before_who_was_served() {
    let (server, _dir) = with_two_places();
    let mut regular = granted(&server, 2);
    let mut refused = granted(&server, 1);
    let request = Request::of("GET", "xyz", "nonsense");
    assert_eq!(refused.request(&request).status, 401);
    let _newcomer = comes(&server);
    assert!(is_closed(&mut refused));
    assert_eq!(get(&mut regular, "xyz", &token()), "{\"a\":1}");
}

#[test]
fn who_asks_for_what_takes_no_token_goes_before_who_was_served() {
    let (server, _dir) = with_two_places();
    for page in ["/livez", "/readyz", "/openapi.json"] {
        let mut regular = granted(&server, 2);
        let mut asking = server.connect();
        for _ in 0..3 {
            assert_eq!(asking.request(&Request::new("GET", page)).status, 200);
        }
        let _newcomer = comes(&server);
        assert!(is_closed(&mut asking), "{page}");
        assert_eq!(get(&mut regular, "xyz", &token()), "{\"a\":1}", "{page}");
    }
}

#[test]
fn whose_refused_upload_is_still_read_goes_before_who_was_served() {
    let (server, _dir) = with_two_places();
    let mut regular = granted(&server, 2);
    let mut lingering = server.connect();
    let upload = Request::of("PUT", "xyz", "nonsense").header("Content-Length", "1000");
    lingering.send(&upload.head()).unwrap();
    assert_eq!(lingering.read_response(false).unwrap().status, 401);
    let _newcomer = comes(&server);
    assert!(is_closed(&mut lingering));
    assert_eq!(get(&mut regular, "xyz", &token()), "{\"a\":1}");
}

#[test]
fn who_has_not_come_to_an_end_goes_before_who_asked_again() {
    let (server, _dir) = with_two_places();
    let mut regular = granted(&server, 2);
    let mut slow = server.connect();
    let upload = Request::of("PUT", "xyz", &token()).header("Content-Length", "1000");
    slow.send(&upload.head()).unwrap();
    slow.send(b"{").unwrap();
    let _newcomer = comes(&server);
    assert!(is_closed(&mut slow));
    assert_eq!(get(&mut regular, "xyz", &token()), "{\"a\":1}");
}

#[test]
fn of_equals_who_has_waited_longest_goes() {
    let (server, _dir) = with_two_places();
    let mut first = granted(&server, 2);
    let mut second = granted(&server, 2);
    let _newcomer = comes(&server);
    assert!(is_closed(&mut first));
    assert_eq!(get(&mut second, "xyz", &token()), "{\"a\":1}");
    server.wait_for_log("connection limit reached");
}

#[test]
fn who_brings_its_body_is_not_closed_and_who_drips_is() {
    let (server, _dir) = with_two_places();
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
    let mut bringing = upload();
    let mut sent = 6;
    // A third one comes, and until it is served, one drips and the other goes on.
    let mut third = server.connect();
    third
        .send(&Request::of("GET", "xyz", &token()).bytes())
        .unwrap();
    let piece = vec![b'x'; 20_000];
    let began = Instant::now();
    while !third.is_answered_within(PACE) {
        assert!(began.elapsed() < PATIENCE, "it is not served");
        let _ = dripping.send(b"x");
        if sent + piece.len() + 2 < length {
            bringing.send(&piece).unwrap();
            sent += piece.len();
        }
    }
    assert_eq!(third.read_response(false).unwrap().status, 200);
    bringing.send(&vec![b'x'; length - sent - 2]).unwrap();
    bringing.send(b"\"}").unwrap();
    assert_eq!(bringing.read_response(false).unwrap().status, 204);
    assert!(is_closed(&mut dripping));
}
