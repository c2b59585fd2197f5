//! Generates the bytes that a client sends on a connection, and offsets at which to split them.
//!
//! The bytes are several nearly valid requests in a row, with different body framings. Sometimes
//! they contain an error.

use arbitrary::Unstructured;
use prefd_engine::Limits;

use crate::oracle::{Choices, document_generator};

/// The clients whose namespaces the token may access.
pub(crate) const CLIENTS: [&str; 2] = ["own", "foreign"];
/// Maximum number of requests on a connection.
const REQUESTS: usize = 4;

/// The bytes that a client sends on a connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionScript {
    pub(crate) bytes: Vec<u8>,
    /// Offsets at which the bytes are split, in ascending order.
    pub(crate) cuts: Vec<usize>,
    /// The requests in the bytes. `None` if the framing may be invalid.
    pub(crate) requests: Option<Vec<FramedRequest>>,
    /// True if the client does not shut down its sending side.
    pub(crate) stays_open: bool,
}

/// A correctly framed request.
#[derive(Debug, Clone)]
pub(crate) struct FramedRequest {
    pub(crate) method: &'static str,
    /// Index into [`CLIENTS`].
    pub(crate) client: usize,
    /// True if the server may execute the request.
    pub(crate) is_allowed: bool,
    /// True if the request is allowed, and can be refused only because of its document.
    pub(crate) is_plain: bool,
    /// True if the end of the body is uncertain, so that the server must not execute another
    /// request on the connection.
    pub(crate) is_last: bool,
    pub(crate) body: Vec<u8>,
}

impl ConnectionScript {
    /// Sends the given bytes, split after every second byte.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            cuts: (0..bytes.len()).step_by(2).collect(),
            requests: None,
            stays_open: bytes.len() % 2 == 1,
        }
    }

    pub(crate) fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.bytes))
    }
}

