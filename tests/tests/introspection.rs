//! Token introspection (RFC 7662): accepted and refused tokens, cached responses, and outages of
//! the identity provider.

mod common;

use std::time::{Duration, Instant};

use common::{BINARY, refused, refused_because, status, wait_for_status, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::issuer::{CannedResponse, INTROSPECTION, Issuer, Signer};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::{Value, json};

/// An identity provider, and a server that introspects tokens at this provider.
struct Setup {
    issuer: Issuer,
    server: Server,
    credentials: tempfile::NamedTempFile,
    _dir: tempfile::TempDir,
}

/// Starts a server that finds the introspection endpoint in the identity provider's metadata.
fn with_metadata(arguments: &[&str]) -> Setup {
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    let url = issuer.url();
    with_issuer(issuer, &[&["--oidc-issuer", &url], arguments].concat())
}

/// Starts a server with introspection credentials and the given arguments.
fn with_issuer(issuer: Issuer, arguments: &[&str]) -> Setup {
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:a secret\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = credentials.path().to_str().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--introspection-credentials-file", file])
        .with(arguments)
        .start();
    Setup {
        issuer,
        server,
        credentials,
        _dir: dir,
    }
}

/// The introspection response about an active token of the given user.
fn active(user: &str) -> Value {
    json!({
        "active": true, "sub": user, "client_id": "xyz", "exp": token::now() + 3600,
        "aud": "prefd", "token_type": "Bearer",
    })
}

const AUDIENCE: [&str; 2] = ["--jwt-audience", "prefd"];

#[test]
fn opaque_token_is_checked_with_its_introspection_response() {
    let setup = with_metadata(&AUDIENCE);
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    let request = issuer
        .requests()
        .into_iter()
        .find(|request| request.target == INTROSPECTION)
        .unwrap();
    // This is "prefd:a%20secret" in base64. RFC 6749 section 2.3.1 requires a form-encoded secret.
    assert_eq!(
        request.authorization.as_deref(),
        Some("Basic cHJlZmQ6YSUyMHNlY3JldA==")
    );
    assert_eq!(request.body, "token=good&token_type_hint=access_token");
    refused(server, "unknown", "unknown");
    let with = |name: &str, value: Value| {
        let mut response = active("alice");
        response[name] = value;
        response
    };
    for (index, response) in [
        with("active", json!(false)),
        with("client_id", json!(null)),
        with("sub", json!("")),
        with("aud", json!("other")),
        with("aud", json!(null)),
        with("exp", json!(token::now() - 60)),
        with("exp", json!("soon")),
        with("nbf", json!(token::now() + 60)),
        with("iss", json!("https://another.example")),
        with("token_type", json!("refresh_token")),
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("bad-{index}");
        issuer.set_introspection(&token, &response);
        refused(server, &token, &response.to_string());
    }
    issuer.set_introspection("user-id", &with("user_id", json!("bob")));
    issuer.set_introspection(
        "scope",
        &json!({
            "active": true, "sub": "alice", "client_id": "foreign", "aud": ["prefd"],
            "iss": issuer.url(), "scope": "a user:preferences:write:xyz",
        }),
    );
    let put = Request::of("PUT", "xyz", "scope").body("{\"of\":\"alice\"}");
    assert_eq!(server.connect().request(&put).status, 204);
    assert_eq!(status(server, "scope"), 403, "write does not imply read");
    let read = |token: &str| {
        let response = server.connect().request(&Request::of("GET", "xyz", token));
        response.text().to_owned()
    };
    assert_eq!(read("good"), "{\"of\":\"alice\"}");
    assert_eq!(read("user-id"), "{}");
}

#[test]
fn jwt_is_introspected_only_if_the_server_has_no_keys() {
    let setup = with_metadata(&AUDIENCE);
    let Setup { issuer, server, .. } = &setup;
    let key = Signer::new("ec256", "a");
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!("prefd");
    assert_eq!(status(server, &key.sign(&claims)), 200);
    claims["aud"] = json!("other");
    let foreign = key.sign(&claims);
    issuer.set_introspection(&foreign, &active("alice"));
    refused(
        server,
        &foreign,
        "a JWT for another audience must not be introspected",
    );
    assert_eq!(issuer.count(INTROSPECTION), 0);
    // A server without keys introspects every token, including JWTs.
    let url = format!("{}{INTROSPECTION}", issuer.url());
    let other = with_issuer(
        Issuer::start(&key),
        &["--introspection-url", &url, "--jwt-audience", "prefd"],
    );
    assert_eq!(status(&other.server, &foreign), 200);
    assert_eq!(issuer.count(INTROSPECTION), 1);
}

#[test]
fn introspection_responses_are_cached() {
    let setup = with_metadata(&AUDIENCE);
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    for _ in 0..5 {
        assert_eq!(status(server, "good"), 200);
        refused(server, "bad", "not active");
    }
    assert_eq!(issuer.count(INTROSPECTION), 2);
    // Strings that cannot be Bearer tokens are not introspected.
    for text in ["a%b", "a=b", "=", "\"", &"x".repeat(20_000)] {
        refused(server, text, text);
    }
    assert_eq!(issuer.count(INTROSPECTION), 2);
}

#[test]
fn revoked_token_is_refused_after_the_introspection_ttl() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--introspection-ttl", "20ms"]].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("token", &active("alice"));
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", "token");
    assert_eq!(connection.request(&request).status, 200);
    issuer.set_introspection("token", &json!({"active": false}));
    wait_for_status(server, "token", 401);
    assert_eq!(connection.request(&request).status, 401);
    issuer.set_introspection("token", &active("alice"));
    wait_for_status(server, "token", 200);
    assert_eq!(connection.request(&request).status, 200);
}

