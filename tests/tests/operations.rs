//! GET, HEAD, PUT and DELETE of documents.

mod common;

use common::{BINARY, fresh, get, put, target};
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token;

/// The example document of the PACE Cloud preferences API.
const EXAMPLE: &str = r#"{"some":"value","everything":[{"is":"up","to":123123,"the":["client"]}]}"#;

#[test]
fn api_example_is_returned_as_it_was_sent() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    for version in [
        "2025-1", "2024-4", "2024-3", "2024-2", "2024-1", "2021-2", "2020-4",
    ] {
        let url = format!("/user/{version}/preferences/xyz");
        let request = Request::new("PUT", &url).bearer(&token);
        let request = request
            .header("Content-Type", "application/json")
            .body(EXAMPLE);
        let put = client.request(&request);
        assert_eq!((put.status, put.body.len()), (204, 0));
        let got = client.request(&Request::new("GET", &url).bearer(&token));
        assert_eq!((got.status, got.text()), (200, EXAMPLE));
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!(got.header("etag"), put.header("etag"));
        assert!(got.header("last-modified").unwrap().ends_with(" GMT"));
        assert_eq!(got.header("request-id").unwrap().len(), 20);
    }
}

/// A shared cache must store no document, and a private cache must revalidate it, so that it gets a
/// 304. No cache may store another response that depends on a token.
#[test]
fn responses_that_depend_on_a_token_are_not_stored_in_shared_caches() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let of = |method| Request::of(method, "xyz", &token);
    let tag = put(&mut client, "xyz", &token, "{}");
    let unmatched = |method| of(method).header("If-Match", "\"0\"");
    for (request, status, expected) in [
        (of("GET"), 200, "private, no-cache"),
        (
            of("GET").header("If-None-Match", &tag),
            304,
            "private, no-cache",
        ),
        (
            of("HEAD").header("If-None-Match", "\"0\""),
            200,
            "private, no-cache",
        ),
        (unmatched("HEAD"), 412, "no-store"),
        (unmatched("GET"), 412, "no-store"),
        (of("PUT").body("{}"), 204, "no-store"),
        (of("PUT").body("{"), 400, "no-store"),
        (of("DELETE"), 204, "no-store"),
        (of("GET"), 200, "private, no-cache"),
        (of("POST"), 405, "no-store"),
        (Request::new("GET", &target("xyz")), 401, "no-store"),
        (Request::of("GET", "other", &token), 403, "no-store"),
        (Request::new("GET", "/nowhere"), 404, "no-store"),
    ] {
        let response = client.request(&request);
        assert_eq!(response.status, status, "{request:?}");
        let found = response.header("cache-control");
        assert_eq!(found, Some(expected), "{request:?}");
        if expected.starts_with("private") {
            assert_eq!(response.header("vary"), Some("Authorization"));
        }
    }
}

#[test]
fn unset_namespace_is_an_empty_document_without_etag() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let got = client.request(&Request::of("GET", "xyz", &token));
    assert_eq!((got.status, got.text()), (200, "{}"));
    assert_eq!(
        (got.header("etag"), got.header("last-modified")),
        (None, None)
    );
    put(&mut client, "xyz", &token, "{ }");
    let got = client.request(&Request::of("GET", "xyz", &token));
    assert_eq!(got.text(), "{}");
    assert!(got.header("etag").is_some());
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let (server, _dir) = fresh(&["--document-cache-bytes", "0"]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    for body in [
        "{}".to_owned(),
        EXAMPLE.to_owned(),
        format!("{{\"large\":\"{}\"}}", "x".repeat(400_000)),
    ] {
        put(&mut client, "xyz", &token, &body);
        let get = client.request(&Request::of("GET", "xyz", &token));
        let head = client.request(&Request::of("HEAD", "xyz", &token));
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in [
            "content-type",
            "content-length",
            "etag",
            "last-modified",
            "cache-control",
        ] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        assert_eq!(get.text(), body);
    }
    let absent = client.request(&Request::of("HEAD", "xyz", &token::of("bob", "xyz")));
    assert_eq!(
        (absent.status, absent.header("content-length")),
        (200, Some("2"))
    );
    assert_eq!(absent.header("etag"), None);
}

