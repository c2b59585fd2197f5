//! Keys of identity providers: found, fetched, rotated, withdrawn, and kept where their
//! provider is gone.

mod common;

use common::{BINARY, refused, status, wait_for_status};
use prefd_tests::api_error::Expected;
use prefd_tests::http::Request;
use prefd_tests::issuer::{Answer, INTROSPECTION, Issuer, KEYS, METADATA, Signer};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

/// A server that takes tokens of this issuer only.
fn trusting(issuer: &Issuer, arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let url = issuer.url();
    let mut all = vec!["--oidc-issuer", &url, "--require-audience=false"];
    all.extend(arguments);
    launched(&all)
}

fn launched(arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path()).without_key();
    (launch.with(arguments).start(), dir)
}

fn unavailable(server: &Server, token: &str) {
    let response = server.connect().request(&Request::of("GET", "xyz", token));
    Expected::code("overloaded").check(&response, "its issuer cannot be reached");
}

#[test]
fn an_issuer_is_found_by_its_metadata() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwt-audience", "prefd"]);
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!(["other", "prefd"]);
    assert_eq!(status(&server, &key.sign(&claims)), 200);
    claims["aud"] = json!("other");
    refused(&server, &key.sign(&claims), "for another service");
    claims["aud"] = json!("prefd");
    for iss in [
        json!("http://127.0.0.1"),
        json!(null),
        json!([issuer.url()]),
    ] {
        claims["iss"] = iss.clone();
        refused(&server, &key.sign(&claims), &format!("iss {iss}"));
    }
    assert_eq!((issuer.count(METADATA), issuer.count(KEYS)), (1, 1));
}

/// RFC 8414 has it before the issuer's path, OpenID Connect behind it.
#[test]
fn metadata_of_either_kind_is_found() {
    let key = Signer::new("rsa", "a");
    let issuer = Issuer::start(&key);
    let mut metadata = issuer.metadata();
    let named = format!("{}/realms/one", issuer.url());
    metadata["issuer"] = json!(named);
    for place in [
        "/realms/one/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/realms/one",
    ] {
        issuer.answer(place, Answer::json(&metadata));
        let (server, _dir) = launched(&["--oidc-issuer", &named, "--require-audience=false"]);
        let mut claims = token::claims("alice", "xyz");
        claims["iss"] = json!(named);
        assert_eq!(status(&server, &key.sign(&claims)), 200, "{place}");
        assert_eq!(issuer.count(place), 1);
        issuer.answer(place, Answer::status(404));
    }
}

#[test]
fn metadata_that_cannot_be_right_give_no_keys() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let with = |name: &str, value: Value| {
        let mut metadata = issuer.metadata();
        metadata[name] = value;
        Answer::json(&metadata)
    };
    let huge = Answer {
        body: "x".repeat(300 * 1024),
        ..Answer::status(200)
    };
    let redirect = Answer {
        headers: format!("Location: {}/elsewhere\r\n", issuer.url()),
        ..Answer::status(302)
    };
    issuer.answer("/elsewhere", Answer::json(&issuer.metadata()));
    for (answer, word) in [
        (
            with("issuer", json!("https://another.example")),
            "of the issuer",
        ),
        (
            with("issuer", json!(format!("{}/", issuer.url()))),
            "of the issuer",
        ),
        (
            with("jwks_uri", json!("http://id.example/keys")),
            "https://",
        ),
        (with("jwks_uri", json!(7)), "metadata"),
        (Answer::json(&json!([])), "metadata"),
        (Answer::status(500), "500"),
        (huge, "bytes"),
        (redirect, "302"),
    ] {
        issuer.answer(METADATA, answer);
        let (server, _dir) = trusting(&issuer, &[]);
        server.wait_for_log(word);
        unavailable(&server, &issuer.token(&key, "alice", "xyz"));
    }
    assert_eq!((issuer.count("/elsewhere"), issuer.count(KEYS)), (0, 0));
}

