//! Large documents, and clients that are slow, impatient or many.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Kept, fresh, get, put, wait_until};
use prefd_tests::api_error::Expected;
use prefd_tests::http::{Client, Request};
use prefd_tests::server::Server;
use prefd_tests::token;
use serde_json::json;

const MIB: usize = 1024 * 1024;
const VALUE_BYTES: usize = 10 * MIB;

/// The piece at `index` of the body of a document of `values` strings of 10 MiB each:
/// its bytes are told by its place, so that neither side need hold the body.
struct Large {
    values: usize,
}

impl Large {
    fn pieces(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..self.values).flat_map(|index| {
            let separator = if index == 0 { '{' } else { ',' };
            let key = format!("{separator}\"value-{index}\":\"").into_bytes();
            let chunk = 256 * 1024;
            let text = VALUE_BYTES - 2;
            let middle = (0..text.div_ceil(chunk)).map(move |part| {
                let len = chunk.min(text - part * chunk);
                let byte = b'a' + u8::try_from((index * 7 + part) % 26).unwrap();
                vec![byte; len]
            });
            let last = if index + 1 == self.values {
                "\"}"
            } else {
                "\""
            };
            std::iter::once(key)
                .chain(middle)
                .chain(std::iter::once(last.as_bytes().to_vec()))
        })
    }

    fn bytes(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }

    fn upload(&self, connection: &mut Client, client: &str, token: &str) -> u16 {
        let request =
            Request::of("PUT", client, token).header("Content-Length", &self.bytes().to_string());
        connection.send(&request.head()).unwrap();
        for piece in self.pieces() {
            connection.send(&piece).unwrap();
        }
        connection.read_response(false).unwrap().status
    }

    fn check_download(&self, connection: &mut Client, client: &str, token: &str) {
        connection
            .send(&Request::of("GET", client, token).bytes())
            .unwrap();
        let (response, length) = connection.read_head().unwrap();
        assert_eq!((response.status, length), (200, Some(self.bytes() as u64)));
        for piece in self.pieces() {
            let mut found = vec![0; piece.len()];
            connection.read_body(&mut found).unwrap();
            assert!(found == piece, "it came back changed");
        }
    }
}

#[test]
fn a_document_of_100_mib_goes_in_and_out_below_100_mib_of_memory() {
    let (server, _dir) = fresh(&[]);
    let large = Large { values: 10 };
    let token = token::of("alice", "xyz");
    let mut connection = server.connect();
    for _ in 0..2 {
        assert_eq!(large.upload(&mut connection, "xyz", &token), 204);
        large.check_download(&mut connection, "xyz", &token);
    }
    let peak = server.peak_rss_bytes();
    assert!(peak < 100 * MIB as u64, "{} MiB", peak / MIB as u64);
}

#[test]
fn sixteen_such_uploads_at_once_stay_below_256_mib() {
    let (server, dir) = fresh(&[]);
    let uploads: Vec<_> = (0..16)
        .map(|index| {
            let mut connection = server.connect();
            std::thread::spawn(move || {
                let client = format!("client-{index}");
                let token = token::of("alice", &client);
                Large { values: 10 }.upload(&mut connection, &client, &token)
            })
        })
        .collect();
    let statuses: Vec<u16> = uploads.into_iter().map(|u| u.join().unwrap()).collect();
    assert_eq!(statuses, [204; 16]);
    let peak = server.peak_rss_bytes();
    assert!(peak < 256 * MIB as u64, "{} MiB", peak / MIB as u64);
    Large { values: 10 }.check_download(
        &mut server.connect(),
        "client-7",
        &token::of("alice", "client-7"),
    );
    drop(server);
    drop(dir);
}

#[test]
fn a_body_is_asked_for_only_once_everything_before_it_is_in_order() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let foreign = token::of("alice", "other");
    let kept = Kept::new(&server, "xyz", &token);
    let expecting = |token: &str| Request::of("PUT", "xyz", token).header("Expect", "100-continue");
    for (request, code) in [
        (
            expecting("nonsense").header("Content-Length", "10"),
            "invalid-token",
        ),
        (
            expecting(&foreign).header("Content-Length", "10"),
            "insufficient-scope",
        ),
        (
            expecting(&token).header("Content-Length", "999999999"),
            "max-body-length-exceeded",
        ),
        (
            expecting(&token)
                .header("Content-Type", "text/plain")
                .header("Content-Length", "10"),
            "unsupported-media-type",
        ),
        (
            expecting(&token)
                .header("If-Match", "x")
                .header("Content-Length", "10"),
            "invalid-request",
        ),
    ] {
        let mut connection = server.connect();
        connection.send(&request.head()).unwrap();
        let response = connection.read_response(false).unwrap();
        assert!(response.text().contains(code), "{code}: {response:?}");
        assert_eq!(response.header("connection"), Some("close"), "{code}");
        kept.check(code);
    }
    let mut connection = server.connect();
    connection
        .send(&expecting(&token).header("Content-Length", "7").head())
        .unwrap();
    assert_eq!(connection.read_response(false).unwrap().status, 100);
    connection.send(b"{\"a\":1}").unwrap();
    assert_eq!(connection.read_response(false).unwrap().status, 204);
    assert_eq!(get(&mut connection, "xyz", &token), "{\"a\":1}");
}

