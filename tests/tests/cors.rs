//! CORS headers: preflight responses, and which responses a page of another origin may read.

mod common;

use common::{fresh, target};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::{Request, Response};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;

const APP: &str = "https://app.example";

fn preflight(server: &Server, origin: &str) -> Response {
    let request = Request::new("OPTIONS", &target("xyz"))
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "PUT")
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        );
    server.connect().request(&request)
}

fn get(server: &Server, origin: &str, token: &str) -> Response {
    let request = Request::of("GET", "xyz", token).header("Origin", origin);
    server.connect().request(&request)
}

/// All values of a header that can occur more than once.
fn values(response: &Response, name: &str) -> Vec<String> {
    let values = response.headers.iter().filter(|(n, _)| n == name);
    values.map(|(_, value)| value.clone()).collect()
}

#[test]
fn default_server_sends_no_cors_headers() {
    let (server, _dir) = fresh(&[]);
    let response = preflight(&server, APP);
    ExpectedError::code("method-not-allowed").check(&response, "no --cors-origin");
    let response = get(&server, APP, &token::of("alice", "xyz"));
    assert_eq!(response.status, 200);
    for response in [preflight(&server, APP), response] {
        let has_cors = response
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("access-control"));
        assert!(!has_cors, "{response:?}");
    }
}

#[test]
fn allowed_origin_may_send_requests_and_read_responses() {
    let arguments = [
        "--cors-origin",
        APP,
        "--cors-origin",
        "http://localhost:3000",
    ];
    let (server, _dir) = fresh(&[&arguments[..], &["--cors-header", "Traceparent"]].concat());
    for origin in [APP, "http://localhost:3000"] {
        let response = preflight(&server, origin);
        assert_eq!((response.status, response.body.len()), (204, 0));
        assert_eq!(response.header("access-control-allow-origin"), Some(origin));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let methods = response.header("access-control-allow-methods");
        assert_eq!(methods, Some("GET, HEAD, PUT, DELETE"));
        let headers = response
            .header("access-control-allow-headers")
            .unwrap()
            .to_lowercase();
        let headers: Vec<&str> = headers.split(", ").collect();
        for name in [
            "authorization",
            "content-type",
            "if-match",
            "if-none-match",
            "traceparent",
        ] {
            assert!(headers.contains(&name), "{name} in {headers:?}");
        }
        assert!(response.header("access-control-max-age").is_some());
        assert_eq!(response.header("access-control-allow-credentials"), None);
        assert!(response.header("request-id").is_some());
        assert!(values(&response, "vary").join(", ").contains("Origin"));
    }
    // A page of an allowed origin may read error responses, too.
    let good = token::of("alice", "xyz");
    for (token, status) in [
        (good.as_str(), 200),
        ("bad", 401),
        (&token::of("alice", "x"), 403),
    ] {
        let response = get(&server, APP, token);
        assert_eq!(response.status, status);
        assert_eq!(response.header("access-control-allow-origin"), Some(APP));
        let exposed = response.header("access-control-expose-headers").unwrap();
        assert!(
            exposed.contains("ETag") && exposed.contains("Request-Id"),
            "{exposed}"
        );
        assert!(values(&response, "vary").join(", ").contains("Origin"));
    }
    let put = Request::of("PUT", "xyz", &good)
        .header("Origin", APP)
        .body("{}");
    let response = server.connect().request(&put);
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
}

#[test]
fn other_origin_is_served_without_cors_headers() {
    let (server, _dir) = fresh(&["--cors-origin", APP]);
    let token = token::of("alice", "xyz");
    for origin in [
        "https://evil.example",
        "https://app.example.evil",
        "null",
        "",
    ] {
        let response = preflight(&server, origin);
        ExpectedError::code("method-not-allowed").check(&response, origin);
        assert_eq!(response.header("access-control-allow-origin"), None);
        let response = get(&server, origin, &token);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), None);
        assert!(
            values(&response, "vary").join(", ").contains("Origin"),
            "caches need Vary: Origin, because the response depends on the origin"
        );
    }
    // Requests without an Origin header do not come from a page of another origin.
    let response = server.connect().request(&Request::of("GET", "xyz", &token));
    assert_eq!(response.header("access-control-allow-origin"), None);
    // This OPTIONS request is not a preflight, because it has no Access-Control-Request-Method.
    let options = Request::new("OPTIONS", &target("xyz")).header("Origin", APP);
    assert_eq!(server.connect().request(&options).status, 405);
}

#[test]
fn wildcard_allows_every_origin_and_a_url_path_is_refused() {
    let (server, _dir) = fresh(&["--cors-origin", "*"]);
    let response = preflight(&server, "https://any.example");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let response = get(&server, "https://any.example", &token::of("alice", "xyz"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(common::BINARY, dir.path())
        .with(&["--cors-origin", "https://app.example/"])
        .run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}
