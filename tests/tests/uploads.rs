//! Large documents, slow clients, refused uploads, and many uploads at the same time.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Kept, fresh, get, metric, put, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Client, Request};
use prefd_tests::server::Server;
use prefd_tests::token;
use serde_json::json;

const MIB: usize = 1024 * 1024;
const VALUE_BYTES: usize = 10 * MIB;

/// A document with `values` strings of 10 MiB each. Each piece of the body is generated when it
/// is sent or compared, so the test does not need memory for the complete body.
struct Large {
    values: usize,
}

impl Large {
    /// Returns the pieces of the body in order.
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

    /// Returns the length of the body.
    fn bytes(&self) -> usize {
        self.pieces().map(|piece| piece.len()).sum()
    }

    /// Uploads the document, and returns the status.
    fn upload(&self, connection: &mut Client, client: &str, token: &str) -> u16 {
        let request =
            Request::of("PUT", client, token).header("Content-Length", &self.bytes().to_string());
        connection.send(&request.head()).unwrap();
        for piece in self.pieces() {
            connection.send(&piece).unwrap();
        }
        connection.read_response(false).unwrap().status
    }

    /// Downloads the document, and expects it to be unchanged.
    fn check_download(&self, connection: &mut Client, client: &str, token: &str) {
        connection
            .send(&Request::of("GET", client, token).bytes())
            .unwrap();
        let (response, length) = connection.read_head().unwrap();
        assert_eq!((response.status, length), (200, Some(self.bytes() as u64)));
        for piece in self.pieces() {
            let mut found = vec![0; piece.len()];
            connection.read_body(&mut found).unwrap();
            assert!(
                found == piece,
                "expected GET to return the uploaded document"
            );
        }
    }
}

#[test]
fn document_of_100_mib_needs_less_than_100_mib_of_memory() {
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
fn sixteen_uploads_of_100_mib_need_less_than_256_mib_of_memory() {
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
fn continue_is_sent_only_after_all_checks_of_the_head() {
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

/// Sends the head of a PUT. Returns the connection, and a piece of an oversized value.
fn start_upload(server: &Server, framing: (&str, &str)) -> (Client, Vec<u8>) {
    let token = token::of("alice", "xyz");
    let request = Request::of("PUT", "xyz", &token).header(framing.0, framing.1);
    let mut connection = server.connect();
    connection.send(&request.head()).unwrap();
    let piece = vec![b'x'; MIB];
    (connection, piece)
}

#[test]
fn mid_upload_refusal_reaches_a_client_that_reads_at_the_end() {
    let (server, _dir) = fresh(&[]);
    let kept_token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &kept_token);
    let expected = ExpectedError::code("max-value-length-exceeded")
        .source(json!({"pointer": "/a"}))
        .meta(json!({"limit": VALUE_BYTES, "actual": VALUE_BYTES + 1}));
    for _ in 0..5 {
        let (mut connection, piece) =
            start_upload(&server, ("Content-Length", &(100 * MIB).to_string()));
        connection.send(b"{\"a\":\"").unwrap();
        let mut sent = 6;
        while sent < 100 * MIB {
            let len = piece.len().min(100 * MIB - sent);
            connection
                .send(&piece[..len])
                .expect("the server reads the complete upload");
            sent += len;
        }
        let response = connection
            .read_response(false)
            .expect("the server sends a response to the upload");
        expected.check(&response, "after the complete upload");
        assert_eq!(response.header("connection"), Some("close"));
        assert_eq!(connection.read_to_end().unwrap(), b"");
        kept.check("after the complete upload");
    }
}

#[test]
fn mid_upload_refusal_is_sent_before_the_body_ends() {
    let (server, _dir) = fresh(&[]);
    let (mut connection, piece) = start_upload(&server, ("Transfer-Encoding", "chunked"));
    connection.send(b"6\r\n{\"a\":\"\r\n").unwrap();
    for _ in 0..11 {
        connection
            .send(format!("{:x}\r\n", piece.len()).as_bytes())
            .unwrap();
        connection.send(&piece).unwrap();
        connection.send(b"\r\n").unwrap();
    }
    // The client gets the response before it has sent the end of the body.
    let response = connection.read_response(false).unwrap();
    assert_eq!(response.status, 413);
}

#[test]
fn stalled_body_gets_408() {
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
        ExpectedError::code("request-timeout").check(&response, sent);
        kept.check(sent);
    }
}

#[test]
fn missing_or_incomplete_head_closes_the_connection() {
    let (server, _dir) = fresh(&["--head-timeout", "300ms"]);
    for sent in [
        "",
        "GET /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n",
    ] {
        let mut connection = server.connect();
        connection.send(sent.as_bytes()).unwrap();
        // hyper sends 408 before it closes a connection with an incomplete head.
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
        "expected the server to close an idle connection"
    );
}

#[test]
fn client_that_does_not_read_is_disconnected() {
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
    // The response has begun, so the server has the blob open. The client reads nothing until
    // the server has closed the blob, which shows that the write timeout has expired.
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
    assert!(got < 2 * VALUE_BYTES, "expected the response to be cut off");
}

#[test]
fn connection_above_the_limit_waits_for_a_free_slot() {
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
        "expected no response while the connection limit is reached"
    );
    drop(first);
    third
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    assert_eq!(std::io::Read::read(&mut third, &mut byte).unwrap(), 1);
}

/// Size of a document whose upload needs space in the body budget.
const BUDGETED_BYTES: usize = 20_000;

/// Returns a document of the given length.
fn document(bytes: usize) -> String {
    format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8))
}

