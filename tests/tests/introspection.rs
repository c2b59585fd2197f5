//! Tokens that only their issuer can read.

mod common;

use common::{BINARY, refused, refused_because, status, wait_for_status};
use prefd_tests::api_error::Expected;
use prefd_tests::http::Request;
use prefd_tests::issuer::{Answer, INTROSPECTION, Issuer, Signer};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::{Value, json};

struct Asking {
    issuer: Issuer,
    server: Server,
    credentials: tempfile::NamedTempFile,
    _dir: tempfile::TempDir,
}

/// A server that asks this issuer about tokens, by its metadata.
fn asking(arguments: &[&str]) -> Asking {
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    let url = issuer.url();
    asking_at(issuer, &[&["--oidc-issuer", &url], arguments].concat())
}

fn asking_at(issuer: Issuer, arguments: &[&str]) -> Asking {
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:a secret\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = credentials.path().to_str().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--introspection-credentials-file", file])
        .with(arguments)
        .start();
    Asking {
        issuer,
        server,
        credentials,
        _dir: dir,
    }
}

fn active(user: &str) -> Value {
    json!({
        "active": true, "sub": user, "client_id": "xyz", "exp": token::now() + 3600,
        "aud": "prefd", "token_type": "Bearer",
    })
}

const AUDIENCE: [&str; 2] = ["--jwt-audience", "prefd"];

