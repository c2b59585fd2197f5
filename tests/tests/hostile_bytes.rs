//! Bytes that are no request, or that two readers could read in two ways: what each of
//! them gets, and that what stands behind it is never taken for a request where it could
//! be a part of it. Behind each stands a DELETE that would succeed.

mod common;

use std::io::BufRead;

use common::{fresh, get, put};
use prefd_tests::api_error::Expected;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::server::Server;
use prefd_tests::token;
use serde_json::json;

const MIB: usize = 1024 * 1024;
const DOCUMENT: &str = "{\"kept\":\"xyz\"}";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// What is sent gets this.
#[derive(Debug, Clone, Copy)]
enum Gets {
    /// hyper's refusal: a status and an empty body. The connection is closed.
    Status(u16),
    /// An error of ours. The connection is closed.
    Error(&'static str),
    /// An answer of this status, and nothing further: the connection is closed.
    Last(u16),
    /// An answer of this status, and where its end is certain: so is the DELETE.
    Then(u16),
    /// The connection is closed without a word.
    Nothing,
}

use Gets::{Error, Last, Nothing, Status, Then};

struct Bytes {
    server: Server,
    token: String,
    _dir: tempfile::TempDir,
}

impl Bytes {
    fn new() -> Self {
        let (server, dir) = fresh(&["--head-timeout", "10m"]);
        let token = token::of("alice", "xyz");
        put(&mut server.connect(), "xyz", &token, DOCUMENT);
        Self {
            server,
            token,
            _dir: dir,
        }
    }

    /// A PUT of the document with these header lines, and this for a body.
    fn put(&self, lines: &str, body: &str) -> Vec<u8> {
        let token = &self.token;
        let head = "PUT /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n";
        format!("{head}Authorization: Bearer {token}\r\n{lines}\r\n{body}").into_bytes()
    }

    /// The same where a single line stands for the framing of the document.
    fn put_sized(&self, line: &str) -> Vec<u8> {
        let length = DOCUMENT.len();
        self.put(&format!("{line}\r\nContent-Length: {length}\r\n"), DOCUMENT)
    }

    /// Sends this and a DELETE, and expects that.
    fn gets(&self, name: &str, bytes: &[u8], expected: Gets) {
        let behind = Request::of("DELETE", "xyz", &self.token).head();
        let mut connection = self.server.connect();
        // The server may refuse before all of it is sent.
        let _ = connection.send(&[bytes, &behind].concat());
        connection.end_sending();
        let answers = answers(&mut connection);
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        match expected {
            Nothing => assert!(answers.is_empty(), "{name}: {answers:?}"),
            Then(status) => assert_eq!(statuses, [status, 204], "{name}: {answers:?}"),
            Status(status) | Last(status) => {
                assert_eq!(statuses, [status], "{name}: {answers:?}");
                let body = answers[0].body.len();
                assert!(
                    matches!(expected, Last(_)) || body == 0,
                    "{name}: {answers:?}"
                );
            }
            Error(_) => assert_eq!(statuses.len(), 1, "{name}: {answers:?}"),
        }
        if let Error(code) = expected {
            let mut error = Expected::code(code);
            if answers[0].text().contains("transfer coding") {
                error = error.source(json!({"header": "Transfer-Encoding"}));
            }
            error.check(&answers[0], name);
        }
        let mut connection = self.server.connect();
        let found = get(&mut connection, "xyz", &self.token);
        if matches!(expected, Then(_)) {
            assert_eq!(found, "{}", "{name}");
            put(&mut connection, "xyz", &self.token, DOCUMENT);
        } else {
            let last = answers
                .last()
                .map_or(Some("close"), |last| last.header("connection"));
            assert_eq!(last, Some("close"), "{name}");
            assert_eq!(found, DOCUMENT, "{name}");
        }
    }
}

/// All answers, to the end of the connection.
fn answers(connection: &mut Client) -> Vec<Response> {
    let bytes = connection.read_to_end().expect("it is not reset");
    let mut rest = &bytes[..];
    let mut answers = Vec::new();
    while !rest.fill_buf().unwrap().is_empty() {
        answers.push(Response::read(&mut rest, false).unwrap());
    }
    answers
}

#[test]
fn lengths() {
    let bytes = Bytes::new();
    let length = DOCUMENT.len();
    for (lengths, gets) in [
        // RFC 9112 section 6.3: as one, or refused.
        (
            format!("Content-Length: {length}\r\nContent-Length: {length}"),
            Then(204),
        ),
        (
            format!("Content-Length: {length}\r\nContent-Length: 0"),
            Status(400),
        ),
        (
            format!("Content-Length: 0\r\nContent-Length: {length}"),
            Status(400),
        ),
        (format!("Content-Length: {length}, {length}"), Status(400)),
        (format!("Content-Length: +{length}"), Status(400)),
        (format!("Content-Length: 0x{length:x}"), Status(400)),
        (format!("Content-Length : {length}"), Status(400)),
        ("Content-Length: -1".to_owned(), Status(400)),
        ("Content-Length:".to_owned(), Status(400)),
        (
            "Content-Length: 18446744073709551616".to_owned(),
            Status(400),
        ),
        ("Content-Length: 999999999".to_owned(), Last(413)),
    ] {
        let sent = bytes.put(&format!("{lengths}\r\n"), DOCUMENT);
        bytes.gets(&lengths, &sent, gets);
    }
}

#[test]
fn transfer_codings() {
    let bytes = Bytes::new();
    let length = DOCUMENT.len();
    let body = format!("{length:x}\r\n{DOCUMENT}\r\n0\r\n\r\n");
    for (codings, gets) in [
        ("Transfer-Encoding: CHUNKED", Then(204)),
        ("Transfer-Encoding:\tchunked", Then(204)),
        ("Transfer-Encoding: chunked, identity", Status(400)),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Status(400),
        ),
        ("Transfer-Encoding: identity", Status(400)),
        ("Transfer-Encoding: xchunked", Status(400)),
        ("Transfer-Encoding: \"chunked\"", Status(400)),
        ("Transfer-Encoding: \x0bchunked", Status(400)),
        ("Transfer-Encoding : chunked", Status(400)),
        (
            "Transfer-Encoding: identity, chunked",
            Error("invalid-request"),
        ),
        ("Transfer-Encoding: gzip, chunked", Error("invalid-request")),
        (
            "Transfer-Encoding: chunked, chunked",
            Error("invalid-request"),
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            Error("invalid-request"),
        ),
    ] {
        let sent = bytes.put(&format!("{codings}\r\n"), &body);
        bytes.gets(codings, &sent, gets);
    }
    // Section 6.3 of RFC 9112: the chunks count, and the connection must be closed.
    for lines in [
        format!("{CHUNKED}Content-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\n{CHUNKED}"),
        format!("Content-Length: 0\r\n{CHUNKED}"),
        format!("{CHUNKED}Content-Length: nonsense\r\n"),
    ] {
        bytes.gets(&lines, &bytes.put(&lines, &body), Last(204));
        bytes.gets(
            &lines,
            &bytes.put(&lines, DOCUMENT),
            Error("invalid-request"),
        );
    }
    let old = bytes.put(CHUNKED, &body);
    let old = String::from_utf8(old)
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0");
    bytes.gets("chunks in HTTP/1.0", old.as_bytes(), Status(400));
}

