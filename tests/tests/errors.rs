//! Error responses, with all their headers and members, and the order in which the server checks a
//! request.

mod common;

use common::{Kept, fresh, target};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::token;
use serde_json::json;

#[test]
fn unknown_route_or_version_is_404() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for path in [
        "/",
        "/user/2025-1/preferences",
        "/user/2025-1/preferences/",
        "/user/2025-1/preferences/xyz/",
        "/user/2025-1/preferences//xyz",
        "/user/2025-1/preferences/xyz/key",
        "/user/2023-1/preferences/xyz",
        "/user//preferences/xyz",
        "//user/2025-1/preferences/xyz",
        "/user/2025-1/preferences/../xyz",
        "/user/2025-1/preferences/a/../xyz",
        "/healthz",
        "/user/2025-1/Preferences/xyz",
        "*",
    ] {
        for method in ["GET", "PUT", "OPTIONS"] {
            kept.refuses(
                &Request::new(method, path).bearer(&token),
                &ExpectedError::code("not-found"),
                path,
            );
        }
    }
    let absolute = format!("http://prefd.test{}", target("xyz"));
    let found = server
        .connect()
        .request(&Request::new("GET", &absolute).bearer(&token));
    assert_eq!((found.status, found.text()), (200, "{\"kept\":\"xyz\"}"));
}

#[test]
fn only_configured_api_versions_are_served() {
    let (server, _dir) = fresh(&["--api-version", "v1", "--api-version", "v2"]);
    let token = token::of("alice", "xyz");
    for (version, status) in [("v1", 200), ("v2", 200), ("2025-1", 404), ("2024-2", 404)] {
        let path = format!("/user/{version}/preferences/xyz");
        let got = server
            .connect()
            .request(&Request::new("GET", &path).bearer(&token));
        assert_eq!(got.status, status, "{version}");
        let names_the_served_versions = got.text().contains("It serves v1, v2.");
        assert_eq!(names_the_served_versions, status == 404, "{version}");
    }
    let other = server.connect().request(&Request::new("GET", "/user/v3"));
    assert!(!other.text().contains("v1"), "{other:?}");
}

#[test]
fn unserved_version_is_404_whose_detail_names_the_served_versions() {
    let (server, _dir) = fresh(&[]);
    let unserved = Request::new("GET", "/user/2023-1/preferences/xyz");
    let response = server.connect().request(&unserved);
    ExpectedError::code("not-found").check(&response, "2023-1");
    let served = "2025-1, 2024-4, 2024-3, 2024-2, 2024-1, 2021-2, 2020-4";
    assert!(response.text().contains(served), "{response:?}");
}

#[test]
fn unsupported_method_is_405_with_an_allow_header() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for method in ["POST", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let request = Request::of(method, "xyz", &token);
        let response = kept.refuses(&request, &ExpectedError::code("method-not-allowed"), method);
        assert_eq!(response.header("allow"), Some("GET, HEAD, PUT, DELETE"));
    }
}

#[test]
fn invalid_client_id_is_400() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let long = "x".repeat(256);
    for id in [
        "%",
        "%zz",
        "%2",
        "%ff",
        "%00",
        "a%0Ab",
        "%7F",
        long.as_str(),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            kept.refuses(
                &Request::of(method, id, &token),
                &ExpectedError::code("invalid-client-id"),
                id,
            );
        }
    }
    for (encoded, client) in [
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("%2e%2e", ".."),
        ("..", ".."),
        ("caf%C3%A9", "café"),
    ] {
        let token = token::of("alice", client);
        let got = server
            .connect()
            .request(&Request::of("GET", encoded, &token));
        assert_eq!(got.status, 200, "{encoded}");
    }
    let longest = "x".repeat(255);
    let got =
        server
            .connect()
            .request(&Request::of("GET", &longest, &token::of("alice", &longest)));
    assert_eq!(got.status, 200);
}

#[test]
fn other_media_type_or_content_encoding_is_415() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let unsupported = |name: &str| {
        ExpectedError::code("unsupported-media-type").source(json!({ "header": name }))
    };
    for media in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "text/json",
        "json",
        "",
    ] {
        let request = Request::of("PUT", "xyz", &token)
            .header("Content-Type", media)
            .body("{}");
        kept.refuses(&request, &unsupported("Content-Type"), media);
    }
    for encoding in ["gzip", "br", "identity, gzip", "deflate"] {
        let request = Request::of("PUT", "xyz", &token)
            .header("Content-Encoding", encoding)
            .body("{}");
        kept.refuses(&request, &unsupported("Content-Encoding"), encoding);
    }
}

/// RFC 9110 section 14.5: a server that ignores `Content-Range` on a PUT replaces the whole
/// document with a part of it.
#[test]
fn content_range_on_put_is_400_and_changes_nothing() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let expected =
        ExpectedError::code("invalid-request").source(json!({"header": "Content-Range"}));
    for range in [
        "bytes 0-1/2",
        "bytes 0-1/1000",
        "bytes 2-3/*",
        "bytes */2",
        "members 0-0/1",
        "nonsense",
        "",
    ] {
        let request = Request::of("PUT", "xyz", &token)
            .header("Content-Range", range)
            .body("{}");
        kept.refuses(&request, &expected, range);
    }
}

