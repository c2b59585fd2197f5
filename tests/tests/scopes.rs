//! Scopes: which methods each scope allows, and that users cannot reach each other's
//! namespaces.

mod common;

use common::{fresh, get, put, target};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::token;

#[test]
fn each_scope_allows_exactly_its_methods() {
    let (server, _dir) = fresh(&[]);
    let mut connection = server.connect();
    put(
        &mut connection,
        "xyz",
        &token::of("alice", "xyz"),
        "{\"of\":\"xyz\"}",
    );
    let read = "user:preferences:read:xyz";
    let write = "user:preferences:write:xyz";
    for (client, scope, may_read, may_write) in [
        ("xyz", "", true, true),
        ("other", "", false, false),
        ("other", read, true, false),
        ("other", write, false, true),
        (
            "other",
            "user:preferences:read:xyz user:preferences:write:xyz",
            true,
            true,
        ),
        (
            "other",
            "openid user:preferences:read:xyz profile",
            true,
            false,
        ),
        ("other", "user:preferences:read", false, false),
        ("other", "user:preferences:write", false, false),
        ("other", "user:preferences:read:", false, false),
        ("other", "user:preferences:read:xy", false, false),
        ("other", "user:preferences:read:xyzz", false, false),
        ("other", "user:preferences:read:XYZ", false, false),
        ("other", "USER:preferences:read:xyz", false, false),
        ("other", "user:preferences:read:*", false, false),
        (
            "other",
            "user:preferences:read:other user:preferences:write:other",
            false,
            false,
        ),
        ("xy", "", false, false),
        ("xyzz", "", false, false),
        ("XYZ", "", false, false),
    ] {
        let token = token::with_scope("alice", client, scope);
        for (method, allowed, needed) in [
            ("GET", may_read, read),
            ("HEAD", may_read, read),
            ("PUT", may_write, write),
            ("DELETE", may_write, write),
        ] {
            let context = format!("{method} as {client} with {scope:?}");
            let response = server
                .connect()
                .request(&Request::of(method, "xyz", &token).body("{\"n\":1}"));
            if allowed {
                assert!(
                    matches!(response.status, 200 | 204),
                    "{context}: {response:?}"
                );
            } else if method == "HEAD" {
                ExpectedError::code("insufficient-scope")
                    .scope(needed)
                    .check_headers(&response, &context);
            } else {
                ExpectedError::code("insufficient-scope")
                    .scope(needed)
                    .check(&response, &context);
            }
        }
        if may_write {
            put(
                &mut connection,
                "xyz",
                &token::of("alice", "xyz"),
                "{\"of\":\"xyz\"}",
            );
        }
        assert_eq!(
            get(&mut connection, "xyz", &token::of("alice", "xyz")),
            "{\"of\":\"xyz\"}"
        );
    }
}

#[test]
fn namespace_of_another_user_is_unreachable() {
    let (server, _dir) = fresh(&[]);
    let mut connection = server.connect();
    let secret = "{\"secret\":\"of alice\"}";
    put(&mut connection, "xyz", &token::of("alice", "xyz"), secret);
    let scopes = "user:preferences:read:xyz user:preferences:write:xyz user:preferences:read:alice \
                  user:preferences:read:alice/xyz user:preferences:read:../alice/xyz user:preferences:read";
    for client in [
        "xyz",
        "alice",
        "alice/xyz",
        "other",
        "alice\u{a0}xyz",
        "../alice/xyz",
    ] {
        let token = token::with_scope("mallory", client, scopes);
        for id in [
            "xyz",
            "alice",
            "alice%2Fxyz",
            "..%2Falice%2Fxyz",
            "alice%00xyz",
            "..",
            "%2e%2e",
        ] {
            let got = server.connect().request(&Request::of("GET", id, &token));
            assert!(!got.text().contains("secret"), "{client} {id}: {got:?}");
            for method in ["PUT", "DELETE"] {
                server
                    .connect()
                    .request(&Request::of(method, id, &token).body("{\"by\":\"mallory\"}"));
            }
        }
        for path in [
            "/user/alice/preferences/xyz",
            "/user/2025-1/alice/preferences/xyz",
            "/user/2025-1/preferences/alice/xyz",
        ] {
            let got = server
                .connect()
                .request(&Request::new("GET", path).bearer(&token));
            assert_eq!(got.status, 404);
        }
        let got = server.connect().request(
            &Request::new("GET", &format!("{}?user=alice&sub=alice", target("xyz"))).bearer(&token),
        );
        assert!(!got.text().contains("secret"));
    }
    assert_eq!(
        get(&mut connection, "xyz", &token::of("alice", "xyz")),
        secret
    );
}

/// The SDKs of PACE declare these scopes for the namespace of their own client.
#[test]
fn own_namespace_requires_a_scope_with_own_scope() {
    let (server, _dir) = fresh(&["--own-scope"]);
    let (read, write) = ("user:preferences:read", "user:preferences:write");
    let both = format!("{read} {write}");
    for (scope, may_read, may_write) in [
        ("", false, false),
        (read, true, false),
        (write, false, true),
        (both.as_str(), true, true),
        ("user:preferences:read:xyz", true, false),
        ("user:preferences:write:xyz", false, true),
        ("user:preferences:read:other", false, false),
    ] {
        let token = token::with_scope("alice", "xyz", scope);
        for (method, allowed, needed) in [
            ("GET", may_read, read),
            ("PUT", may_write, write),
            ("DELETE", may_write, write),
        ] {
            let context = format!("{method} with {scope:?}");
            let request = Request::of(method, "xyz", &token).body("{\"n\":1}");
            let response = server.connect().request(&request);
            if allowed {
                assert!(
                    matches!(response.status, 200 | 204),
                    "{context}: {response:?}"
                );
            } else {
                ExpectedError::code("insufficient-scope")
                    .scope(needed)
                    .check(&response, &context);
            }
        }
    }
    // The scopes for the own namespace open no other namespace.
    let foreign = token::with_scope("alice", "other", &both);
    let response = server
        .connect()
        .request(&Request::of("GET", "xyz", &foreign));
    ExpectedError::code("insufficient-scope")
        .scope("user:preferences:read:xyz")
        .check(&response, "a foreign client");
}