#[test]
fn a_rotation_refuses_no_good_token_and_is_noticed_once_for_all() {
    let (old, new, newest) = (
        Signer::new("rsa", "old"),
        Signer::new("ec256", "new"),
        Signer::new("ec384", "newest"),
    );
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &[]);
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
    issuer.publish(&[&new, &old]);
    issuer.hold(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|index| {
                let (server, issuer, new) = (&server, &issuer, &new);
                scope.spawn(move || {
                    let token = issuer.token(new, &format!("user-{index}"), "xyz");
                    status(server, &token)
                })
            })
            .collect();
        issuer.wait_for(METADATA, 2);
        issuer.hold(false);
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    assert_eq!(issuer.count(KEYS), 2, "one fetch for all of them");
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
    // Within a minute nobody's token has keys fetched again.
    for id in 0..20 {
        let unknown = Signer::new("ec384", &format!("unknown-{id}"));
        refused(
            &server,
            &issuer.token(&unknown, "alice", "xyz"),
            "unknown key",
        );
    }
    issuer.publish(&[&newest]);
    refused(&server, &issuer.token(&newest, "alice", "xyz"), "too early");
    assert_eq!(issuer.count(KEYS), 2);
}

#[test]
fn a_withdrawn_key_takes_its_tokens_with_it() {
    let (old, new) = (Signer::new("ec256", "old"), Signer::new("ed25519", "new"));
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "50ms"]);
    let token = issuer.token(&old, "alice", "xyz");
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token);
    // Remembered by the connection, and by the server.
    for _ in 0..2 {
        assert_eq!(connection.request(&request).status, 200);
    }
    issuer.publish(&[&new, &old]);
    issuer.wait_for(KEYS, issuer.count(KEYS) + 2);
    assert_eq!(connection.request(&request).status, 200, "overlap");
    issuer.publish(&[&new]);
    wait_for_status(&server, &token, 401);
    assert_eq!(connection.request(&request).status, 401);
    assert_eq!(status(&server, &issuer.token(&new, "alice", "xyz")), 200);
}

#[test]
fn a_provider_that_is_gone_takes_nothing_down_that_is_known() {
    let (key, other) = (Signer::new("rsa", "a"), Signer::new("ec256", "b"));
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    let fresh = issuer.token(&key, "bob", "xyz");
    let of_another_key = issuer.token(&other, "alice", "xyz");
    issuer.shut(true);
    server.wait_for_log("cannot fetch the keys of an identity provider");
    assert_eq!(status(&server, &token), 200);
    assert_eq!(status(&server, &fresh), 200, "one that was not seen before");
    // It may be good: that is not known.
    unavailable(&server, &of_another_key);
    issuer.publish(&[&other]);
    issuer.shut(false);
    wait_for_status(&server, &of_another_key, 200);
    refused(
        &server,
        &issuer.token(&key, "alice", "xyz"),
        "withdrawn meanwhile",
    );
}

#[test]
fn a_key_set_that_says_nothing_changes_nothing() {
    let key = Signer::new("rsa", "a");
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    for (answer, fault) in [
        (Answer::json(&json!({})), "missing field `keys`"),
        (Answer::status(200), "EOF while parsing"),
        (Answer::status(503), "unexpected status 503"),
    ] {
        issuer.answer(KEYS, answer);
        // Once it is judged: before, nothing can have changed.
        server.wait_for_log(fault);
        assert_eq!(status(&server, &issuer.token(&key, "bob", "xyz")), 200);
        assert_eq!(status(&server, &token), 200);
    }
}

#[test]
fn a_provider_that_hangs_holds_up_only_whom_it_must_judge() {
    let (key, other) = (Signer::new("rsa", "a"), Signer::new("ec256", "b"));
    let issuer = Issuer::start(&key);
    let keys = format!("{}{KEYS}", issuer.url());
    let (server, _dir) = launched(&[
        "--jwks-url",
        &keys,
        "--require-audience=false",
        "--drain-timeout",
        "10m",
    ]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    issuer.hold(true);
    let mut waiting = server.connect();
    let of_another_key = issuer.token(&other, "alice", "xyz");
    let request = Request::of("GET", "xyz", &of_another_key);
    waiting.send(&request.bytes()).unwrap();
    issuer.wait_for(KEYS, 2);
    assert_eq!(status(&server, &token), 200, "a known one");
    let fresh = issuer.token(&key, "bob", "xyz");
    assert_eq!(status(&server, &fresh), 200, "one of a known key");
    // The end of the server waits for no provider, only for whoever has asked.
    server.terminate();
    server.wait_for_log("shutdown started");
    let response = waiting.read_response(false).unwrap();
    Expected::code("overloaded").check(&response, "nobody can tell");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_provider_that_comes_later_is_found() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let token = issuer.token(&key, "alice", "xyz");
    issuer.shut(true);
    let (server, _dir) = trusting(&issuer, &[]);
    unavailable(&server, &token);
    issuer.shut(false);
    wait_for_status(&server, &token, 200);
}

#[test]
fn a_provider_that_publishes_no_key_has_withdrawn_them() {
    let key = Signer::new("rsa", "a");
    for nothing in [
        json!({"keys": []}),
        json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}),
    ] {
        let issuer = Issuer::start(&key);
        let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
        let token = issuer.token(&key, "alice", "xyz");
        assert_eq!(status(&server, &token), 200);
        issuer.answer(KEYS, Answer::json(&nothing));
        wait_for_status(&server, &token, 401);
        refused(
            &server,
            &issuer.token(&key, "bob", "xyz"),
            "not seen before",
        );
        server.wait_for_log("no key in the key set can verify a signature");
        issuer.publish(&[&key]);
        wait_for_status(&server, &token, 200);
    }
}

