//! CORS in a real browser: a page of an origin in `--cors-origin` can read and write, and a page
//! of another origin can do neither.
//!
//! `cors.rs` tests the headers. Here, a browser interprets them.

mod common;

use common::{fresh, get, put, target};
use prefd_tests::browser::Site;
use prefd_tests::server::Server;
use prefd_tests::{machine, token};
use serde_json::{Value, json};

/// A JavaScript function that sends a request with `fetch` and returns what the page can see of
/// the response.
const SEND: &str = r"
    const send = async (method, token, headers = {}, body = undefined) => {
        headers = { ...headers, ...(token && { Authorization: `Bearer ${token}` }) };
        try {
            const response = await fetch(url, { method, headers, body });
            return {
                status: response.status,
                etag: response.headers.get('ETag'),
                id: response.headers.get('Request-Id'),
                challenge: response.headers.get('WWW-Authenticate'),
                body: await response.text(),
            };
        } catch (error) {
            return { blocked: error.name };
        }
    };
";

/// A script with the URL of alice's document, a valid token and the function `send`.
fn script(server: &Server, steps: &str) -> String {
    let url = json!(format!("{}{}", server.origin, target("xyz")));
    let good = json!(token::of("alice", "xyz"));
    format!("const url = {url}, good = {good}; {SEND} {steps}")
}

/// The error object in the body of a response.
fn error_of(seen: &Value) -> Value {
    let body = seen["body"].as_str().unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    document["errors"][0].clone()
}

#[test]
fn page_of_an_allowed_origin_reads_and_writes() {
    if !machine::has_browser() {
        return;
    }
    let site = Site::start();
    let (server, _dir) = fresh(&["--cors-origin", site.origin()]);
    let seen = site.visit(&script(
        &server,
        r#"
        const json = { 'Content-Type': 'application/json' };
        const set = await send('PUT', good, { ...json, 'If-None-Match': '*' }, '{"a":1}');
        const repeated = await send('PUT', good, { ...json, 'If-None-Match': '*' }, '{"a":2}');
        const read = await send('GET', good);
        const unchanged = await send('GET', good, { 'If-None-Match': read.etag });
        const replaced = await send('PUT', good, { ...json, 'If-Match': read.etag }, '{"a":3}');
        const malformed = await send('PUT', good, json, '{"a":');
        const forged = await send('GET', 'forged');
        const anonymous = await send('GET', null);
        const head = await send('HEAD', good);
        const erased = await send('DELETE', good);
        return {
            set, repeated, read, unchanged, replaced, malformed, forged, anonymous, head, erased,
        };
        "#,
    ));
    let statuses = [
        ("set", 204),
        ("repeated", 412),
        ("read", 200),
        ("unchanged", 304),
        ("replaced", 204),
        ("malformed", 400),
        ("forged", 401),
        ("anonymous", 401),
        ("head", 200),
        ("erased", 204),
    ];
    for (step, status) in statuses {
        assert_eq!(seen[step]["status"], status, "{step}: {seen:#}");
        let id = seen[step]["id"].as_str().unwrap();
        assert_eq!(id.len(), 20, "{step}: {seen:#}");
    }
    assert_eq!(seen["read"]["body"], "{\"a\":1}");
    assert_eq!(seen["read"]["etag"], seen["set"]["etag"]);
    assert_eq!(seen["repeated"]["etag"], seen["set"]["etag"]);
    assert_eq!(seen["head"]["etag"], seen["replaced"]["etag"]);
    assert!(seen["set"]["etag"].is_string(), "{seen:#}");
    for (step, code) in [
        ("repeated", "precondition-failed"),
        ("malformed", "invalid-json"),
        ("forged", "invalid-token"),
        ("anonymous", "missing-token"),
    ] {
        let error = error_of(&seen[step]);
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!(code), &seen[step]["id"])
        );
    }
    let challenge = seen["forged"]["challenge"].as_str().unwrap();
    assert!(challenge.contains("invalid_token"), "{challenge}");
    let token = token::of("alice", "xyz");
    assert_eq!(get(&mut server.connect(), "xyz", &token), "{}");
}

#[test]
fn page_of_another_origin_reads_and_writes_nothing() {
    if !machine::has_browser() {
        return;
    }
    let site = Site::start();
    let allowed = Site::start();
    for arguments in [&["--cors-origin", allowed.origin()][..], &[]] {
        let (server, _dir) = fresh(arguments);
        let token = token::of("alice", "xyz");
        put(&mut server.connect(), "xyz", &token, "{\"kept\":1}");
        let seen = site.visit(&script(
            &server,
            r#"
            const json = { 'Content-Type': 'application/json' };
            const set = await send('PUT', good, json, '{"a":1}');
            const erased = await send('DELETE', good);
            const read = await send('GET', good);
            // This request needs no preflight: the server responds, and the browser hides it.
            const anonymous = await send('GET', null);
            return { set, erased, read, anonymous };
            "#,
        ));
        for step in ["set", "erased", "read", "anonymous"] {
            assert_eq!(
                seen[step],
                json!({"blocked": "TypeError"}),
                "{step}: {seen:#}"
            );
        }
        // The server received the request without a token, so the browser hid the response.
        server.wait_for_log("code=\"missing-token\"");
        server.wait_for_log_times("method=\"OPTIONS\"", 3);
        assert_eq!(get(&mut server.connect(), "xyz", &token), "{\"kept\":1}");
    }
}
