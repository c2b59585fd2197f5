//! Byte sequences that are not valid requests, or that two HTTP parsers could read differently
//! (request smuggling). A valid DELETE follows each of them on the connection. The server may
//! execute the DELETE only if the end of the first request is unambiguous.

mod common;

use std::io::BufRead;

use common::{fresh, get, put};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Client, Request, Response};
use prefd_tests::server::Server;
use prefd_tests::token;
use serde_json::json;

const MIB: usize = 1024 * 1024;
const DOCUMENT: &str = "{\"kept\":\"xyz\"}";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// The expected reaction of the server to the bytes and the DELETE that follows.
#[derive(Debug, Clone, Copy)]
enum Reaction {
    /// An error response of hyper, with the given status and an empty body. The server closes
    /// the connection and does not execute the DELETE.
    Refused(u16),
    /// An error response of prefd, with the given error code. The server closes the connection
    /// and does not execute the DELETE.
    ApiError(&'static str),
    /// A response with the given status. The server closes the connection and does not execute
    /// the DELETE.
    Final(u16),
    /// A response with the given status. The server then executes the DELETE.
    Continues(u16),
    /// The server closes the connection without a response.
    NoResponse,
}

use Reaction::{ApiError, Continues, Final, NoResponse, Refused};

/// A server with one document, and a token for that document.
struct Target {
    server: Server,
    token: String,
    _dir: tempfile::TempDir,
}

impl Target {
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

    /// A PUT to the document's path with the given additional header lines and body.
    fn put(&self, lines: &str, body: &str) -> Vec<u8> {
        let token = &self.token;
        let head = "PUT /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n";
        format!("{head}Authorization: Bearer {token}\r\n{lines}\r\n{body}").into_bytes()
    }

    /// A PUT of [`DOCUMENT`] with its Content-Length and one additional header line.
    fn put_with_header(&self, line: &str) -> Vec<u8> {
        let length = DOCUMENT.len();
        self.put(&format!("{line}\r\nContent-Length: {length}\r\n"), DOCUMENT)
    }