#[test]
fn chunks() {
    let bytes = Bytes::new();
    let length = DOCUMENT.len();
    let megabyte = "x".repeat(MIB);
    let zeros = "0".repeat(20);
    let bad = Error("invalid-request");
    for (size, gets) in [
        (format!("{length:X}\r\n"), Then(204)),
        (format!("{zeros}{length:x}\r\n"), Then(204)),
        (format!("{length:x};name=value\r\n"), Then(204)),
        (format!("{length:x};{megabyte}\r\n"), bad),
        (format!("{length:x};name\n"), bad),
        (format!("{length:x}\n"), bad),
        (format!("{length:x}\r"), bad),
        (format!("{length:x}z\r\n"), bad),
        (format!("0x{length:x}\r\n"), bad),
        (format!("+{length:x}\r\n"), bad),
        (format!("-{length:x}\r\n"), bad),
        (format!("0_{length:x}\r\n"), bad),
        (format!(" {length:x}\r\n"), bad),
        ("-1\r\n".to_owned(), bad),
        ("\r\n".to_owned(), bad),
        ("fffffffffffffffff\r\n".to_owned(), bad),
        // One that is so long, and in which the document is over before its end.
        ("ffffffffffffffff\r\n".to_owned(), Error("invalid-json")),
    ] {
        let sent = bytes.put(CHUNKED, &format!("{size}{DOCUMENT}\r\n0\r\n\r\n"));
        let shown = size.get(..20).unwrap_or(&size);
        match gets {
            // It has a position, which is not the matter here.
            Error("invalid-json") => bytes.gets(shown, &sent, Last(400)),
            gets => bytes.gets(shown, &sent, gets),
        }
    }
    for (end, gets) in [
        ("0\r\n\r\n".to_owned(), bad),
        ("\n0\r\n\r\n".to_owned(), bad),
        ("\r\n0\r\nx: y\r\n\r\n".to_owned(), Then(204)),
        ("\r\n0\r\nContent-Length: 5\r\n\r\n".to_owned(), Then(204)),
        (format!("\r\n0\r\nx: {megabyte}\r\n\r\n"), bad),
        (format!("\r\n0\r\n{}\r\n", "x: y\r\n".repeat(10_000)), bad),
    ] {
        let sent = bytes.put(CHUNKED, &format!("{length:x}\r\n{DOCUMENT}{end}"));
        bytes.gets(end.get(..20).unwrap_or(&end), &sent, gets);
    }
}

