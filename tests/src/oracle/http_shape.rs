//! What a client may send: requests that are nearly right, one behind the other, in
//! every framing, now and then with something wrong in the middle; and how it is cut.

use arbitrary::Unstructured;
use prefd_engine::Limits;

use crate::oracle::{Choices, document_shape};

/// The clients whose namespaces the token opens.
pub(crate) const CLIENTS: [&str; 2] = ["own", "foreign"];
/// Requests of one connection, at most.
const REQUESTS: usize = 4;

/// What is sent on one connection.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) bytes: Vec<u8>,
    /// Where it is cut, in order.
    pub(crate) cuts: Vec<usize>,
    /// What is asked, where the framing is right.
    pub(crate) asked: Option<Vec<Asked>>,
    /// The client does not end its side.
    pub(crate) stays: bool,
}

/// A request that is framed correctly.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: &'static str,
    /// Index into [`CLIENTS`].
    pub(crate) client: usize,
    /// It may be carried out.
    pub(crate) is_allowed: bool,
    /// It is allowed, and nothing but the document can be a reason to refuse it.
    pub(crate) is_plain: bool,
    pub(crate) body: Vec<u8>,
}

impl Script {
    /// These very bytes, cut at every other place.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            cuts: (0..bytes.len()).step_by(2).collect(),
            asked: None,
            stays: bytes.len() % 2 == 1,
        }
    }

    pub(crate) fn shown(&self) -> String {
        format!("{:?}", String::from_utf8_lossy(&self.bytes))
    }
}

/// A connection, made of the choices.
pub(crate) fn script(choices: &mut Unstructured<'_>, limits: &Limits, token: &str) -> Script {
    let (mut bytes, mut asked) = (Vec::new(), Vec::new());
    for _ in 0..=choices.upto(REQUESTS - 1) {
        let (request, meant) = request(choices, limits, token);
        bytes.extend(request);
        asked.push(meant);
    }
    let is_wrong = choices.rarely(4);
    if is_wrong {
        damage(choices, &mut bytes);
    }
    Script {
        cuts: document_shape::cuts(choices, bytes.len()),
        bytes,
        asked: (!is_wrong).then_some(asked),
        stays: choices.rarely(4),
    }
}

fn request(choices: &mut Unstructured<'_>, limits: &Limits, token: &str) -> (Vec<u8>, Asked) {
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
    ]);
    let has_body = method == "PUT" || choices.rarely(6);
    let body = if has_body {
        document_shape::body(choices, limits)
    } else {
        Vec::new()
    };
    let (extra, is_ordinary) = extra(choices);
    let mut request =
        format!("{method} {target} HTTP/1.1\r\n{host}{authorization}{extra}").into_bytes();
    if has_body {
        frame(choices, &mut request, &body);
    } else {
        request.extend_from_slice(b"\r\n");
    }
    let is_operation = ["PUT", "GET", "DELETE", "HEAD"].contains(&method);
    let is_allowed = is_operation && client.is_some() && is_known && is_hosted;
    let asked = Asked {
        method,
        client: client.unwrap_or_default(),
        is_allowed,
        is_plain: is_allowed && is_ordinary && (method == "PUT" || !has_body),
        body,
    };
    (request, asked)
}

/// Other headers, and whether they change nothing.
fn extra(choices: &mut Unstructured<'_>) -> (&'static str, bool) {
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

/// The rest of the head, and the body in one framing or another.
fn frame(choices: &mut Unstructured<'_>, request: &mut Vec<u8>, body: &[u8]) {
    if choices.upto(2) > 0 {
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        return;
    }
    request.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at(rest.len().min(choices.upto(40) + 1));
        let extension = choices.one(&["", "", ";a=b", " "]);
        request.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
        rest = behind;
    }
    request.extend_from_slice(
        choices
            .one(&["0\r\n\r\n", "000\r\n\r\n", "0\r\nTrailer: x\r\n\r\n"])
            .as_bytes(),
    );
}

/// Something wrong, anywhere.
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
            // At the beginning of a line.
            let line_at = bytes[at..].iter().position(|byte| *byte == b'\n');
            let line_at = line_at.map_or(bytes.len(), |behind| at + behind + 1);
            drop(bytes.splice(line_at..line_at, line.bytes()));
        }
        _ => drop(bytes.drain(at..(at + choices.upto(30)).min(bytes.len()))),
    }
}