    /// Sends the bytes and a DELETE on one connection, and expects the given reaction.
    fn check(&self, name: &str, bytes: &[u8], expected: Reaction) {
        let delete = Request::of("DELETE", "xyz", &self.token).head();
        let mut connection = self.server.connect();
        // The server may refuse the request and close the connection before all bytes are sent.
        let _ = connection.send(&[bytes, &delete].concat());
        connection.end_sending();
        let responses = read_responses(&mut connection);
        let statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
        match expected {
            NoResponse => assert!(responses.is_empty(), "{name}: {responses:?}"),
            Continues(status) => assert_eq!(statuses, [status, 204], "{name}: {responses:?}"),
            Refused(status) | Final(status) => {
                assert_eq!(statuses, [status], "{name}: {responses:?}");
                let body = responses[0].body.len();
                assert!(
                    matches!(expected, Final(_)) || body == 0,
                    "{name}: {responses:?}"
                );
            }
            ApiError(_) => assert_eq!(statuses.len(), 1, "{name}: {responses:?}"),
        }
        if let ApiError(code) = expected {
            let mut error = ExpectedError::code(code);
            if responses[0].text().contains("transfer coding") {
                error = error.source(json!({"header": "Transfer-Encoding"}));
            }
            error.check(&responses[0], name);
        }
        let mut connection = self.server.connect();
        let found = get(&mut connection, "xyz", &self.token);
        if matches!(expected, Continues(_)) {
            assert_eq!(found, "{}", "{name}");
            put(&mut connection, "xyz", &self.token, DOCUMENT);
        } else {
            let last = responses
                .last()
                .map_or(Some("close"), |last| last.header("connection"));
            assert_eq!(last, Some("close"), "{name}");
            assert_eq!(found, DOCUMENT, "{name}");
        }
    }
}

/// Reads all responses until the server closes the connection.
fn read_responses(connection: &mut Client) -> Vec<Response> {
    let bytes = connection
        .read_to_end()
        .expect("the server must close the connection without a reset");
    let mut rest = &bytes[..];
    let mut responses = Vec::new();
    while !rest.fill_buf().unwrap().is_empty() {
        responses.push(Response::read(&mut rest, false).unwrap());
    }
    responses
}

#[test]
fn content_length_variants_get_the_expected_response() {
    let target = Target::new();
    let length = DOCUMENT.len();
    for (lengths, expected) in [
        // RFC 9112 section 6.3: identical values may be accepted as one or refused; different
        // values must be refused.
        (
            format!("Content-Length: {length}\r\nContent-Length: {length}"),
            Continues(204),
        ),
        (
            format!("Content-Length: {length}\r\nContent-Length: 0"),
            Refused(400),
        ),
        (
            format!("Content-Length: 0\r\nContent-Length: {length}"),
            Refused(400),
        ),
        (format!("Content-Length: {length}, {length}"), Refused(400)),
        (format!("Content-Length: +{length}"), Refused(400)),
        (format!("Content-Length: 0x{length:x}"), Refused(400)),
        (format!("Content-Length : {length}"), Refused(400)),
        ("Content-Length: -1".to_owned(), Refused(400)),
        ("Content-Length:".to_owned(), Refused(400)),
        (
            "Content-Length: 18446744073709551616".to_owned(),
            Refused(400),
        ),
        ("Content-Length: 999999999".to_owned(), Final(413)),
    ] {
        let sent = target.put(&format!("{lengths}\r\n"), DOCUMENT);
        target.check(&lengths, &sent, expected);
    }
}

#[test]
fn transfer_encoding_variants_get_the_expected_response() {
    let target = Target::new();
    let length = DOCUMENT.len();
    let body = format!("{length:x}\r\n{DOCUMENT}\r\n0\r\n\r\n");
    for (codings, expected) in [
        ("Transfer-Encoding: CHUNKED", Continues(204)),
        ("Transfer-Encoding:\tchunked", Continues(204)),
        ("Transfer-Encoding: chunked, identity", Refused(400)),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            Refused(400),
        ),
        ("Transfer-Encoding: identity", Refused(400)),
        ("Transfer-Encoding: xchunked", Refused(400)),
        ("Transfer-Encoding: \"chunked\"", Refused(400)),
        ("Transfer-Encoding: \x0bchunked", Refused(400)),
        ("Transfer-Encoding : chunked", Refused(400)),
        (
            "Transfer-Encoding: identity, chunked",
            ApiError("invalid-request"),
        ),
        (
            "Transfer-Encoding: gzip, chunked",
            ApiError("invalid-request"),
        ),
        (
            "Transfer-Encoding: chunked, chunked",
            ApiError("invalid-request"),
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            ApiError("invalid-request"),
        ),
    ] {
        let sent = target.put(&format!("{codings}\r\n"), &body);
        target.check(codings, &sent, expected);
    }
    // RFC 9112 section 6.1: Transfer-Encoding overrides Content-Length, and the server must close
    // the connection after the response.
    for lines in [
        format!("{CHUNKED}Content-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\n{CHUNKED}"),
        format!("Content-Length: 0\r\n{CHUNKED}"),
        format!("{CHUNKED}Content-Length: nonsense\r\n"),
    ] {
        target.check(&lines, &target.put(&lines, &body), Final(204));
        target.check(
            &lines,
            &target.put(&lines, DOCUMENT),
            ApiError("invalid-request"),
        );
    }
    let old = target.put(CHUNKED, &body);
    let old = String::from_utf8(old)
        .unwrap()
        .replace("HTTP/1.1", "HTTP/1.0");
    target.check("chunks in HTTP/1.0", old.as_bytes(), Refused(400));
}