/// `Content-Range` describes a body, and a GET, HEAD or DELETE of a document uses no body.
#[test]
fn content_range_on_other_methods_is_ignored() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let mut connection = server.connect();
    common::put(&mut connection, "xyz", &token, "{}");
    for (method, status) in [("GET", 200), ("HEAD", 200), ("DELETE", 204)] {
        let request = Request::of(method, "xyz", &token).header("Content-Range", "bytes 0-1/1000");
        assert_eq!(connection.request(&request).status, status, "{method}");
    }
}

#[test]
fn invalid_entity_tag_in_a_condition_is_400() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    for name in ["If-Match", "If-None-Match"] {
        for value in ["", "7", "\"7", "\"7\" \"8\"", "*, \"7\"", "w/\"7\"", "'7'"] {
            for method in ["GET", "PUT", "DELETE"] {
                let request = Request::of(method, "xyz", &token)
                    .header(name, value)
                    .body("{}");
                let expected =
                    ExpectedError::code("invalid-request").source(json!({ "header": name }));
                kept.refuses(&request, &expected, value);
            }
        }
    }
}

#[test]
fn two_authorization_headers_are_400() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let expected =
        ExpectedError::code("invalid-request").source(json!({"header": "Authorization"}));
    for second in [
        format!("Bearer {token}"),
        "Basic eDp5".to_owned(),
        String::new(),
    ] {
        let request = Request::of("PUT", "xyz", &token)
            .header("Authorization", &second)
            .body("{}");
        kept.refuses(&request, &expected, &second);
    }
}

#[test]
fn failed_precondition_is_412_with_the_current_etag() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("alice", "xyz");
    let kept = Kept::new(&server, "xyz", &token);
    let tag = server
        .connect()
        .request(&Request::of("HEAD", "xyz", &token));
    for method in ["GET", "PUT", "DELETE"] {
        let request = Request::of(method, "xyz", &token)
            .header("If-Match", "\"0\"")
            .body("{}");
        let response = kept.refuses(
            &request,
            &ExpectedError::code("precondition-failed"),
            method,
        );
        assert_eq!(response.header("etag"), tag.header("etag"));
    }
    let absent = Request::of("PUT", "xyz", &token::of("bob", "xyz"))
        .header("If-Match", "*")
        .body("{}");
    let response = kept.refuses(
        &absent,
        &ExpectedError::code("precondition-failed"),
        "no stored document",
    );
    assert_eq!(response.header("etag"), None);
}

#[test]
fn error_response_to_head_has_headers_and_no_body() {
    let (server, _dir) = fresh(&[]);
    let mut connection = server.connect();
    for (request, expected) in [
        (
            Request::new("HEAD", "/nowhere"),
            ExpectedError::code("not-found"),
        ),
        (
            Request::new("HEAD", &target("xyz")),
            ExpectedError::code("missing-token"),
        ),
        (
            Request::of("HEAD", "xyz", "nonsense"),
            ExpectedError::code("invalid-token"),
        ),
    ] {
        let response = connection.request(&request);
        expected.check_headers(&response, "HEAD");
        assert!(response.body.is_empty());
    }
}

#[test]
fn request_is_checked_in_the_documented_order() {
    let (server, _dir) = fresh(&["--linked-identity-claim", "linked"]);
    let with = |edit: &dyn Fn(&mut serde_json::Value)| {
        let mut claims = token::claims("alice", "other");
        edit(&mut claims);
        token::hs256(&claims)
    };
    let unlinked = with(&|_| {});
    let foreign = with(&|claims| claims["linked"] = json!("id"));
    let scope = "user:preferences:write:xyz";
    let good = with(&|claims| {
        claims["linked"] = json!("id");
        claims["scope"] = json!(scope);
    });
    // Each request also has the errors of the rows that follow. The response must report the error
    // that is checked first.
    let bad =
        |method: &str, path: &str| Request::new(method, path).header("Content-Type", "text/plain");
    let path = target("xyz");
    let body = "x".repeat(100);
    for (request, expected) in [
        (
            bad("BREW", "/user/1/preferences/%zz"),
            ExpectedError::code("not-found"),
        ),
        (
            bad("BREW", &target("%zz")),
            ExpectedError::code("method-not-allowed"),
        ),
        (
            bad("PUT", &target("%zz")).bearer("x").bearer("y"),
            ExpectedError::code("invalid-request").source(json!({"header": "Authorization"})),
        ),
        (
            bad("PUT", &target("%zz")),
            ExpectedError::code("missing-token"),
        ),
        (
            bad("PUT", &target("%zz")).bearer("x"),
            ExpectedError::code("invalid-token").source(json!({"header": "Authorization"})),
        ),
        (
            bad("PUT", &target("%zz")).bearer(&unlinked),
            ExpectedError::code("missing-linked-identity"),
        ),
        (
            bad("PUT", &target("%zz")).bearer(&foreign),
            ExpectedError::code("invalid-client-id"),
        ),
        (
            bad("PUT", &path).bearer(&foreign),
            ExpectedError::code("insufficient-scope").scope(scope),
        ),
        (
            bad("PUT", &path)
                .bearer(&good)
                .header("Content-Range", "bytes 0-0/1")
                .header("Content-Length", "999999999"),
            ExpectedError::code("unsupported-media-type").source(json!({"header": "Content-Type"})),
        ),
        (
            Request::new("PUT", &path)
                .bearer(&good)
                .header("Content-Range", "bytes 0-0/1")
                .header("Content-Length", "999999999"),
            ExpectedError::code("invalid-request").source(json!({"header": "Content-Range"})),
        ),
        (
            Request::new("PUT", &path)
                .bearer(&good)
                .header("Content-Length", "999999999"),
            ExpectedError::code("max-body-length-exceeded")
                .meta(json!({"limit": 105_916_416, "actual": 999_999_999})),
        ),
        (
            Request::new("PUT", &path).bearer(&good).body(&body),
            ExpectedError::code("invalid-json"),
        ),
    ] {
        let response = server.connect().request(&request);
        expected.check(&response, &format!("{request:?}"));
    }
}

