//! Limits over HTTP: a document exactly at a limit is accepted. A document one byte or key
//! above the limit is refused, and the stored document stays unchanged.

mod common;

use common::{Kept, fresh};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Request, chunked};
use prefd_tests::token;
use serde_json::json;

const VALUE_LIMIT: usize = 10_485_760;

fn members(count: usize) -> String {
    let members: Vec<String> = (0..count).map(|i| format!("\"k{i}\":{i}")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn ten_keys_are_accepted_and_eleven_are_refused() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    kept.accepts_body(members(10).as_bytes(), members(10).as_bytes(), "10 keys");
    let expected = ExpectedError::code("max-keys-exceeded")
        .source(json!({"pointer": ""}))
        .meta(json!({"limit": 10, "actual": 11}));
    kept.refuses_body(members(11).as_bytes(), &expected, "11 keys");
    kept.refuses_body(members(500).as_bytes(), &expected, "500 keys");
}

#[test]
fn key_limit_is_128_bytes_of_utf8_in_every_encoding() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for (exact, over, actual) in [
        ("k".repeat(128), "k".repeat(129), 129),
        ("é".repeat(64), format!("x{}", "é".repeat(64)), 129),
        ("😀".repeat(32), "😀".repeat(33), 129),
        ("\\u0061".repeat(128), "\\u0061".repeat(129), 129),
        (
            "\\ud83d\\ude00".repeat(32),
            "\\ud83d\\ude00".repeat(33),
            132,
        ),
    ] {
        let body = format!("{{\"{exact}\":1}}");
        kept.accepts_body(body.as_bytes(), body.as_bytes(), &exact);
        let body = format!("{{\"{over}\":1}}");
        let expected = ExpectedError::code("max-key-length-exceeded")
            .meta(json!({"limit": 128, "actual": actual}));
        kept.refuses_body(body.as_bytes(), &expected, &over);
    }
}

#[test]
fn value_limit_is_10_mib_for_every_type() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let value = |kind: &str, bytes: usize| match kind {
        "string" => format!("\"{}\"", "s".repeat(bytes - 2)),
        "multi-byte string" => format!(
            "\"{}{}\"",
            "é".repeat((bytes - 2) / 2),
            "x".repeat(bytes % 2)
        ),
        "number" => format!("-1.{}", "5".repeat(bytes - 3)),
        "array" => format!("[{}true]", "\n".repeat(bytes - 6)),
        "object" => format!("{{\"k\": \"{}\"}}", "o".repeat(bytes - 9)),
        other => panic!("{other}"),
    };
    for kind in ["string", "multi-byte string", "number", "array", "object"] {
        let body = |bytes| {
            format!(
                "{{\"first\":null,\"é/~\":{},\"last\":false}}",
                value(kind, bytes)
            )
        };
        let exact = body(VALUE_LIMIT);
        kept.accepts_body(exact.as_bytes(), exact.as_bytes(), kind);
        let expected = ExpectedError::code("max-value-length-exceeded")
            .source(json!({"pointer": "/é~1~0"}))
            .meta(json!({"limit": VALUE_LIMIT, "actual": VALUE_LIMIT + 1}));
        kept.refuses_body(body(VALUE_LIMIT + 1).as_bytes(), &expected, kind);
    }
    // Values of these types are always far shorter than the limit.
    kept.accepts_body(
        b"{\"a\":true,\"b\":false,\"c\":null}",
        b"{\"a\":true,\"b\":false,\"c\":null}",
        "literals",
    );
}

#[test]
fn body_limit_counts_every_byte_received() {
    let (server, _dir) = fresh(&["--max-body-bytes", "100"]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let body = |bytes: usize| format!("{{\"a\":1}}{}", " ".repeat(bytes - 7)).into_bytes();
    kept.accepts_body(&body(100), b"{\"a\":1}", "100 bytes");
    let expected = |actual| {
        ExpectedError::code("max-body-length-exceeded")
            .meta(json!({"limit": 100, "actual": actual}))
    };
    kept.refuses_body(&body(101), &expected(101), "101 bytes");
    kept.refuses_body(&body(5_000), &expected(5_000), "5000 bytes");
    let head = Request::of("PUT", "xyz", &token)
        .header("Transfer-Encoding", "chunked")
        .head();
    for size in [1, 10, 1_000] {
        let bytes = [head.clone(), chunked(&body(101), size)].concat();
        kept.refuses_bytes(&bytes, &expected(101), "101 bytes in chunks");
    }
}

#[test]
fn configured_limits_apply_to_every_chunk_size() {
    let (server, _dir) = fresh(&[
        "--max-keys",
        "2",
        "--max-key-bytes",
        "4",
        "--max-value-bytes",
        "6",
    ]);
    let token = token::of("alice", "xyz");
    let head = Request::of("PUT", "xyz", &token)
        .header("Transfer-Encoding", "chunked")
        .head();
    for (body, code) in [
        ("{\"abcd\":\"1234\",\"b\":[1, 2]}", None),
        ("{\"abcde\":1}", Some("max-key-length-exceeded")),
        ("{\"a\":\"12345\"}", Some("max-value-length-exceeded")),
        ("{\"a\":[1, 2, x]}", Some("max-value-length-exceeded")),
        ("{\"a\":[x, 2, 3]}", Some("invalid-json")),
        ("{\"a\":1,\"b\":2,\"c\":3}", Some("max-keys-exceeded")),
        ("{\"a\":1,\"a\":2}", Some("duplicate-key")),
    ] {
        for size in 1..=body.len() {
            let mut connection = server.connect();
            connection.send(&head).unwrap();
            let _ = connection.send(&chunked(body.as_bytes(), size));
            let response = connection.read_response(false).unwrap();
            let status = response.status;
            match code {
                None => assert_eq!(status, 204, "{body} in chunks of {size}"),
                Some(code) => assert!(
                    response.text().contains(&format!("\"code\":\"{code}\"")),
                    "{body} in chunks of {size}: {response:?}"
                ),
            }
        }
    }
    assert_eq!(
        common::get(&mut server.connect(), "xyz", &token),
        "{\"abcd\":\"1234\",\"b\":[1, 2]}"
    );
}