#[test]
fn chunk_variants_get_the_expected_response() {
    let target = Target::new();
    let length = DOCUMENT.len();
    let megabyte = "x".repeat(MIB);
    let zeros = "0".repeat(20);
    let bad = ApiError("invalid-request");
    for (size, expected) in [
        (format!("{length:X}\r\n"), Continues(204)),
        (format!("{zeros}{length:x}\r\n"), Continues(204)),
        (format!("{length:x};name=value\r\n"), Continues(204)),
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
        // The chunk is valid but far longer than the document, so the bytes after the document are
        // invalid JSON.
        ("ffffffffffffffff\r\n".to_owned(), ApiError("invalid-json")),
    ] {
        let sent = target.put(CHUNKED, &format!("{size}{DOCUMENT}\r\n0\r\n\r\n"));
        let shown = size.get(..20).unwrap_or(&size);
        match expected {
            // The error has a position, which this test does not check.
            ApiError("invalid-json") => target.check(shown, &sent, Final(400)),
            expected => target.check(shown, &sent, expected),
        }
    }
    for (end, expected) in [
        ("0\r\n\r\n".to_owned(), bad),
        ("\n0\r\n\r\n".to_owned(), bad),
        // The trailers are valid, but the server cannot know whether a proxy agrees on their end.
        ("\r\n0\r\nx: y\r\n\r\n".to_owned(), Final(204)),
        ("\r\n0\r\nContent-Length: 5\r\n\r\n".to_owned(), Final(204)),
        ("\r\n0;name\n\r\n".to_owned(), bad),
        ("\r\n0\n\r\n".to_owned(), bad),
        ("\r\n0\n\n".to_owned(), bad),
        ("\r\n0\r\r\n\r\n".to_owned(), bad),
        ("\r\n0\r\n\rx".to_owned(), bad),
        ("\r\n0\r\nx: y\rz: a\r\n\r\n".to_owned(), bad),
        ("\r\n0\r\n: y\r\n\r\n".to_owned(), bad),
        ("\r\n0\r\nx y\r\n\r\n".to_owned(), bad),
        (format!("\r\n0\r\nx: {megabyte}\r\n\r\n"), bad),
        (format!("\r\n0\r\n{}\r\n", "x: y\r\n".repeat(10_000)), bad),
    ] {
        let sent = target.put(CHUNKED, &format!("{length:x}\r\n{DOCUMENT}{end}"));
        target.check(end.get(..20).unwrap_or(&end), &sent, expected);
    }
}

#[test]
fn header_line_variants_get_the_expected_response() {
    let target = Target::new();
    let megabyte = "x".repeat(MIB);
    // Together with Host, Authorization and Content-Length, these are 100 header lines, which is
    // the maximum.
    let max_lines = "x: y\r\n".repeat(96) + "x: y";
    for (line, expected) in [
        (max_lines.clone(), Continues(204)),
        (format!("{max_lines}\r\nx: y"), Refused(431)),
        ("x: y\r\n".repeat(9_999) + "x: y", Refused(431)),
        (format!("x: {megabyte}"), Refused(431)),
        (format!("{megabyte}: y"), Refused(431)),
        ("x: a\r\n folded".to_owned(), Refused(400)),
        (" x: y".to_owned(), Refused(400)),
        ("x: a\rContent-Length: 0".to_owned(), Refused(400)),
        ("x: a\0b".to_owned(), Refused(400)),
        ("x\0: y".to_owned(), Refused(400)),
        ("x : y".to_owned(), Refused(400)),
        (": y".to_owned(), Refused(400)),
        ("x".to_owned(), Refused(400)),
    ] {
        let shown = line.get(..40).unwrap_or(&line);
        target.check(shown, &target.put_with_header(&line), expected);
    }
    // RFC 9112 section 2.2 allows a server to accept LF as the end of a line.
    let sent = String::from_utf8(target.put_with_header("x: y")).unwrap();
    target.check(
        "bare LF",
        sent.replace("\r\n", "\n").as_bytes(),
        Continues(204),
    );
}