#[test]
fn concurrent_requests_share_one_introspection_request() {
    let setup = with_metadata(&AUDIENCE);
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    // This request makes the server fetch the metadata.
    refused(server, "other", "not active");
    issuer.hold_responses(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| status(server, "good")))
            .collect();
        issuer.wait_for(INTROSPECTION, 2);
        issuer.hold_responses(false);
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    assert_eq!(issuer.count(INTROSPECTION), 2);
}

#[test]
fn introspection_response_with_a_name_twice_is_never_active() {
    let setup = with_metadata(&AUDIENCE);
    // Which of the two members is meant is unknown: the response may be about a revoked token.
    let respond = |body: String| {
        let mut response = CannedResponse::json(&json!({}));
        response.body = body;
        setup.issuer.respond(INTROSPECTION, response);
    };
    let members = active("alice").to_string();
    respond(format!("{{\"active\":false,{}", &members[1..]));
    let request = Request::of("GET", "xyz", "token");
    let response = setup.server.connect().request(&request);
    ExpectedError::code("overloaded").check(&response, "active is false and true");
    respond("{\"active\":false,\"x\":1,\"x\":2}".to_owned());
    refused(&setup.server, "token", "active is only false");
    let words = "the introspection response contains a name twice";
    setup.server.wait_for_log(words);
}

#[test]
fn cached_token_stays_valid_while_the_issuer_is_unreachable() {
    let Setup {
        issuer,
        server,
        credentials: _credentials,
        _dir,
    } = with_metadata(&[&AUDIENCE[..], &["--introspection-ttl", "1ms"]].concat());
    issuer.set_introspection("good", &active("alice"));
    let mut ending = active("alice");
    // The token is accepted for another 15 seconds: the tolerance for clock differences is 30
    // seconds.
    ending["exp"] = json!(token::now() - 15);
    issuer.set_introspection("ending", &ending);
    assert_eq!(
        (status(&server, "good"), status(&server, "ending")),
        (200, 200)
    );
    issuer.respond(INTROSPECTION, CannedResponse::status(500));
    assert_eq!(status(&server, "good"), 200, "the issuer returns 500");
    let unavailable = |token: &str| {
        let response = server.connect().request(&Request::of("GET", "xyz", token));
        ExpectedError::code("overloaded").check(&response, "a token without a cached response");
    };
    unavailable("new");
    drop(issuer);
    for _ in 0..3 {
        assert_eq!(status(&server, "good"), 200, "the issuer is gone");
        unavailable("newer");
    }
    wait_for_status(&server, "ending", 401);
    refused_because(
        &server,
        "ending",
        "The token has expired.",
        "a cached token whose exp has passed",
    );
    assert_eq!(
        status(&server, "good"),
        200,
        "a cached token that has not expired"
    );
}