/// A body that is refused in its first megabytes and goes on for 100 MiB.
fn refused_early(server: &Server, framing: (&str, &str)) -> (Client, Vec<u8>) {
    let token = token::of("alice", "xyz");
    let request = Request::of("PUT", "xyz", &token).header(framing.0, framing.1);
    let mut connection = server.connect();
    connection.send(&request.head()).unwrap();
    let piece = vec![b'x'; MIB];
    (connection, piece)
}

#[test]
fn a_refusal_in_mid_upload_reaches_a_client_that_writes_everything_first() {
    let (server, _dir) = fresh(&[]);
    let kept_token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &kept_token);
    let expected = Expected::code("max-value-length-exceeded")
        .source(json!({"pointer": "/a"}))
        .meta(json!({"limit": VALUE_BYTES, "actual": VALUE_BYTES + 1}));
    for _ in 0..5 {
        let (mut connection, piece) =
            refused_early(&server, ("Content-Length", &(100 * MIB).to_string()));
        connection.send(b"{\"a\":\"").unwrap();
        let mut sent = 6;
        while sent < 100 * MIB {
            let len = piece.len().min(100 * MIB - sent);
            connection
                .send(&piece[..len])
                .expect("all of it can be sent");
            sent += len;
        }
        let response = connection
            .read_response(false)
            .expect("the refusal arrives");
        expected.check(&response, "after everything");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(connection.read_to_end().unwrap(), b"");
        kept.check("after everything");
    }
}

#[test]
fn a_refusal_in_mid_upload_reaches_a_client_that_reads_while_it_writes() {
    let (server, _dir) = fresh(&[]);
    let (mut connection, piece) = refused_early(&server, ("Transfer-Encoding", "chunked"));
    connection.send(b"6\r\n{\"a\":\"\r\n").unwrap();
    for _ in 0..11 {
        connection
            .send(format!("{:x}\r\n", piece.len()).as_bytes())
            .unwrap();
        connection.send(&piece).unwrap();
        connection.send(b"\r\n").unwrap();
    }
    // The body has not ended, and the answer is there.
    let response = connection.read_response(false).unwrap();
    assert_eq!(response.status, 413);
}

#[test]
fn a_body_that_stalls_is_408() {
    let (server, _dir) = fresh(&["--body-timeout", "300ms"]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for sent in ["", "{\"a\":"] {
        let mut connection = server.connect();
        connection
            .send(
                &Request::of("PUT", "xyz", &token)
                    .header("Content-Length", "100")
                    .head(),
            )
            .unwrap();
        connection.send(sent.as_bytes()).unwrap();
        let response = connection.read_response(false).unwrap();
        Expected::code("request-timeout").check(&response, sent);
        kept.check(sent);
    }
}

#[test]
fn a_head_that_does_not_come_ends_the_connection() {
    let (server, _dir) = fresh(&["--head-timeout", "300ms"]);
    for sent in [
        "",
        "GET /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n",
    ] {
        let mut connection = server.connect();
        connection.send(sent.as_bytes()).unwrap();
        // Closed, with or without a word (hyper sends 408 for a head that was begun).
        let rest = connection.read_to_end().unwrap();
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{rest:?}"
        );
    }
    let token = token::of("alice", "xyz");
    let mut idle = server.connect();
    assert_eq!(get(&mut idle, "xyz", &token), "{}");
    assert!(
        idle.read_to_end().unwrap().is_empty(),
        "an idle connection is ended"
    );
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let (server, _dir) = fresh(&["--write-timeout", "300ms"]);
    let token = token::of("alice", "xyz");
    assert_eq!(
        Large { values: 2 }.upload(&mut server.connect(), "xyz", &token),
        204
    );
    let mut connection = server.connect();
    connection
        .send(&Request::of("GET", "xyz", &token).bytes())
        .unwrap();
    let (response, _) = connection.read_head().unwrap();
    assert_eq!(response.status, 200);
    // The answer has begun, so its blob is open. Nothing more is read until the server
    // has let go of that: it has given up then.
    let mut other = server.connect();
    loop {
        assert_eq!(
            other.request(&Request::of("HEAD", "xyz", &token)).status,
            200
        );
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
        let blobs = open
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| path.to_string_lossy().ends_with(".blob"))
            .count();
        if blobs == 0 {
            break;
        }
    }
    let got = connection.read_to_end().map_or(0, |bytes| bytes.len());
    assert!(got < 2 * VALUE_BYTES, "all of it was sent after all");
}