#[test]
fn request_line_variants_get_the_expected_response() {
    let target = Target::new();
    let megabyte = "x".repeat(MIB);
    let of = |line: &str| format!("{line}\r\nHost: x\r\n\r\n");
    for (sent, expected) in [
        (of(&format!("GET /{megabyte} HTTP/1.1")), Refused(431)),
        (format!("GET /{megabyte}"), Refused(431)),
        (
            of(&format!("GET /{} HTTP/1.1", &megabyte[..65_535])),
            Refused(414),
        ),
        (of(&format!("{megabyte} / HTTP/1.1")), Refused(431)),
        ("\r\n".repeat(MIB / 2), Refused(431)),
        (of("GET /\0 HTTP/1.1"), Refused(400)),
        (of("GET / / HTTP/1.1"), Refused(400)),
        (of("GET  / HTTP/1.1"), Refused(400)),
        (of("GET / HTTP/1.2"), Refused(400)),
        (of("GET /"), Refused(400)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), NoResponse),
        (
            "\x16\x03\x01\x02\0\x01\0\x01\0\x03\x03".to_owned(),
            Refused(400),
        ),
        // These requests are refused, but their end is unambiguous, so the DELETE is executed.
        (of("\r\n\r\nGET / HTTP/1.1"), Continues(404)),
        (of("GET x:80 HTTP/1.1"), Continues(404)),
        (of("OPTIONS * HTTP/1.1"), Continues(404)),
        (of("CONNECT x:80 HTTP/1.1"), Continues(404)),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), Continues(400)),
    ] {
        target.check(sent.get(..40).unwrap_or(&sent), sent.as_bytes(), expected);
    }
    // RFC 9112 section 3.2.2: a server must accept a request target in absolute form.
    let absolute = Request::of("GET", "xyz", &target.token).head();
    let absolute = String::from_utf8(absolute).unwrap();
    let absolute = absolute.replacen("GET /", "GET http://elsewhere.test/", 1);
    target.check("absolute form", absolute.as_bytes(), Continues(200));
}

/// Ends of a chunked body at which another HTTP parser sees the end of the body, because it accepts
/// a bare LF in the trailer section, but hyper continues to read trailers.
const BARE_LF_ENDS: [&str; 7] = [
    "0\r\n\n",
    "0\r\n\n\n",
    "000;name\r\n\n",
    "0\r\nx: y\n\n",
    "0\r\nx: y\n\r\n",
    "0\r\nx: y\r\n\n",
    "0\r\nx: y\nz: a\r\n\n",
];