/// Calls `check` while two requests with unknown tokens wait for the identity provider.
fn while_two_requests_wait(setup: &Setup, check: impl FnOnce()) {
    let Setup { issuer, server, .. } = setup;
    let before = issuer.count(INTROSPECTION);
    issuer.hold_responses(true);
    std::thread::scope(|scope| {
        let waiting = ["one", "two"].map(|token| scope.spawn(move || status(server, token)));
        issuer.wait_for(INTROSPECTION, before + 2);
        check();
        issuer.hold_responses(false);
        for client in waiting {
            assert_eq!(client.join().unwrap(), 401);
        }
    });
}

#[test]
fn requests_waiting_for_introspection_leave_room_for_others() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--max-connections", "8"]].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("known", &active("alice"));
    assert_eq!(status(server, "known"), 200);
    let before = issuer.count(INTROSPECTION);
    while_two_requests_wait(&setup, || {
        let response = server
            .connect()
            .request(&Request::of("GET", "xyz", "three"));
        ExpectedError::code("overloaded")
            .check(&response, "too many requests wait for introspection");
        assert_eq!(status(server, "known"), 200);
    });
    assert_eq!(issuer.count(INTROSPECTION), before + 2);
}

#[test]
fn hanging_issuer_delays_only_a_few_requests() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--introspection-ttl", "1ms"]].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    let before = issuer.count(INTROSPECTION);
    issuer.hold_responses(true);
    // After an introspection request times out, the server sends none for 5 seconds.
    for _ in 0..12 {
        assert_eq!(status(server, "good"), 200);
        assert_eq!(status(server, "new"), 503);
    }
    let sent = issuer.count(INTROSPECTION) - before;
    assert!(
        (1..=6).contains(&sent),
        "expected 1 to 6 introspection requests, got {sent}"
    );
    issuer.hold_responses(false);
    // The server has no cached response about this token, so the server must introspect it.
    issuer.set_introspection("later", &active("alice"));
    wait_for_status(server, "later", 200);
}

#[test]
fn sighup_reloads_the_introspection_credentials() {
    let setup = with_metadata(&AUDIENCE);
    let Setup { issuer, server, .. } = &setup;
    let file = setup.credentials.path();
    issuer.set_introspection("first", &active("alice"));
    assert_eq!(status(server, "first"), 200);
    // The new file is invalid, so the server keeps the old credentials.
    std::fs::write(file, "no colon").unwrap();
    server.hang_up();
    server.wait_for_log("what=\"keys\" error=");
    assert_eq!(status(server, "after-invalid-file"), 401);
    std::fs::write(file, "another:secret").unwrap();
    server.hang_up();
    server.wait_for_log("reload completed what=\"keys\"");
    assert_eq!(status(server, "after-reload"), 401);
    assert!(
        !server.has_logged("another"),
        "the log must not contain credentials"
    );
    let sent: Vec<_> = issuer
        .requests()
        .into_iter()
        .filter(|request| request.target == INTROSPECTION)
        .map(|request| request.authorization.unwrap())
        .collect();
    let old = "Basic cHJlZmQ6YSUyMHNlY3JldA==";
    // The last value is "another:secret" in base64.
    assert_eq!(sent, [old, old, "Basic YW5vdGhlcjpzZWNyZXQ="]);
}