#[test]
fn connections_beyond_the_cap_wait_for_a_place() {
    let (server, _dir) = fresh(&["--max-connections", "2"]);
    let token = token::of("alice", "xyz");
    let mut first = server.connect();
    let mut second = server.connect();
    put(&mut first, "xyz", &token, "{\"a\":1}");
    assert_eq!(get(&mut second, "xyz", &token), "{\"a\":1}");
    let request = Request::of("GET", "xyz", &token).bytes();
    let mut third = TcpStream::connect(server.address).unwrap();
    third.write_all(&request).unwrap();
    third
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut byte = [0; 1];
    assert!(
        std::io::Read::read(&mut third, &mut byte).is_err(),
        "served beyond the cap"
    );
    drop(first);
    third
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert_eq!(std::io::Read::read(&mut third, &mut byte).unwrap(), 1);
}

/// More than an upload may bring without room in the budget.
const NEEDS_ROOM: usize = 20_000;

/// A document of so many bytes.
fn document(bytes: usize) -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8))
}

/// An upload that has taken the whole budget, and the rest of its body.
fn holder(server: &Server, token: &str) -> (Client, Vec<u8>) {
    let mut holder = server.connect();
    let request = Request::of("PUT", "xyz", token).body(document(2 * NEEDS_ROOM));
    let bytes = request.bytes();
    let (begun, rest) = bytes.split_at(bytes.len() - NEEDS_ROOM / 2);
    holder.send(begun).unwrap();
    (holder, rest.to_vec())
}

#[test]
fn a_body_beyond_the_budget_waits_and_is_then_refused() {
    let budget = ["--body-budget-bytes", "4096", "--body-budget-wait", "100ms"];
    let (server, _dir) = fresh(&budget);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let (mut held, mut rest) = holder(&server, &token);
    let request = Request::of("PUT", "xyz", &token).body(document(NEEDS_ROOM));
    let mut refused = None;
    wait_until("the holder has the budget", || {
        // Where it has stalled for too long, it has been sent away.
        if held.is_answered_within(Duration::from_millis(1)) {
            (held, rest) = holder(&server, &token);
        }
        let response = server.connect().request(&request);
        let is_refused = response.status != 204;
        refused = Some(response);
        is_refused
    });
    let response = refused.unwrap();
    Expected::code("overloaded").check(&response, "beyond the budget");
    assert_eq!(response.header("retry-after"), Some("1"));
    // What is small needs no room.
    kept.accepts_body(b"{\"a\":1}", b"{\"a\":1}", "small");
    held.send(&rest).unwrap();
    assert_eq!(held.read_response(false).unwrap().status, 204);
    put(&mut server.connect(), "xyz", &token, &document(NEEDS_ROOM));
}

#[test]
fn an_upload_that_stalls_gives_its_room_to_one_that_waits() {
    let budget = ["--body-budget-bytes", "4096", "--body-budget-wait", "20s"];
    let (server, _dir) = fresh(&budget);
    let token = token::of("alice", "xyz");
    // One that has no room to give is not asked for any, although it stalls as well.
    let mut small = server.connect();
    let bytes = Request::of("PUT", "xyz", &token).body("{\"a\":1}").bytes();
    let (begun, last) = bytes.split_at(bytes.len() - 1);
    small.send(begun).unwrap();
    let mut connection = server.connect();
    for _ in 0..2 {
        let (mut holder, _) = holder(&server, &token);
        // Whoever comes is served, at first because it is quicker than the holder.
        let began = Instant::now();
        while !holder.is_answered_within(Duration::from_millis(1)) {
            put(&mut connection, "xyz", &token, &document(NEEDS_ROOM));
            assert!(began.elapsed().as_secs() < 20, "it keeps its room");
        }
        let response = holder.read_response(false).unwrap();
        Expected::code("request-timeout").check(&response, "stalled");
        assert_eq!(get(&mut connection, "xyz", &token), document(NEEDS_ROOM));
    }
    small.send(last).unwrap();
    assert_eq!(small.read_response(false).unwrap().status, 204);
}