/// Sends a request whose chunked body ends with `end`. A DELETE follows, and the body of the DELETE
/// contains two copies of `hidden`. Returns the responses.
fn smuggle(mut connection: Client, request: &[u8], end: &str, hidden: &[u8]) -> Vec<Response> {
    let hidden = hidden.repeat(2);
    let length = hidden.len();
    let victim = format!("DELETE /x HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let sent = [request, end.as_bytes(), victim.as_bytes(), &hidden].concat();
    // The server may refuse the request and close the connection before all bytes are sent.
    let _ = connection.send(&sent);
    connection.end_sending();
    read_responses(&mut connection)
}

fn assert_only_response(responses: &[Response], context: &str) {
    let [response] = responses else {
        panic!("{context}: expected one response, got {responses:?}");
    };
    assert_eq!(response.header("connection"), Some("close"), "{context}");
}

/// hyper reads the head of the DELETE as trailers, and would then execute the body of the DELETE as
/// two requests.
#[test]
fn bare_lf_after_the_last_chunk_ends_the_connection() {
    let target = Target::new();
    let hidden = Request::of("GET", "xyz", &target.token).head();
    let length = DOCUMENT.len();
    let put = String::from_utf8(target.put(CHUNKED, "")).unwrap();
    let chunk = format!("{length:x}\r\n{DOCUMENT}\r\n");
    for end in BARE_LF_ENDS {
        for (name, head) in [
            ("accepted", put.clone()),
            ("refused token", put.replacen("Bearer ", "Bearer x", 1)),
            (
                "failed condition",
                put.replacen(CHUNKED, &format!("{CHUNKED}If-Match: \"0\"\r\n"), 1),
            ),
            ("unknown path", put.replacen("2025-1", "1066-1", 1)),
            ("unread body of a GET", put.replacen("PUT", "GET", 1)),
            ("unread body of a DELETE", put.replacen("PUT", "DELETE", 1)),
            (
                "unread body of a health check",
                put.replacen("PUT /user/2025-1/preferences/xyz", "GET /livez", 1),
            ),
            (
                "100 Continue",
                put.replacen(CHUNKED, &format!("{CHUNKED}Expect: 100-continue\r\n"), 1),
            ),
        ] {
            for chunks in ["", &chunk, "2\r\n{}\r\n", "2\r\n{}\r\n1\r\n \r\n"] {
                let context = format!("{name}: {chunks:?}{end:?}");
                let request = format!("{head}{chunks}");
                let connection = target.server.connect();
                let mut responses = smuggle(connection, request.as_bytes(), end, &hidden);
                responses.retain(|response| response.status != 100);
                assert_only_response(&responses, &context);
            }
        }
    }
}

#[test]
fn bare_lf_after_the_last_chunk_ends_an_admin_connection() {
    let (server, _dir) = fresh(&["--admin-listen", "127.0.0.1:0", "--head-timeout", "10m"]);
    let hidden = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let line = json!({"user": "bob", "client": "c", "document": {}}).to_string();
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    for end in BARE_LF_ENDS {
        for head in [
            "POST /documents",
            "GET /documents",
            "GET /metrics",
            "GET /livez",
            "DELETE /users/bob",
            "GET /nowhere",
        ] {
            for chunks in ["", &chunk] {
                let request =
                    format!("{head} HTTP/1.1\r\nHost: localhost\r\n{CHUNKED}\r\n{chunks}");
                let mut connection = server.connect_admin();
                let hidden = hidden.repeat(2);
                let victim = format!(
                    "DELETE /users/carol HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n",
                    hidden.len()
                );
                let sent = [
                    request.as_bytes(),
                    end.as_bytes(),
                    victim.as_bytes(),
                    &hidden,
                ]
                .concat();
                let _ = connection.send(&sent);
                connection.end_sending();
                let received = connection.read_to_end().unwrap();
                let received = String::from_utf8(received).unwrap();
                let context = format!("{head}: {chunks:?}{end:?}: {received}");
                // The responses to `GET /documents` and `GET /metrics` are chunked.
                assert_eq!(received.matches("HTTP/1.1 ").count(), 1, "{context}");
                assert!(received.contains("\r\nconnection: close\r\n"), "{context}");
            }
        }
    }
}

/// Regression test. The admin listener accepted transfer codings that it does not decode.
#[test]
fn admin_listener_judges_heads_as_the_api_does() {
    let (server, _dir) = fresh(&["--admin-listen", "127.0.0.1:0", "--head-timeout", "10m"]);
    let send = |mut connection: Client, request: &str| {
        let _ = connection.send(request.as_bytes());
        connection.end_sending();
        let responses = read_responses(&mut connection);
        let outcomes = responses.iter().map(|response| {
            let closes = response.header("connection") == Some("close");
            (response.status, closes)
        });
        outcomes.collect::<Vec<_>>()
    };
    let megabyte = "x".repeat(MIB);
    for (lines, body, status) in [
        ("Content-Length: 2", "{}", 200),
        ("Content-Length: 2\r\nContent-Length: 2", "{}", 200),
        ("Content-Length: 2\r\nContent-Length: 0", "{}", 400),
        ("Content-Length: 2, 2", "{}", 400),
        ("Content-Length: +2", "{}", 400),
        ("Content-Length: -1", "", 400),
        ("Content-Length:", "", 400),
        ("Content-Length: 18446744073709551616", "", 400),
        ("Content-Length: 999999999", "", 200),
        ("Transfer-Encoding: chunked", "0\r\n\r\n", 200),
        ("Transfer-Encoding: identity", "", 400),
        ("Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n", 400),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n",
            400,
        ),
        ("Host: y", "", 400),
        ("x\0: y", "", 400),
        (&format!("x: {megabyte}"), "", 431),
        (&("x: y\r\n".repeat(200) + "x: y"), "", 431),
    ] {
        let shown = lines.get(..60).unwrap_or(lines);
        let head =
            |line: &str| format!("{line} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n{body}");
        let api = send(server.connect(), &head("GET /livez"));
        let admin = send(server.connect_admin(), &head("GET /livez"));
        assert_eq!(
            api.first().map(|(status, _)| *status),
            Some(status),
            "{shown}"
        );
        assert_eq!(admin, api, "{shown}");
    }
    // The requests that change documents are refused too.
    let token = token::of("bob", "xyz");
    put(&mut server.connect(), "xyz", &token, DOCUMENT);
    let line = json!({"user": "bob", "client": "xyz", "document": {}}).to_string();
    let chunks = format!("{:x}\r\n{line}\r\n0\r\n\r\n", line.len());
    for line in ["DELETE /users/bob", "POST /documents"] {
        for codings in ["gzip, chunked", "chunked, chunked", "identity, chunked"] {
            let head = format!(
                "{line} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: {codings}\r\n\r\n"
            );
            let outcome = send(server.connect_admin(), &format!("{head}{chunks}"));
            assert_eq!(outcome, [(400, true)], "{line}: {codings}");
            assert_eq!(get(&mut server.connect(), "xyz", &token), DOCUMENT);
        }
    }
}