#[test]
fn delete_succeeds_with_and_without_a_stored_document() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    for _ in 0..2 {
        let deleted = client.request(&Request::of("DELETE", "xyz", &token));
        assert_eq!((deleted.status, deleted.body.len()), (204, 0));
        assert_eq!(deleted.header("etag"), None);
        let got = client.request(&Request::of("GET", "xyz", &token));
        assert_eq!((got.text(), got.header("etag")), ("{}", None));
        put(&mut client, "xyz", &token, EXAMPLE);
    }
}

#[test]
fn stored_text_is_unchanged_except_whitespace_between_members() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let sent = "\r\n{ \"b\" : 1.0e+2 ,\t\"\\u0061\":\"\\u00e9\\/\\ud83d\", \"deep\":{ \"z\" : 1,\n\"z\": 2 }, \"n\":-0.0 }\n";
    let kept = "{\"b\":1.0e+2,\"\\u0061\":\"\\u00e9\\/\\ud83d\",\"deep\":{ \"z\" : 1,\n\"z\": 2 },\"n\":-0.0}";
    put(&mut client, "xyz", &token, sent);
    assert_eq!(get(&mut client, "xyz", &token), kept);
}

#[test]
fn put_replaces_the_document_and_every_write_has_a_new_etag() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let first = put(&mut client, "xyz", &token, "{\"a\":1,\"b\":2}");
    let second = put(&mut client, "xyz", &token, "{\"c\":3}");
    let third = put(&mut client, "xyz", &token, "{\"c\":3}");
    assert!(first != second && second != third);
    assert_eq!(get(&mut client, "xyz", &token), "{\"c\":3}");
}

#[test]
fn documents_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let token = token::of("alice", "xyz");
    let launch = Launch::new(BINARY, dir.path());
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(1_000_000));
    let server = launch.start();
    let tag = put(&mut server.connect(), "xyz", &token, EXAMPLE);
    put(
        &mut server.connect(),
        "xyz",
        &token::of("bob", "xyz"),
        &large,
    );
    assert!(server.stop().success());
    let server = launch.start();
    let got = server.connect().request(&Request::of("GET", "xyz", &token));
    assert_eq!(
        (got.text(), got.header("etag")),
        (EXAMPLE, Some(tag.as_str()))
    );
    assert_eq!(
        get(&mut server.connect(), "xyz", &token::of("bob", "xyz")),
        large
    );
}

#[test]
fn queries_json_media_types_and_chunked_bodies_are_accepted() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut client = server.connect();
    let media = [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/vnd.api+json",
    ];
    for (index, media) in media.iter().enumerate() {
        let body = format!("{{\"n\":{index}}}");
        let request =
            Request::new("PUT", &format!("{}?access_token=x&y", target("xyz"))).bearer(&token);
        let request = request
            .header("Content-Type", media)
            .header("Accept", "text/html");
        let request = request.header("Content-Encoding", "identity").body(&body);
        assert_eq!(client.request(&request).status, 204, "{media}");
        assert_eq!(get(&mut client, "xyz", &token), body);
    }
    let head = Request::of("PUT", "xyz", &token)
        .header("Transfer-Encoding", "chunked")
        .head();
    for size in [1, 7, 1000] {
        let body = format!("{{\"size\":{size},\"pad\":\"{}\"}}", "p".repeat(50));
        client.send(&head).unwrap();
        client
            .send(&prefd_tests::http::chunked(body.as_bytes(), size))
            .unwrap();
        assert_eq!(client.read_response(false).unwrap().status, 204);
        assert_eq!(get(&mut client, "xyz", &token), body);
    }
}