#[test]
fn an_opaque_token_is_what_its_issuer_says() {
    let asking = asking(&AUDIENCE);
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    let question = issuer
        .questions()
        .into_iter()
        .find(|question| question.target == INTROSPECTION)
        .unwrap();
    // "prefd:a%20secret", which is how a form has it.
    assert_eq!(
        question.authorization.as_deref(),
        Some("Basic cHJlZmQ6YSUyMHNlY3JldA==")
    );
    assert_eq!(question.body, "token=good&token_type_hint=access_token");
    refused(server, "unknown", "unknown");
    let with = |name: &str, value: Value| {
        let mut said = active("alice");
        said[name] = value;
        said
    };
    for (index, said) in [
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
        issuer.say_of(&token, &said);
        refused(server, &token, &said.to_string());
    }
    issuer.say_of("user-id", &with("user_id", json!("bob")));
    issuer.say_of(
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
fn jwts_are_judged_by_keys_and_the_rest_by_asking() {
    let asking = asking(&AUDIENCE);
    let Asking { issuer, server, .. } = &asking;
    let key = Signer::new("ec256", "a");
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!("prefd");
    assert_eq!(status(server, &key.sign(&claims)), 200);
    claims["aud"] = json!("other");
    let foreign = key.sign(&claims);
    issuer.say_of(&foreign, &active("alice"));
    refused(server, &foreign, "a key says no");
    assert_eq!(issuer.count(INTROSPECTION), 0);
    // Without any key, every token is asked about.
    let url = format!("{}{INTROSPECTION}", issuer.url());
    let other = asking_at(
        Issuer::start(&key),
        &["--introspection-url", &url, "--jwt-audience", "prefd"],
    );
    assert_eq!(status(&other.server, &foreign), 200);
    assert_eq!(issuer.count(INTROSPECTION), 1);
}

#[test]
fn answers_are_remembered_for_a_short_time() {
    let asking = asking(&AUDIENCE);
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("good", &active("alice"));
    for _ in 0..5 {
        assert_eq!(status(server, "good"), 200);
        refused(server, "bad", "not active");
    }
    assert_eq!(issuer.count(INTROSPECTION), 2);
    // What can be no token is not asked about.
    for text in ["a%b", "a=b", "=", "\"", &"x".repeat(9_000)] {
        refused(server, text, text);
    }
    assert_eq!(issuer.count(INTROSPECTION), 2);
}

#[test]
fn a_revoked_token_ends_when_its_answer_is_old() {
    let asking = asking(&[&AUDIENCE[..], &["--introspection-ttl", "20ms"]].concat());
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("token", &active("alice"));
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", "token");
    assert_eq!(connection.request(&request).status, 200);
    issuer.say_of("token", &json!({"active": false}));
    wait_for_status(server, "token", 401);
    assert_eq!(connection.request(&request).status, 401);
    issuer.say_of("token", &active("alice"));
    wait_for_status(server, "token", 200);
    assert_eq!(connection.request(&request).status, 200);
}

#[test]
fn one_question_answers_all_who_wait_for_it() {
    let asking = asking(&AUDIENCE);
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("good", &active("alice"));
    // So that its metadata are there.
    refused(server, "other", "not active");
    issuer.hold(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| status(server, "good")))
            .collect();
        issuer.wait_for(INTROSPECTION, 2);
        issuer.hold(false);
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    assert_eq!(issuer.count(INTROSPECTION), 2);
}

#[test]
fn an_issuer_that_is_gone_takes_no_known_token_down() {
    let Asking {
        issuer,
        server,
        credentials: _credentials,
        _dir,
    } = asking(&[&AUDIENCE[..], &["--introspection-ttl", "1ms"]].concat());
    issuer.say_of("good", &active("alice"));
    let mut ending = active("alice");
    // Believed for some time yet: clocks may differ by 30 seconds.
    ending["exp"] = json!(token::now() - 15);
    issuer.say_of("ending", &ending);
    assert_eq!(
        (status(&server, "good"), status(&server, "ending")),
        (200, 200)
    );
    issuer.answer(INTROSPECTION, Answer::status(500));
    assert_eq!(status(&server, "good"), 200, "it fails");
    let unavailable = |token: &str| {
        let response = server.connect().request(&Request::of("GET", "xyz", token));
        Expected::code("overloaded").check(&response, "nobody can tell");
    };
    unavailable("new");
    drop(issuer);
    for _ in 0..3 {
        assert_eq!(status(&server, "good"), 200, "it is gone");
        unavailable("newer");
    }
    wait_for_status(&server, "ending", 401);
    refused_because(&server, "ending", "The token has expired.", "meanwhile");
    assert_eq!(status(&server, "good"), 200, "for longer than that");
}

#[test]
fn who_waits_for_an_issuer_leaves_places_to_others() {
    let asking = asking(&[&AUDIENCE[..], &["--max-connections", "4"]].concat());
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("known", &active("alice"));
    assert_eq!(status(server, "known"), 200);
    let before = issuer.count(INTROSPECTION);
    issuer.hold(true);
    std::thread::scope(|scope| {
        let waiting = ["one", "two"].map(|token| scope.spawn(move || status(server, token)));
        issuer.wait_for(INTROSPECTION, before + 2);
        let response = server
            .connect()
            .request(&Request::of("GET", "xyz", "three"));
        Expected::code("overloaded").check(&response, "too many wait");
        assert_eq!(status(server, "known"), 200);
        issuer.hold(false);
        for client in waiting {
            assert_eq!(client.join().unwrap(), 401);
        }
    });
    assert_eq!(issuer.count(INTROSPECTION), before + 2);
}

#[test]
fn an_issuer_that_hangs_holds_up_few_requests() {
    let asking = asking(&[&AUDIENCE[..], &["--introspection-ttl", "1ms"]].concat());
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    let before = issuer.count(INTROSPECTION);
    issuer.hold(true);
    // One waits in vain, and those after it are told so for a while.
    for _ in 0..12 {
        assert_eq!(status(server, "good"), 200);
        assert_eq!(status(server, "new"), 503);
    }
    let asked = issuer.count(INTROSPECTION) - before;
    assert!((1..=6).contains(&asked), "asked {asked} times");
    issuer.hold(false);
    // One that nothing is known of, so that it must be asked.
    issuer.say_of("later", &active("alice"));
    wait_for_status(server, "later", 200);
}

#[test]
fn sighup_reads_credentials_anew() {
    let asking = asking(&AUDIENCE);
    let Asking { issuer, server, .. } = &asking;
    let file = asking.credentials.path();
    issuer.say_of("first", &active("alice"));
    assert_eq!(status(server, "first"), 200);
    // What is none is not taken: the old ones stay.
    std::fs::write(file, "no colon").unwrap();
    server.hang_up();
    server.wait_for_log("what=\"keys\" error=");
    assert_eq!(status(server, "unfit"), 401);
    std::fs::write(file, "another:secret").unwrap();
    server.hang_up();
    server.wait_for_log("reload completed what=\"keys\"");
    assert_eq!(status(server, "anew"), 401);
    assert!(!server.has_logged("another"), "credentials in the log");
    let given: Vec<_> = issuer
        .questions()
        .into_iter()
        .filter(|question| question.target == INTROSPECTION)
        .map(|question| question.authorization.unwrap())
        .collect();
    let old = "Basic cHJlZmQ6YSUyMHNlY3JldA==";
    // "another:secret".
    assert_eq!(given, [old, old, "Basic YW5vdGhlcjpzZWNyZXQ="]);
}

#[test]
fn what_is_stale_is_not_believed_for_ever() {
    let arguments = [
        "--introspection-ttl",
        "1ms",
        "--introspection-max-stale",
        "1ms",
    ];
    let asking = asking(&[&AUDIENCE[..], &arguments].concat());
    let Asking { issuer, server, .. } = &asking;
    issuer.say_of("good", &active("alice"));
    assert_eq!(status(server, "good"), 200);
    for answer in [
        Answer::status(401),
        Answer::status(200),
        Answer::json(&json!({"active": "yes"})),
        Answer::json(&json!({})),
        Answer::json(&json!([])),
    ] {
        issuer.answer(INTROSPECTION, answer);
        wait_for_status(server, "good", 503);
    }
    server.wait_for_log("token introspection failed");
    assert!(!server.has_logged("good"), "a token in the log");
}

#[test]
fn a_linked_identity_can_be_required_of_both_kinds_of_token() {
    let asking = asking(&[&AUDIENCE[..], &["--linked-identity-claim", "linked"]].concat());
    let Asking { issuer, server, .. } = &asking;
    let key = Signer::new("ec256", "a");
    for (linked, expected) in [
        (json!("id"), 200),
        (json!(true), 200),
        (json!(null), 401),
        (json!(false), 401),
        (json!(""), 401),
    ] {
        let mut said = active("alice");
        said["linked"] = linked.clone();
        said["iss"] = json!(issuer.url());
        let opaque = format!("opaque-{}", token::base64url(&linked));
        issuer.say_of(&opaque, &said);
        for token in [opaque, key.sign(&said)] {
            let response = server.connect().request(&Request::of("GET", "xyz", &token));
            assert_eq!(response.status, expected, "{linked}");
            if expected == 401 {
                Expected::code("missing-linked-identity").check(&response, "not linked");
            }
        }
    }
}
