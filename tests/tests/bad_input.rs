//! Bodies that are not valid documents: the error names the reason and the position, and the
//! stored document stays unchanged.

mod common;

use common::{Kept, fresh};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Request, chunked};
use prefd_tests::token;
use serde_json::{Value, json};

#[test]
fn invalid_json_is_refused_with_the_offset_of_the_error() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let deep =
        |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
    for (body, offset) in [
        (b"".to_vec(), 0),
        (b"   ".to_vec(), 3),
        (b"{".to_vec(), 1),
        (b"{\"a\":1".to_vec(), 6),
        (b"{\"a\":1,}".to_vec(), 7),
        (b"{\"a\":1}x".to_vec(), 7),
        (b"{\"a\":1}{}".to_vec(), 7),
        (b"{a:1}".to_vec(), 1),
        (b"{'a':1}".to_vec(), 1),
        (b"{\"a\":01}".to_vec(), 6),
        (b"{\"a\":NaN}".to_vec(), 5),
        (b"{\"a\":truE}".to_vec(), 8),
        (b"{\"a\":\"\xff\"}".to_vec(), 6),
        (b"{\"a\":\"x\xc3\"}".to_vec(), 7),
        (b"{\"\xc3\x28\":1}".to_vec(), 2),
        (b"{\"a\":\"\x00\"}".to_vec(), 6),
        (b"{\"a\x00\":1}".to_vec(), 3),
        (b"{\"a\":1}\x00".to_vec(), 7),
        (b"\xef\xbb\xbf{}".to_vec(), 0),
        (b"{\"\\ud800\":1}".to_vec(), 8),
        (b"{\"\\ud800\\u0041\":1}".to_vec(), 13),
        (b"{\"\\udc00x\":1}".to_vec(), 7),
        (deep(129), 133),
        (deep(100_000), 133),
        (
            [b"{\"a\":".to_vec(), b"{\"k\":".repeat(100_000)].concat(),
            5 + 5 * 128,
        ),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let response = kept.refuses_body(&body, &ExpectedError::code("invalid-json"), &shown);
        let error: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(
            error["errors"][0]["meta"]["offset"], offset,
            "{shown}: {error}"
        );
    }
    kept.accepts_body(&deep(128), &deep(128), "128 levels");
}

#[test]
fn invalid_json_error_has_offset_line_and_column() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let expected =
        ExpectedError::code("invalid-json").meta(json!({"offset": 17, "line": 3, "column": 9}));
    kept.refuses_body(
        b"{\n\"a\":1,\n \"b\":[1,]\n}",
        &expected,
        "a trailing comma",
    );
}

#[test]
fn json_that_is_not_an_object_is_refused() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let expected = ExpectedError::code("invalid-document").source(json!({"pointer": ""}));
    for body in [
        "[]", "[{}]", "\"text\"", "1", "-1", "true", "false", "null", "  []",
    ] {
        kept.refuses_body(body.as_bytes(), &expected, body);
    }
}

#[test]
fn duplicate_top_level_key_is_refused_in_every_escaping() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for (body, pointer) in [
        ("{\"a\":1,\"a\":1}", "/a"),
        ("{\"a\":1,\"\\u0061\":2}", "/a"),
        ("{\"é\":1,\"\\u00e9\":2}", "/é"),
        ("{\"\\ud83d\\ude00\":1,\"😀\":2}", "/😀"),
        ("{\"a/b~\":1,\"c\":2,\"a\\/b~\":3}", "/a~1b~0"),
        ("{\"\":1,\"\":2}", "/"),
    ] {
        let expected = ExpectedError::code("duplicate-key").source(json!({ "pointer": pointer }));
        kept.refuses_body(body.as_bytes(), &expected, body);
    }
    let nested = b"{\"a\":{\"b\":1,\"b\":2},\"b\":[{\"a\":1,\"a\":1}]}";
    kept.accepts_body(nested, nested, "duplicate keys below the top level");
}

#[test]
fn unusual_but_valid_json_is_stored_unchanged() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let long = format!("{{\"n\":{}}}", "9".repeat(10_000));
    let exponent = format!("{{\"n\":-0.{}e-{}}}", "3".repeat(10_000), "9".repeat(100));
    for body in [
        long.as_str(),
        exponent.as_str(),
        "{\"\":0}",
        "{\"\\u0000\":0}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":1e999999}",
        "{\"a\":\"\\u2028\u{2028}\u{7f}\"}",
    ] {
        kept.accepts_body(
            body.as_bytes(),
            body.as_bytes(),
            &body[..body.len().min(30)],
        );
    }
}

#[test]
fn incomplete_body_changes_nothing() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let request = Request::of("PUT", "xyz", &token);
    let short = request.clone().header("Content-Length", "100").head();
    let chunks = request.header("Transfer-Encoding", "chunked").head();
    let framed = chunked(b"{\"a\":1}", 3);
    for bytes in [
        [short.clone(), b"{\"a\":1}".to_vec()].concat(),
        short,
        [chunks.clone(), framed[..framed.len() - 5].to_vec()].concat(),
        [chunks.clone(), framed[..10].to_vec()].concat(),
        chunks.clone(),
    ] {
        let mut connection = server.connect();
        connection.send(&bytes).unwrap();
        connection.end_sending();
        let response = connection.read_response(false).unwrap();
        ExpectedError::code("invalid-request").check(&response, "the client ended its side");
        kept.check("the client ended its side");
        // The client closes the connection instead of only its sending side.
        let mut connection = server.connect();
        connection.send(&bytes).unwrap();
        drop(connection);
        kept.check("the client closed the connection");
    }
    let invalid_size = [chunks, b"zz\r\n{}\r\n0\r\n\r\n".to_vec()].concat();
    kept.refuses_bytes(
        &invalid_size,
        &ExpectedError::code("invalid-request"),
        "an invalid chunk size",
    );
}