#[test]
fn cached_response_is_not_used_after_introspection_max_stale() {
    let arguments = [
        "--introspection-ttl",
        "1ms",
        "--introspection-max-stale",
        "1ms",
    ];
    let setup = with_metadata(&[&AUDIENCE[..], &arguments].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    for answer in [
        CannedResponse::status(401),
        CannedResponse::status(200),
        CannedResponse::json(&json!({"active": "yes"})),
        CannedResponse::json(&json!({})),
        CannedResponse::json(&json!([])),
    ] {
        issuer.respond(INTROSPECTION, answer);
        wait_for_status(server, "good", 503);
    }
    server.wait_for_log("token introspection failed");
    assert!(
        !server.has_logged("good"),
        "the log must not contain a token"
    );
}

#[test]
fn linked_identity_is_required_of_jwts_and_opaque_tokens() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--linked-identity-claim", "linked"]].concat());
    let Setup { issuer, server, .. } = &setup;
    let key = Signer::new("ec256", "a");
    for (linked, expected) in [
        (json!("id"), 200),
        (json!(true), 200),
        (json!(null), 401),
        (json!(false), 401),
        (json!(""), 401),
    ] {
        let mut response = active("alice");
        response["linked"] = linked.clone();
        response["iss"] = json!(issuer.url());
        let opaque = format!("opaque-{}", token::base64url(&linked));
        issuer.set_introspection(&opaque, &response);
        for token in [opaque, key.sign(&response)] {
            let response = server.connect().request(&Request::of("GET", "xyz", &token));
            assert_eq!(response.status, expected, "{linked}");
            if expected == 401 {
                ExpectedError::code("missing-linked-identity")
                    .check(&response, "a token without a linked identity");
            }
        }
    }
}

/// Requests with unknown tokens wait for the identity provider, and many of them can reach the
/// limit on waiting requests. A token that was active must not count toward this limit.
#[test]
fn remembered_token_is_accepted_while_unknown_tokens_wait() {
    let arguments = ["--max-connections", "8", "--introspection-ttl", "1ms"];
    let setup = with_metadata(&[&AUDIENCE[..], &arguments].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("known", &active("alice"));
    assert_eq!(status(server, "known"), 200);
    let before = issuer.count(INTROSPECTION);
    while_two_requests_wait(&setup, || {
        // The response about the token is older than its `ttl`, so each request could renew it.
        for _ in 0..20 {
            assert_eq!(status(server, "known"), 200);
        }
        issuer.wait_for(INTROSPECTION, before + 3);
    });
}

#[test]
fn active_token_is_renewed_before_its_response_expires() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--introspection-ttl", "400ms"]].concat());
    let Setup { issuer, server, .. } = &setup;
    issuer.set_introspection("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    let sent = issuer.count(INTROSPECTION);
    issuer.hold_responses(true);
    // No request waits for the renewal, which would time out after 5 seconds.
    let began = Instant::now();
    wait_until("a renewal", || {
        assert_eq!(status(server, "good"), 200);
        issuer.count(INTROSPECTION) > sent
    });
    for _ in 0..20 {
        assert_eq!(status(server, "good"), 200);
    }
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    assert_eq!(
        issuer.count(INTROSPECTION),
        sent + 1,
        "one renewal for all requests"
    );
    // A renewal that finds the token revoked ends its use.
    issuer.set_introspection("good", &json!({"active": false}));
    issuer.hold_responses(false);
    wait_for_status(server, "good", 401);
}

#[test]
fn expired_token_is_refused_while_it_is_being_renewed() {
    let setup = with_metadata(&[&AUDIENCE[..], &["--introspection-ttl", "1ms"]].concat());
    let Setup { issuer, server, .. } = &setup;
    let mut ending = active("alice");
    // The token is accepted for some seconds more: the tolerance for clock differences is 30
    // seconds.
    ending["exp"] = json!(token::now() - 25);
    issuer.set_introspection("ending", &ending);
    assert_eq!(status(server, "ending"), 200);
    issuer.hold_responses(true);
    wait_for_status(server, "ending", 401);
    refused_because(
        server,
        "ending",
        "The token has expired.",
        "a token whose renewal is in progress",
    );
}

/// The metadata names the endpoint. While the provider hangs, only the first request waits for the
/// metadata.
#[test]
fn hanging_metadata_delays_only_the_first_opaque_tokens() {
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    issuer.hold_responses(true);
    let url = issuer.url();
    let arguments = [&["--oidc-issuer", &url][..], &AUDIENCE].concat();
    let Setup { server, issuer, .. } = &with_issuer(issuer, &arguments);
    let began = Instant::now();
    for token in ["one", "two", "three", "four"] {
        assert_eq!(status(server, token), 503, "{token}");
    }
    let limit = Duration::from_secs(20);
    let waited = began.elapsed();
    assert!(waited < limit, "expected at most {limit:?}, got {waited:?}");
    issuer.set_introspection("later", &active("alice"));
    issuer.hold_responses(false);
    wait_for_status(server, "later", 200);
}