#[test]
fn issuers_can_share_their_keys() {
    let (shared, own) = (Signer::new("rsa", "shared"), Signer::new("ec256", "own"));
    let (one, two) = (Issuer::start(&shared), Issuer::start(&shared));
    let (one_url, two_url) = (one.url(), two.url());
    let arguments = ["--oidc-issuer", &one_url, "--oidc-issuer", &two_url];
    let (server, _dir) = launched(&[&arguments[..], &["--require-audience=false"]].concat());
    for issuer in [&one, &two] {
        assert_eq!(status(&server, &issuer.token(&shared, "alice", "xyz")), 200);
    }
    // What is known of one does not keep the other from being asked.
    one.publish(&[&shared, &own]);
    assert_eq!(status(&server, &one.token(&own, "alice", "xyz")), 200);
    two.publish(&[&shared, &own]);
    assert_eq!(status(&server, &two.token(&own, "alice", "xyz")), 200);
}

#[test]
fn metadata_of_what_is_not_used_need_not_be_right() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let mut metadata = issuer.metadata();
    metadata["introspection_endpoint"] = json!("http://id.internal/introspection");
    issuer.answer(METADATA, Answer::json(&metadata));
    let (server, _dir) = trusting(&issuer, &[]);
    assert_eq!(status(&server, &issuer.token(&key, "alice", "xyz")), 200);
    // Where it is used, nobody is asked there, and the operator is told why.
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:secret").unwrap();
    let file = credentials.path().to_str().unwrap();
    let (server, _dir) = trusting(&issuer, &["--introspection-credentials-file", file]);
    unavailable(&server, "opaque");
    server.wait_for_log("id.internal");
}

/// As of an authority of the operator's own.
#[test]
fn keys_come_over_tls_from_whom_the_system_trusts() {
    let names = vec!["localhost".to_owned()];
    let identity = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()).into();
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key)
        .unwrap();
    let signer = Signer::new("ec256", "a");
    let issuer = Issuer::start_tls(&signer, tls);
    let dir = tempfile::tempdir().unwrap();
    let trusted = dir.path().join("authority.pem");
    std::fs::write(&trusted, identity.cert.pem()).unwrap();
    let launch = Launch::new(BINARY, &dir.path().join("data"))
        .without_key()
        .with(&["--oidc-issuer", &issuer.url(), "--require-audience=false"]);
    let token = issuer.token(&signer, "alice", "xyz");
    let server = launch.clone().start();
    server.wait_for_log("certificate");
    unavailable(&server, &token);
    assert_eq!(issuer.count(METADATA), 0, "nothing is said to a stranger");
    assert_eq!(server.stop().code(), Some(0));
    let server = launch
        .with_variable("SSL_CERT_FILE", trusted.to_str().unwrap())
        .start();
    assert_eq!(status(&server, &token), 200);
    assert_eq!((issuer.count(METADATA), issuer.count(KEYS)), (1, 1));
}