#[test]
fn missing_linked_identity_is_401_with_the_pace_cloud_text() {
    let (server, _dir) = fresh(&["--linked-identity-claim", "linked"]);
    for value in [json!(null), json!(""), json!(false), json!([])] {
        let mut claims = token::claims("alice", "xyz");
        claims["linked"] = value.clone();
        let response = server
            .connect()
            .request(&Request::of("GET", "xyz", &token::hs256(&claims)));
        ExpectedError::code("missing-linked-identity").check(&response, &value.to_string());
        let text = response.text();
        assert!(text.contains(
            "\"Linked identity is needed to access this resource, please check why the user does not have a linked identity\""
        ));
    }
    let mut claims = token::claims("alice", "xyz");
    claims["linked"] = json!("identity-1");
    assert_eq!(
        server
            .connect()
            .request(&Request::of("GET", "xyz", &token::hs256(&claims)))
            .status,
        200
    );
}

#[test]
fn corrupt_document_is_501_without_internals_until_a_put() {
    let dir = tempfile::tempdir().unwrap();
    let launch = prefd_tests::server::Launch::new(common::BINARY, dir.path())
        .with(&["--document-cache-bytes", "0"]);
    let token = token::of("alice", "xyz");
    let server = launch.start();
    common::put(
        &mut server.connect(),
        "xyz",
        &token,
        "{\"secret\":\"text\"}",
    );
    assert!(server.stop().success());
    common::damage_last_document(dir.path());
    let server = launch.start();
    let mut connection = server.connect();
    let response = connection.request(&Request::of("GET", "xyz", &token));
    ExpectedError::code("internal-error").check(&response, "a corrupt document");
    // The dot in ".seg" is necessary, because the random request id can contain "seg".
    for internal in [".seg", "segment", "corrupt"] {
        assert!(!response.text().contains(internal), "{}", response.text());
    }
    server.wait_for_log(".seg, byte ");
    common::put(&mut connection, "xyz", &token, "{}");
    assert_eq!(common::get(&mut connection, "xyz", &token), "{}");
}

#[test]
fn put_on_a_full_disk_is_507_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let token = token::of("alice", "xyz");
    let launch = prefd_tests::server::Launch::new(common::BINARY, dir.path());
    let server = launch.clone().after_shell(common::FULL_DISK).start();
    let mut connection = server.connect();
    let document = |n: u32| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "p".repeat(5_000));
    let mut kept = String::from("{}");
    let mut refused = 0;
    for n in 0..40 {
        let request = Request::of("PUT", "xyz", &token).body(document(n));
        let response = connection.request(&request);
        if response.status == 204 {
            assert_eq!(refused, 0, "after the first 507, every PUT must get 507");
            kept = document(n);
        } else {
            ExpectedError::code("insufficient-storage")
                .check(&response, "a small document on a full disk");
            refused += 1;
        }
        assert_eq!(common::get(&mut connection, "xyz", &token), kept);
    }
    assert!(
        refused > 20,
        "expected more than 20 refused PUTs, got {refused}"
    );
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(400_000));
    let response = server
        .connect()
        .request(&Request::of("PUT", "xyz", &token).body(large));
    ExpectedError::code("insufficient-storage").check(&response, "a large document on a full disk");
    drop(connection);
    server.kill();
    let server = launch.start();
    let mut connection = server.connect();
    assert_eq!(common::get(&mut connection, "xyz", &token), kept);
    common::put(&mut connection, "xyz", &token, &document(99));
    assert_eq!(common::get(&mut connection, "xyz", &token), document(99));
}

#[test]
fn malformed_request_head_is_refused_with_an_empty_body() {
    let (server, _dir) = fresh(&[]);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    for (head, status) in [
        ("nonsense\r\n\r\n", 400),
        (long.as_str(), 414),
        (many.as_str(), 431),
    ] {
        let mut connection = server.connect();
        let _ = connection.send(head.as_bytes());
        let response = connection.read_response(false).unwrap();
        assert_eq!((response.status, response.body.len()), (status, 0));
    }
}
