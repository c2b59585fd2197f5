//! Pages in a real browser: what one of an origin that is named may do and see, and that
//! one of another origin may not.
//!
//! `cors.rs` tests the headers; here the browser judges them.

mod common;

use common::{fresh, get, put, target};
use prefd_tests::browser::Site;
use prefd_tests::server::Server;
use prefd_tests::{machine, token};
use serde_json::{Value, json};

/// Asks as a page does, and says what the page sees.
const ASK: &str = r"
    const ask = async (method, token, headers = {}, body = undefined) => {
        headers = { ...headers, ...(token && { Authorization: `Bearer ${token}` }) };
        try {
            const answer = await fetch(url, { method, headers, body });
            return {
                status: answer.status,
                etag: answer.headers.get('ETag'),
                id: answer.headers.get('Request-Id'),
                challenge: answer.headers.get('WWW-Authenticate'),
                body: await answer.text(),
            };
        } catch (error) {
            return { blocked: error.name };
        }
    };
";

/// A script that can ask for alice's document.
fn script(server: &Server, steps: &str) -> String {
    let url = json!(format!("{}{}", server.origin, target("xyz")));
    let good = json!(token::of("alice", "xyz"));
    format!("const url = {url}, good = {good}; {ASK} {steps}")
}

fn error_of(seen: &Value) -> Value {
    let body = seen["body"].as_str().unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    document["errors"][0].clone()
}

#[test]
fn a_page_of_a_named_origin_reads_and_writes() {
    if !machine::has_browser() {
        return;
    }
    let site = Site::start();
    let (server, _dir) = fresh(&["--cors-origin", site.origin()]);
    let seen = site.visit(&script(
        &server,
        r#"
        const json = { 'Content-Type': 'application/json' };
        const set = await ask('PUT', good, { ...json, 'If-None-Match': '*' }, '{"a":1}');
        const again = await ask('PUT', good, { ...json, 'If-None-Match': '*' }, '{"a":2}');
        const read = await ask('GET', good);
        const unchanged = await ask('GET', good, { 'If-None-Match': read.etag });
        const replaced = await ask('PUT', good, { ...json, 'If-Match': read.etag }, '{"a":3}');
        const wrong = await ask('PUT', good, json, '{"a":');
        const forged = await ask('GET', 'forged');
        const stranger = await ask('GET', null);
        const head = await ask('HEAD', good);
        const erased = await ask('DELETE', good);
        return { set, again, read, unchanged, replaced, wrong, forged, stranger, head, erased };
        "#,
    ));
    let statuses = [
        ("set", 204),
        ("again", 412),
        ("read", 200),
        ("unchanged", 304),
        ("replaced", 204),
        ("wrong", 400),
        ("forged", 401),
        ("stranger", 401),
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
    assert_eq!(seen["again"]["etag"], seen["set"]["etag"]);
    assert_eq!(seen["head"]["etag"], seen["replaced"]["etag"]);
    assert!(seen["set"]["etag"].is_string(), "{seen:#}");
    for (step, code) in [
        ("again", "precondition-failed"),
        ("wrong", "invalid-json"),
        ("forged", "invalid-token"),
        ("stranger", "missing-token"),
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
fn a_page_of_another_origin_sees_and_changes_nothing() {
    if !machine::has_browser() {
        return;
    }
    let site = Site::start();
    let named = Site::start();
    for arguments in [&["--cors-origin", named.origin()][..], &[]] {
        let (server, _dir) = fresh(arguments);
        let token = token::of("alice", "xyz");
        put(&mut server.connect(), "xyz", &token, "{\"kept\":1}");
        let seen = site.visit(&script(
            &server,
            r#"
            const json = { 'Content-Type': 'application/json' };
            const set = await ask('PUT', good, json, '{"a":1}');
            const erased = await ask('DELETE', good);
            const read = await ask('GET', good);
            // What takes no preflight is answered, and not shown.
            const stranger = await ask('GET', null);
            return { set, erased, read, stranger };
            "#,
        ));
        for step in ["set", "erased", "read", "stranger"] {
            assert_eq!(
                seen[step],
                json!({"blocked": "TypeError"}),
                "{step}: {seen:#}"
            );
        }
        // It came as far as the server, so it was the browser that did not show it.
        server.wait_for_log("code=\"missing-token\"");
        server.wait_for_log_times("method=\"OPTIONS\"", 3);
        assert_eq!(get(&mut server.connect(), "xyz", &token), "{\"kept\":1}");
    }
}