#[test]
fn heads() {
    let bytes = Bytes::new();
    let megabyte = "x".repeat(MIB);
    // With Host, Authorization and Content-Length there are 100.
    let most = "x: y\r\n".repeat(96) + "x: y";
    for (line, gets) in [
        (most.clone(), Then(204)),
        (format!("{most}\r\nx: y"), Status(431)),
        ("x: y\r\n".repeat(9_999) + "x: y", Status(431)),
        (format!("x: {megabyte}"), Status(431)),
        (format!("{megabyte}: y"), Status(431)),
        ("x: a\r\n folded".to_owned(), Status(400)),
        (" x: y".to_owned(), Status(400)),
        ("x: a\rContent-Length: 0".to_owned(), Status(400)),
        ("x: a\0b".to_owned(), Status(400)),
        ("x\0: y".to_owned(), Status(400)),
        ("x : y".to_owned(), Status(400)),
        (": y".to_owned(), Status(400)),
        ("x".to_owned(), Status(400)),
    ] {
        let shown = line.get(..40).unwrap_or(&line);
        bytes.gets(shown, &bytes.put_sized(&line), gets);
    }
    // Section 2.2 of RFC 9112 lets a line end so.
    let sent = String::from_utf8(bytes.put_sized("x: y")).unwrap();
    bytes.gets("bare LF", sent.replace("\r\n", "\n").as_bytes(), Then(204));
}

#[test]
fn request_lines() {
    let bytes = Bytes::new();
    let megabyte = "x".repeat(MIB);
    let of = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    for (sent, gets) in [
        (of(&format!("GET /{megabyte} HTTP/1.1")), Status(431)),
        (format!("GET /{megabyte}"), Status(431)),
        (
            of(&format!("GET /{} HTTP/1.1", &megabyte[..65_535])),
            Status(414),
        ),
        (of(&format!("{megabyte} / HTTP/1.1")), Status(431)),
        ("\r\n".repeat(MIB / 2), Status(431)),
        (of("GET /\0 HTTP/1.1"), Status(400)),
        (of("GET / / HTTP/1.1"), Status(400)),
        (of("GET  / HTTP/1.1"), Status(400)),
        (of("GET / HTTP/1.2"), Status(400)),
        (of("GET /"), Status(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), Nothing),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\0\x03\x03".to_owned(),
            Status(400),
        ),
        // Refused, but each is over where it says: what follows is a request.
        (of("\r\n\r\nGET / HTTP/1.1"), Then(404)),
        (of("GET x:80 HTTP/1.1"), Then(404)),
        (of("OPTIONS * HTTP/1.1"), Then(404)),
        (of("CONNECT x:80 HTTP/1.1"), Then(404)),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Then(400)),
    ] {
        bytes.gets(sent.get(..40).unwrap_or(&sent), sent.as_bytes(), gets);
    }
    // Section 3.2.2 of RFC 9112: a server must take the absolute form.
    let absolute = Request::of("GET", "xyz", &bytes.token).head();
    let absolute = String::from_utf8(absolute).unwrap();
    let absolute = absolute.replacen("GET /", "GET http://elsewhere.test/", 1);
    bytes.gets("absolute form", absolute.as_bytes(), Then(200));
}

#[test]
fn what_stands_behind_a_refused_body_is_no_request() {
    let bytes = Bytes::new();
    let hidden = Request::of("DELETE", "xyz", &bytes.token).head();
    let hidden = String::from_utf8(hidden).unwrap();
    let framed = [
        (
            format!("Content-Length: {}\r\n", hidden.len()),
            hidden.clone(),
        ),
        (
            CHUNKED.to_owned(),
            format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        ),
    ];
    for (line, body) in framed {
        let sent = String::from_utf8(bytes.put(&line, &body)).unwrap();
        for (name, sent, gets) in [
            ("token", sent.replacen("Bearer ", "Bearer x", 1), Last(401)),
            (
                "scope",
                sent.replacen("preferences/xyz", "preferences/other", 1),
                Last(403),
            ),
            ("route", sent.replacen("2025-1", "1066-1", 1), Last(404)),
            ("method", sent.replacen("PUT", "POST", 1), Last(405)),
            (
                "type",
                sent.replacen("\r\n", "\r\nContent-Type: text/plain\r\n", 1),
                Last(415),
            ),
            ("host", sent.replacen("Host", "Hos", 1), Last(400)),
        ] {
            bytes.gets(&format!("{name}, {line}"), sent.as_bytes(), gets);
        }
        // Where its end was received, it has one, whatever it says; of chunks the last one
        // is not waited for. And a GET may have a body, which nobody reads.
        let gets = if line == CHUNKED {
            Last(400)
        } else {
            Then(400)
        };
        bytes.gets(&line, sent.as_bytes(), gets);
        bytes.gets(&line, sent.replacen("PUT", "GET", 1).as_bytes(), Then(200));
    }
    assert!(!bytes.server.has_logged("panicked"));
}