#[test]
fn invalid_host_is_400_on_both_listeners() {
    let admin = ["--admin-listen", "127.0.0.1:0"];
    let (server, _dir) = fresh(&admin);
    for host in [
        "a b",
        "a/b",
        "u@a",
        "u:p@a",
        "[::1",
        "::1",
        "[::1]x",
        "[zz]",
        "a:b",
        "a:1:2",
        "a, b",
        "%zz",
        "a\"b",
        "caf\u{e9}",
    ] {
        // A comma is valid in a host name, but a space is not.
        for path in ["/livez", "/nowhere"] {
            for mut connection in [server.connect(), server.connect_admin()] {
                let response = connection.request(&Request::to(host, "GET", path));
                ExpectedError::code("invalid-request")
                    .source(json!({"header": "Host"}))
                    .check(&response, host);
            }
        }
    }
    for mut connection in [server.connect(), server.connect_admin()] {
        for lines in ["", "Host: localhost\r\nHost: localhost\r\n"] {
            let head = format!("GET /livez HTTP/1.1\r\n{lines}\r\n");
            connection.send(head.as_bytes()).unwrap();
            let response = connection.read_response(false).unwrap();
            ExpectedError::code("invalid-request")
                .source(json!({"header": "Host"}))
                .check(&response, lines);
        }
        for target in [
            "http://u@localhost/livez",
            "http://u:p@localhost/livez",
            "http://:80/livez",
            "http://[zz]/livez",
        ] {
            let response = connection.request(&Request::to("localhost", "GET", target));
            assert_eq!(response.status, 400, "{target}: {response:?}");
        }
    }
}

#[test]
fn valid_host_of_any_form_is_accepted() {
    let (server, _dir) = fresh(&[]);
    let mut connection = server.connect();
    for host in [
        "",
        "a",
        "a.example:80",
        "a:",
        "192.0.2.1:8080",
        "[::1]",
        "[2001:db8::1]:80",
        "my_service",
        "caf%C3%A9",
        "a,b",
    ] {
        let response = connection.request(&Request::to(host, "GET", "/livez"));
        assert_eq!(response.status, 200, "{host}");
    }
    let response = connection.request(&Request::to("a", "GET", "http://[::1]:80/livez"));
    assert_eq!(response.status, 200);
}

#[test]
fn request_hidden_in_a_refused_body_is_not_executed() {
    let target = Target::new();
    let hidden = Request::of("DELETE", "xyz", &target.token).head();
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
        let sent = String::from_utf8(target.put(&line, &body)).unwrap();
        for (name, sent, expected) in [
            ("token", sent.replacen("Bearer ", "Bearer x", 1), Final(401)),
            (
                "scope",
                sent.replacen("preferences/xyz", "preferences/other", 1),
                Final(403),
            ),
            ("route", sent.replacen("2025-1", "1066-1", 1), Final(404)),
            ("method", sent.replacen("PUT", "POST", 1), Final(405)),
            (
                "type",
                sent.replacen("\r\n", "\r\nContent-Type: text/plain\r\n", 1),
                Final(415),
            ),
            ("host", sent.replacen("Host", "Hos", 1), Final(400)),
        ] {
            target.check(&format!("{name}, {line}"), sent.as_bytes(), expected);
        }
        // The body is not a valid document. With Content-Length, its end is known, so the DELETE is
        // executed. With chunks, the server does not wait for the last chunk and closes the
        // connection. The server ignores the body of a GET.
        let reaction = if line == CHUNKED { Final } else { Continues };
        target.check(&line, sent.as_bytes(), reaction(400));
        let get = sent.replacen("PUT", "GET", 1);
        target.check(&line, get.as_bytes(), reaction(200));
    }
    assert!(!target.server.has_logged("panicked"));
}