#[test]
fn an_issuer_speaks_for_itself_only() {
    let (one_key, two_key, bare_key) = (
        Signer::new("rsa", "same"),
        Signer::new("ec256", "same"),
        Signer::new("ed25519", "same"),
    );
    let (one, two, bare) = (
        Issuer::start(&one_key),
        Issuer::start(&two_key),
        Issuer::start(&bare_key),
    );
    let (one_url, two_url) = (one.url(), two.url());
    let keys = format!("{}{KEYS}", bare.url());
    let (server, _dir) = launched(&[
        "--oidc-issuer",
        &one_url,
        "--oidc-issuer",
        &two_url,
        "--jwks-url",
        &keys,
        "--jwt-issuer",
        "https://bare.example",
        "--require-audience=false",
    ]);
    let of = |key: &Signer, iss: &str| {
        let mut claims = token::claims("alice", "xyz");
        claims["iss"] = json!(iss);
        key.sign(&claims)
    };
    for (key, iss) in [
        (&one_key, one_url.as_str()),
        (&two_key, &two_url),
        (&bare_key, "https://bare.example"),
    ] {
        assert_eq!(status(&server, &of(key, iss)), 200, "{iss}");
    }
    for (key, iss) in [
        (&one_key, two_url.as_str()),
        (&two_key, &one_url),
        (&bare_key, &one_url),
        (&one_key, "https://bare.example"),
        (&one_key, "https://nobody.example"),
    ] {
        refused(&server, &of(key, iss), iss);
    }
    assert_eq!(
        bare.count(METADATA),
        0,
        "its keys are all that is asked for"
    );
}

#[test]
fn the_type_of_a_token_can_be_required() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwt-typ", "at+jwt"]);
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    let of = |typ: &Value| key.sign_with(&json!({"alg": "ES256", "kid": "a", "typ": typ}), &claims);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        assert_eq!(status(&server, &of(&json!(typ))), 200, "{typ}");
    }
    for typ in [json!("JWT"), json!("id_token"), json!(""), json!(null)] {
        refused(&server, &of(&typ), &format!("typ {typ}"));
    }
    let bare = key.sign_with(&json!({"alg": "ES256", "kid": "a"}), &claims);
    refused(&server, &bare, "no typ");
}

#[test]
fn clients_can_be_known_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .with(&["--known-client", "xyz", "--known-client", "a/b"])
        .start();
    let get =
        |client: &str, token: &str| server.connect().request(&Request::of("GET", client, token));
    assert_eq!(get("xyz", &token::of("alice", "xyz")).status, 200);
    assert_eq!(get("a%2Fb", &token::of("alice", "a/b")).status, 200);
    for client in ["XYZ", "xy", "other"] {
        let response = get(client, &token::of("alice", client));
        Expected::code("not-found").check(&response, client);
        // Who may not look is not told either.
        let response = get(client, &token::of("alice", "xyz"));
        assert_eq!(response.status, 403, "{client}");
    }
}

#[test]
fn settings_that_cannot_work_stop_the_start() {
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:secret\n").unwrap();
    let credentials = credentials.path().to_str().unwrap();
    let secret = token::secret_file();
    let secret = secret.to_str().unwrap();
    for (arguments, word) in [
        (&["--oidc-issuer", "http://id.example"][..], "https://"),
        (&["--oidc-issuer", "id.example"], "https"),
        (&["--oidc-issuer", "https://id.example/?a=b"], "query"),
        (&["--jwks-url", "https://u:p@id.example/keys"], "password"),
        (
            &["--oidc-issuer", "https://id.example", "--require-audience"],
            "--jwt-audience",
        ),
        (&["--oidc-issuer", "https://id.example"], "--jwt-audience"),
        (
            &["--jwks-url", "https://id.example/keys"],
            "--require-audience=false",
        ),
        (
            &["--jwt-hs256-secret-file", secret, "--require-audience"],
            "--jwt-audience",
        ),
        (
            &[
                "--jwt-audience",
                "a",
                "--introspection-url",
                "https://id.example/i",
            ],
            "--introspection-credentials-file",
        ),
        (
            &[
                "--jwt-audience",
                "a",
                "--introspection-credentials-file",
                credentials,
            ],
            "--introspection-url",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Launch::new(BINARY, dir.path())
            .without_key()
            .with(arguments)
            .run();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.err.contains(word), "{arguments:?}: {}", ended.err);
    }
    // With a local key the audience is the operator's choice, who is told.
    let (server, _dir) = launched(&["--jwt-hs256-secret-file", secret]);
    server.wait_for_log("--jwt-audience is not set");
    server.wait_for_log("--jwt-issuer is not set");
    let issuer = Issuer::start(&Signer::new("rsa", "a"));
    let (server, _dir) = trusting(&issuer, &["--jwt-audience", "prefd"]);
    assert_eq!(status(&server, "opaque"), 401);
    assert!(!server.has_logged("is not set"));
    assert_eq!(issuer.count(INTROSPECTION), 0);
}