/// Generates the bytes of a connection.
pub(crate) fn script(
    choices: &mut Unstructured<'_>,
    limits: &Limits,
    token: &str,
) -> ConnectionScript {
    let (mut bytes, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..=choices.upto(REQUESTS - 1) {
        let (request, meant) = request(choices, limits, token);
        bytes.extend(request);
        requests.push(meant);
    }
    let is_wrong = choices.rarely(4);
    if is_wrong {
        damage(choices, &mut bytes);
    }
    ConnectionScript {
        cuts: document_generator::cuts(choices, bytes.len()),
        bytes,
        requests: (!is_wrong).then_some(requests),
        stays_open: choices.rarely(4),
    }
}

fn request(
    choices: &mut Unstructured<'_>,
    limits: &Limits,
    token: &str,
) -> (Vec<u8>, FramedRequest) {
    let methods = ["PUT", "PUT", "GET", "PUT", "DELETE", "HEAD", "POST", "put"];
    let method = *choices.one(&methods);
    let (target, client) = *choices.one(&[
        ("/user/2025-1/preferences/own", Some(0)),
        ("/user/2025-1/preferences/own", Some(0)),
        ("/user/2024-2/preferences/own?x=%zz", Some(0)),
        ("/user/2025-1/preferences/%6fw%6E", Some(0)),
        ("/user/2025-1/preferences/foreign", Some(1)),
        ("/user/2025-1/preferences/stranger", None),
        ("/user/2025-1/preferences/a%00b", None),
        ("/user/2025-1/preferences/%zz", None),
        ("/user/2023-1/preferences/own", None),
        ("*", None),
    ]);
    let (authorization, is_known) = match choices.upto(9) {
        0 => (String::new(), false),
        1 => ("Authorization: Bearer x.y.z\r\n".to_owned(), false),
        2 => (format!("Authorization: Basic {token}\r\n"), false),
        3 => (
            format!("Authorization: Bearer {token}\r\n").repeat(2),
            false,
        ),
        4 => (format!("AUTHORIZATION:bearer   {token} \r\n"), true),
        _ => (format!("Authorization: Bearer {token}\r\n"), true),
    };
    let (host, is_hosted) = *choices.one(&[
        ("Host: prefd.test\r\n", true),
        ("Host: prefd.test\r\n", true),
        ("host:\r\n", true),
        ("", false),
        ("Host: a\r\nHost: b\r\n", false),
        ("Host: [::1]:80\r\n", true),
        ("Host: u@a\r\n", false),
        ("Host: a b\r\n", false),
    ]);
    let has_body = method == "PUT" || choices.rarely(6);
    let body = if has_body {
        document_generator::body(choices, limits)
    } else {
        Vec::new()
    };
    let (extra, is_ordinary) = extra_headers(choices);
    let mut request =
        format!("{method} {target} HTTP/1.1\r\n{host}{authorization}{extra}").into_bytes();
    let framing = if has_body {
        frame(choices, &mut request, &body)
    } else {
        request.extend_from_slice(b"\r\n");
        Framing::CERTAIN
    };
    let is_operation = ["PUT", "GET", "DELETE", "HEAD"].contains(&method);
    let is_allowed = is_operation && client.is_some() && is_known && is_hosted;
    let framed = FramedRequest {
        method,
        client: client.unwrap_or_default(),
        is_allowed,
        is_plain: is_allowed && is_ordinary && (method == "PUT" || !has_body) && framing.is_valid,
        // The server reads the body of a PUT only.
        is_last: !framing.is_end_certain || (framing.is_chunked && method != "PUT"),
        body,
    };
    (request, framed)
}

/// Chooses additional headers. Returns them, and true if they do not affect the outcome.
fn extra_headers(choices: &mut Unstructured<'_>) -> (&'static str, bool) {
    *choices.one(&[
        ("", true),
        ("", true),
        ("", true),
        ("Content-Type: application/json\r\n", true),
        (
            "Content-Type: application/merge-patch+json; charset=utf-8\r\n",
            true,
        ),
        ("Expect: 100-continue\r\n", true),
        ("Accept: image/png\r\nX-Other: é\x7f\r\n", false),
        ("Content-Type: text/plain\r\n", false),
        ("Content-Encoding: gzip\r\n", false),
        ("Content-Range: bytes 0-1/2\r\n", false),
        ("If-Match: *\r\n", false),
        ("If-None-Match: *\r\n", false),
        ("If-None-Match: \"1\", W/\"2\"\r\n", false),
        ("If-Match: 1\r\n", false),
        (
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            false,
        ),
        ("If-Modified-Since: yesterday\r\n", false),
        ("Connection: close\r\n", true),
        ("Connection: upgrade\r\nUpgrade: h2c\r\n", false),
    ])
}

/// How a body is framed.
struct Framing {
    is_chunked: bool,
    /// True if every HTTP implementation sees the same end.
    is_end_certain: bool,
    /// True if the framing follows RFC 9112.
    is_valid: bool,
}

impl Framing {
    const CERTAIN: Self = Self {
        is_chunked: false,
        is_end_certain: true,
        is_valid: true,
    };
}

/// Appends the end of the head and the body, either with Content-Length or chunked.
fn frame(choices: &mut Unstructured<'_>, request: &mut Vec<u8>, body: &[u8]) -> Framing {
    if choices.upto(2) > 0 {
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        return Framing::CERTAIN;
    }
    request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, remaining) = rest.split_at(rest.len().min(choices.upto(40) + 1));
        let extension = choices.one(&["", "", ";a=b", " "]);
        request.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
        rest = remaining;
    }
    let (end, is_end_certain, is_valid) = *choices.one(&[
        ("0\r\n\r\n", true, true),
        ("000\r\n\r\n", true, true),
        ("0\r\nTrailer: x\r\n\r\n", false, true),
        ("0\r\n\n", false, false),
        ("0\r\nx: y\n\n", false, false),
    ]);
    request.extend_from_slice(end.as_bytes());
    Framing {
        is_chunked: true,
        is_end_certain,
        is_valid,
    }
}

/// Makes one random change to the bytes.
fn damage(choices: &mut Unstructured<'_>, bytes: &mut Vec<u8>) {
    let at = choices.upto(bytes.len() - 1);
    match choices.upto(4) {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, choices.some_bytes(8))),
        2 => bytes[at] ^= 1 << choices.upto(7),
        3 => {
            let line = *choices.one(&[
                "Content-Length: 5\r\n",
                "Content-Length: 99999999999999999999\r\n",
                "Content-Length: -1\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Transfer-Encoding: gzip, chunked\r\n",
                " folded\r\n",
                ": \r\n",
                "\r\n",
                "ffffffffffffffff\r\n",
            ]);
            // The header line is inserted at the start of a line.
            let line_at = bytes[at..].iter().position(|byte| *byte == b'\n');
            let line_at = line_at.map_or(bytes.len(), |newline| at + newline + 1);
            drop(bytes.splice(line_at..line_at, line.bytes()));
        }
        _ => drop(bytes.drain(at..(at + choices.upto(30)).min(bytes.len()))),
    }
}