/// Starts an upload that uses the complete body budget, and returns the rest of its body.
fn start_holder(server: &Server, token: &str) -> (Client, Vec<u8>) {
    let mut holder = server.connect();
    let request = Request::of("PUT", "xyz", token).body(document(2 * BUDGETED_BYTES));
    let bytes = request.bytes();
    let (begun, rest) = bytes.split_at(bytes.len() - BUDGETED_BYTES / 2);
    holder.send(begun).unwrap();
    (holder, rest.to_vec())
}

#[test]
fn upload_beyond_the_body_budget_waits_and_then_gets_503() {
    let budget = ["--body-budget-bytes", "4096", "--body-budget-wait", "100ms"];
    let (server, _dir) = fresh(&budget);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let (mut held, mut rest) = start_holder(&server, &token);
    let request = Request::of("PUT", "xyz", &token).body(document(BUDGETED_BYTES));
    let mut refused = None;
    wait_until("a refusal for lack of body budget", || {
        // The server evicts the stalled upload after a while. Then the test starts another one.
        if held.wait_for_response(Duration::from_millis(1)) {
            (held, rest) = start_holder(&server, &token);
        }
        let response = server.connect().request(&request);
        let is_refused = response.status != 204;
        refused = Some(response);
        is_refused
    });
    let response = refused.unwrap();
    ExpectedError::code("overloaded").check(&response, "beyond the budget");
    assert_eq!(response.header("retry-after"), Some("1"));
    // A small upload needs no space in the budget.
    kept.accepts_body(b"{\"a\":1}", b"{\"a\":1}", "small");
    held.send(&rest).unwrap();
    assert_eq!(held.read_response(false).unwrap().status, 204);
    put(
        &mut server.connect(),
        "xyz",
        &token,
        &document(BUDGETED_BYTES),
    );
}

#[test]
fn stalled_upload_is_evicted_for_a_waiting_upload() {
    let budget = ["--body-budget-bytes", "4096", "--body-budget-wait", "20s"];
    let (server, _dir) = fresh(&budget);
    let token = token::of("alice", "xyz");
    // An upload that uses no space in the budget is not evicted, although it also stalls.
    let mut small = server.connect();
    let bytes = Request::of("PUT", "xyz", &token).body("{\"a\":1}").bytes();
    let (begun, last) = bytes.split_at(bytes.len() - 1);
    small.send(begun).unwrap();
    let mut connection = server.connect();
    for _ in 0..2 {
        let (mut holder, _) = start_holder(&server, &token);
        // All other uploads succeed: the first ones, because the holder has not acquired the
        // budget yet, and the next one, because the server evicts the holder.
        let began = Instant::now();
        while !holder.wait_for_response(Duration::from_millis(1)) {
            put(&mut connection, "xyz", &token, &document(BUDGETED_BYTES));
            assert!(
                began.elapsed().as_secs() < 20,
                "expected the stalled upload to be evicted"
            );
        }
        let response = holder.read_response(false).unwrap();
        ExpectedError::code("request-timeout").check(&response, "stalled");
        assert_eq!(
            get(&mut connection, "xyz", &token),
            document(BUDGETED_BYTES)
        );
    }
    small.send(last).unwrap();
    assert_eq!(small.read_response(false).unwrap().status, 204);
}

/// Regression test. Slow uploads could fill the disk.
#[test]
fn unfinished_uploads_need_no_more_disk_space_than_allowed() {
    const UPLOAD_BYTES: usize = MIB;
    const SENT_BYTES: usize = 900 * 1024;
    const ALLOWED: u64 = 4 * MIB as u64;
    let (server, dir) = fresh(&[
        "--admin-listen",
        "127.0.0.1:0",
        "--max-body-bytes",
        &UPLOAD_BYTES.to_string(),
        "--max-unfinished-upload-bytes",
        &ALLOWED.to_string(),
    ]);
    let used = || metric(&server, "prefd_unfinished_uploads_bytes");
    assert_eq!(
        metric(&server, "prefd_unfinished_uploads_max_bytes"),
        ALLOWED
    );
    let mallory = token::of("mallory", "xyz");
    let request = Request::of("PUT", "xyz", &mallory).body(document(UPLOAD_BYTES));
    let bytes = request.bytes();
    let begin = || {
        let mut upload = server.connect();
        upload.send(&bytes[..SENT_BYTES]).unwrap();
        upload
    };
    let mut uploads: Vec<Client> = Vec::new();
    for count in 1..=4 {
        uploads.push(begin());
        wait_until("the upload has been received", || {
            used() > count * (SENT_BYTES as u64 - 4096)
        });
    }
    // The fifth upload of the same user needs more than the allowed space, and is refused.
    let overloaded = ExpectedError::code("overloaded");
    let refused = begin().read_response(false).unwrap();
    overloaded.check(&refused, "fifth upload");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Another user's upload is accepted. The newest upload of the first user ends.
    let alice = token::of("alice", "xyz");
    put(
        &mut server.connect(),
        "xyz",
        &alice,
        &document(UPLOAD_BYTES),
    );
    let ended = uploads.pop().unwrap().read_response(false).unwrap();
    overloaded.check(&ended, "fourth upload");
    assert!(used() <= ALLOWED);
    // The other uploads continue.
    for mut upload in uploads {
        upload.send(&bytes[SENT_BYTES..]).unwrap();
        assert_eq!(upload.read_response(false).unwrap().status, 204);
    }
    wait_until("no upload is in progress", || used() == 0);
    let ended = metric(&server, "prefd_uploads_ended_total{reason=\"disk\"}");
    assert_eq!(ended, 2);
    wait_until("only the two current documents are on the disk", || {
        std::fs::read_dir(dir.path().join("blobs")).unwrap().count() == 2
    });
}
