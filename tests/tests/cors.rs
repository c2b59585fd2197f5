//! Pages of other origins: what they may ask, and see.

mod common;

use common::{fresh, target};
use prefd_tests::api_error::Expected;
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

/// The values of a header that may be there several times.
fn all(response: &Response, name: &str) -> Vec<String> {
    let values = response.headers.iter().filter(|(n, _)| n == name);
    values.map(|(_, value)| value.clone()).collect()
}

#[test]
fn no_page_of_another_origin_may_ask_unless_it_is_named() {
    let (server, _dir) = fresh(&[]);
    let response = preflight(&server, APP);
    Expected::code("method-not-allowed").check(&response, "off");
    let response = get(&server, APP, &token::of("alice", "xyz"));
    assert_eq!(response.status, 200);
    for response in [preflight(&server, APP), response] {
        let named = response
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("access-control"));
        assert!(!named, "{response:?}");
    }
}

#[test]
fn a_named_origin_may_ask_and_see() {
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
        assert!(all(&response, "vary").join(", ").contains("Origin"));
    }
    // Whatever the answer is, the page sees it.
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
        assert!(all(&response, "vary").join(", ").contains("Origin"));
    }
    let put = Request::of("PUT", "xyz", &good)
        .header("Origin", APP)
        .body("{}");
    let response = server.connect().request(&put);
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
}

#[test]
fn an_origin_that_is_not_named_is_served_and_sees_nothing() {
    let (server, _dir) = fresh(&["--cors-origin", APP]);
    let token = token::of("alice", "xyz");
    for origin in [
        "https://evil.example",
        "https://app.example.evil",
        "null",
        "",
    ] {
        let response = preflight(&server, origin);
        Expected::code("method-not-allowed").check(&response, origin);
        assert_eq!(response.header("access-control-allow-origin"), None);
        let response = get(&server, origin, &token);
        assert_eq!(response.status, 200);
        assert_eq!(response.header("access-control-allow-origin"), None);
        assert!(
            all(&response, "vary").join(", ").contains("Origin"),
            "a cache must tell"
        );
    }
    // Without one it is no page of another origin.
    let response = server.connect().request(&Request::of("GET", "xyz", &token));
    assert_eq!(response.header("access-control-allow-origin"), None);
    // An OPTIONS that is no preflight.
    let options = Request::new("OPTIONS", &target("xyz")).header("Origin", APP);
    assert_eq!(server.connect().request(&options).status, 405);
}

#[test]
fn every_origin_can_be_named_at_once() {
    let (server, _dir) = fresh(&["--cors-origin", "*"]);
    let response = preflight(&server, "https://whoever.example");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let response = get(
        &server,
        "https://whoever.example",
        &token::of("alice", "xyz"),
    );
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(common::BINARY, dir.path())
        .with(&["--cors-origin", "https://app.example/"])
        .run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
}
