//! Keys of identity providers: discovery, fetching, rotation, withdrawal, and outages of the
//! provider.

mod common;

use common::{BINARY, refused, status, wait_for_status, wait_until};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::issuer::{CannedResponse, INTROSPECTION, Issuer, KEYS, METADATA, Signer};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

/// Starts a server that accepts only tokens of this issuer.
fn trusting(issuer: &Issuer, arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let url = issuer.url();
    let mut all = vec!["--oidc-issuer", &url, "--require-audience=false"];
    all.extend(arguments);
    launch(&all)
}

/// Starts a server without a local key.
fn launch(arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(arguments)
        .start();
    (server, dir)
}

/// Sends a GET with the given token, and expects the error `overloaded`.
fn expect_overloaded(server: &Server, token: &str) {
    let response = server.connect().request(&Request::of("GET", "xyz", token));
    ExpectedError::code("overloaded").check(&response, "the token's issuer cannot be reached");
}

#[test]
fn keys_are_found_with_the_metadata_of_the_issuer() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwt-audience", "prefd"]);
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(issuer.url());
    claims["aud"] = json!(["other", "prefd"]);
    assert_eq!(status(&server, &key.sign(&claims)), 200);
    claims["aud"] = json!("other");
    refused(&server, &key.sign(&claims), "a token for another audience");
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

/// OpenID Connect puts the well-known path after the path of the issuer. RFC 8414 puts the
/// well-known path before the path of the issuer.
#[test]
fn metadata_is_found_at_the_openid_and_the_rfc_8414_path() {
    let key = Signer::new("rsa", "a");
    let issuer = Issuer::start(&key);
    let mut metadata = issuer.metadata();
    let realm = format!("{}/realms/one", issuer.url());
    metadata["issuer"] = json!(realm);
    for path in [
        "/realms/one/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/realms/one",
    ] {
        issuer.respond(path, CannedResponse::json(&metadata));
        let (server, _dir) = launch(&["--oidc-issuer", &realm, "--require-audience=false"]);
        let mut claims = token::claims("alice", "xyz");
        claims["iss"] = json!(realm);
        assert_eq!(status(&server, &key.sign(&claims)), 200, "{path}");
        assert_eq!(issuer.count(path), 1);
        issuer.respond(path, CannedResponse::status(404));
    }
}

#[test]
fn invalid_metadata_provides_no_keys() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let with = |name: &str, value: Value| {
        let mut metadata = issuer.metadata();
        metadata[name] = value;
        CannedResponse::json(&metadata)
    };
    let huge = CannedResponse {
        body: "x".repeat(300 * 1024),
        ..CannedResponse::status(200)
    };
    let redirect = CannedResponse {
        headers: format!("Location: {}/elsewhere\r\n", issuer.url()),
        ..CannedResponse::status(302)
    };
    issuer.respond("/elsewhere", CannedResponse::json(&issuer.metadata()));
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
        (CannedResponse::json(&json!([])), "metadata"),
        (CannedResponse::status(500), "500"),
        (huge, "bytes"),
        (redirect, "302"),
    ] {
        issuer.respond(METADATA, answer);
        let (server, _dir) = trusting(&issuer, &[]);
        server.wait_for_log(word);
        expect_overloaded(&server, &issuer.token(&key, "alice", "xyz"));
    }
    assert_eq!((issuer.count("/elsewhere"), issuer.count(KEYS)), (0, 0));
}

#[test]
fn key_rotation_is_noticed_with_one_fetch_for_all_requests() {
    let (old, new) = (Signer::new("rsa", "old"), Signer::new("ec256", "new"));
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &[]);
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
    issuer.publish(&[&new, &old]);
    issuer.hold_responses(true);
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
        issuer.hold_responses(false);
        for client in clients {
            assert_eq!(client.join().unwrap(), 200);
        }
    });
    assert_eq!(
        issuer.count(KEYS),
        2,
        "all requests with the new key must share one fetch"
    );
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
}

/// Anybody can send tokens with invented key ids, and so use up the fetches that tokens can
/// trigger. A token of a new key may then have to wait, but it must not get 401, because its client
/// would discard it.
#[test]
fn invented_key_ids_do_not_make_new_tokens_invalid() {
    let (old, new) = (Signer::new("ec256", "old"), Signer::new("ed25519", "new"));
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &[]);
    let get = |token: &str| server.connect().request(&Request::of("GET", "xyz", token));
    assert_eq!(get(&issuer.token(&old, "alice", "xyz")).status, 200);
    let mut refused = 0;
    loop {
        let invented = Signer::new("ec384", &format!("invented-{refused}"));
        match get(&issuer.token(&invented, "alice", "xyz")).status {
            401 => refused += 1,
            status => break assert_eq!(status, 503),
        }
        assert!(
            refused < 100,
            "tokens must not trigger an unlimited number of fetches"
        );
    }
    assert!(
        refused > 2,
        "a few invented tokens must not prevent further fetches"
    );
    assert_eq!(issuer.count(KEYS), 1 + refused);
    assert_eq!(
        get(&issuer.token(&old, "bob", "xyz")).status,
        200,
        "a known key"
    );
    issuer.publish(&[&new, &old]);
    let of_new_key = issuer.token(&new, "alice", "xyz");
    let response = get(&of_new_key);
    ExpectedError::code("overloaded").check(&response, "a new key");
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&wait), "{wait}");
    wait_until("the new key is known", || match get(&of_new_key).status {
        200 => true,
        503 => false,
        status => panic!("unexpected status {status} for a token of a new key"),
    });
}

/// Some providers give a new key the id of an old one.
#[test]
fn new_key_with_a_known_id_is_fetched_for_a_fresh_token() {
    let (old, new) = (Signer::new("rsa", "same"), Signer::new("ec256", "same"));
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &[]);
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
    issuer.publish(&[&new]);
    let issued_at = |seconds: u64| {
        let mut claims = token::claims("alice", "xyz");
        claims["iss"] = json!(issuer.url());
        claims["iat"] = json!(seconds);
        new.sign(&claims)
    };
    // The keys were fetched after this token was issued, so its key would be known.
    let an_hour_ago = issued_at(token::now() - 3_600);
    refused(&server, &an_hour_ago, "an old token with a wrong signature");
    assert_eq!(issuer.count(KEYS), 1);
    assert_eq!(status(&server, &issued_at(token::now())), 200);
    assert_eq!(issuer.count(KEYS), 2);
}

/// A request can arrive while a fetch is running that began before the provider published the
/// request's key.
#[test]
fn key_published_during_a_fetch_is_fetched_again() {
    let (old, new) = (Signer::new("ec256", "old"), Signer::new("ed25519", "new"));
    let issuer = Issuer::start(&old);
    let keys = format!("{}{KEYS}", issuer.url());
    let (server, _dir) = launch(&["--jwks-url", &keys, "--require-audience=false"]);
    assert_eq!(status(&server, &issuer.token(&old, "alice", "xyz")), 200);
    issuer.hold_responses(true);
    let unknown = issuer.token(&Signer::new("ec384", "unknown"), "alice", "xyz");
    let of_new_key = issuer.token(&new, "alice", "xyz");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| status(&server, &unknown));
        // The provider has already chosen its response, without the new key.
        issuer.wait_for(KEYS, 2);
        issuer.publish(&[&new, &old]);
        let mut second = server.connect();
        second
            .send(&Request::of("GET", "xyz", &of_new_key).bytes())
            .unwrap();
        // The server has read the second request when it answers a later one.
        assert_eq!(status(&server, &issuer.token(&old, "bob", "xyz")), 200);
        issuer.hold_responses(false);
        assert_eq!(second.read_response(false).unwrap().status, 200);
        assert_eq!(first.join().unwrap(), 401);
    });
}

#[test]
fn tokens_of_a_withdrawn_key_are_refused() {
    let (old, new) = (Signer::new("ec256", "old"), Signer::new("ed25519", "new"));
    let issuer = Issuer::start(&old);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "50ms"]);
    let token = issuer.token(&old, "alice", "xyz");
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token);
    // The token is now cached by the connection and by the server.
    for _ in 0..2 {
        assert_eq!(connection.request(&request).status, 200);
    }
    issuer.publish(&[&new, &old]);
    issuer.wait_for(KEYS, issuer.count(KEYS) + 2);
    assert_eq!(
        connection.request(&request).status,
        200,
        "both keys are published"
    );
    issuer.publish(&[&new]);
    wait_for_status(&server, &token, 401);
    assert_eq!(connection.request(&request).status, 401);
    assert_eq!(status(&server, &issuer.token(&new, "alice", "xyz")), 200);
}

#[test]
fn known_keys_stay_valid_while_the_provider_is_unreachable() {
    let (key, other) = (Signer::new("rsa", "a"), Signer::new("ec256", "b"));
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    let fresh = issuer.token(&key, "bob", "xyz");
    let of_another_key = issuer.token(&other, "alice", "xyz");
    issuer.refuse_connections(true);
    server.wait_for_log("cannot fetch the keys of an identity provider");
    assert_eq!(status(&server, &token), 200);
    assert_eq!(status(&server, &fresh), 200, "a new token of a known key");
    // The provider may have published this key, so the response is 503 and not 401.
    expect_overloaded(&server, &of_another_key);
    issuer.publish(&[&other]);
    issuer.refuse_connections(false);
    wait_for_status(&server, &of_another_key, 200);
    refused(
        &server,
        &issuer.token(&key, "alice", "xyz"),
        "a token of a key that was withdrawn during the outage",
    );
}

#[test]
fn invalid_key_set_response_keeps_the_known_keys() {
    let key = Signer::new("rsa", "a");
    let issuer = Issuer::start(&key);
    let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    for (answer, fault) in [
        (CannedResponse::json(&json!({})), "missing field `keys`"),
        (CannedResponse::status(200), "EOF while parsing"),
        (CannedResponse::status(503), "unexpected status 503"),
    ] {
        issuer.respond(KEYS, answer);
        // The log line shows that the server has evaluated the response.
        server.wait_for_log(fault);
        assert_eq!(status(&server, &issuer.token(&key, "bob", "xyz")), 200);
        assert_eq!(status(&server, &token), 200);
    }
}

#[test]
fn hanging_provider_delays_only_tokens_of_unknown_keys() {
    let (key, other) = (Signer::new("rsa", "a"), Signer::new("ec256", "b"));
    let issuer = Issuer::start(&key);
    let keys = format!("{}{KEYS}", issuer.url());
    let (server, _dir) = launch(&[
        "--jwks-url",
        &keys,
        "--require-audience=false",
        "--drain-timeout",
        "10m",
    ]);
    let token = issuer.token(&key, "alice", "xyz");
    assert_eq!(status(&server, &token), 200);
    issuer.hold_responses(true);
    let mut waiting = server.connect();
    let of_another_key = issuer.token(&other, "alice", "xyz");
    let request = Request::of("GET", "xyz", &of_another_key);
    waiting.send(&request.bytes()).unwrap();
    issuer.wait_for(KEYS, 2);
    assert_eq!(status(&server, &token), 200, "a cached token");
    let fresh = issuer.token(&key, "bob", "xyz");
    assert_eq!(status(&server, &fresh), 200, "a new token of a known key");
    // A stopping server waits for its requests in flight, but not for an identity provider.
    server.terminate();
    server.wait_for_log("shutdown started");
    let response = waiting.read_response(false).unwrap();
    ExpectedError::code("overloaded").check(
        &response,
        "a token of an unknown key while the provider hangs",
    );
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn provider_that_starts_after_the_server_is_found() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let token = issuer.token(&key, "alice", "xyz");
    issuer.refuse_connections(true);
    let (server, _dir) = trusting(&issuer, &[]);
    expect_overloaded(&server, &token);
    issuer.refuse_connections(false);
    wait_for_status(&server, &token, 200);
}

#[test]
fn key_set_without_usable_keys_withdraws_all_keys() {
    let key = Signer::new("rsa", "a");
    for nothing in [
        json!({"keys": []}),
        json!({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}),
    ] {
        let issuer = Issuer::start(&key);
        let (server, _dir) = trusting(&issuer, &["--jwks-refresh", "20ms"]);
        let token = issuer.token(&key, "alice", "xyz");
        assert_eq!(status(&server, &token), 200);
        issuer.respond(KEYS, CannedResponse::json(&nothing));
        wait_for_status(&server, &token, 401);
        refused(
            &server,
            &issuer.token(&key, "bob", "xyz"),
            "a new token of the withdrawn key",
        );
        server.wait_for_log("the key set contains no key that can verify the signature of a token");
        issuer.publish(&[&key]);
        wait_for_status(&server, &token, 200);
    }
}

#[test]
fn two_issuers_can_share_a_key() {
    let (shared, own) = (Signer::new("rsa", "shared"), Signer::new("ec256", "own"));
    let (one, two) = (Issuer::start(&shared), Issuer::start(&shared));
    let (one_url, two_url) = (one.url(), two.url());
    let arguments = ["--oidc-issuer", &one_url, "--oidc-issuer", &two_url];
    let (server, _dir) = launch(&[&arguments[..], &["--require-audience=false"]].concat());
    for issuer in [&one, &two] {
        assert_eq!(status(&server, &issuer.token(&shared, "alice", "xyz")), 200);
    }
    // The server fetches the second issuer's keys, although it knows the same key from the first.
    one.publish(&[&shared, &own]);
    assert_eq!(status(&server, &one.token(&own, "alice", "xyz")), 200);
    two.publish(&[&shared, &own]);
    assert_eq!(status(&server, &two.token(&own, "alice", "xyz")), 200);
}

#[test]
fn invalid_introspection_endpoint_matters_only_if_used() {
    let key = Signer::new("ec256", "a");
    let issuer = Issuer::start(&key);
    let mut metadata = issuer.metadata();
    metadata["introspection_endpoint"] = json!("http://id.internal/introspection");
    issuer.respond(METADATA, CannedResponse::json(&metadata));
    let (server, _dir) = trusting(&issuer, &[]);
    assert_eq!(status(&server, &issuer.token(&key, "alice", "xyz")), 200);
    // With introspection credentials, the server needs the endpoint. The server sends no token to
    // an invalid URL, and logs the reason.
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:secret").unwrap();
    let file = credentials.path().to_str().unwrap();
    let (server, _dir) = trusting(&issuer, &["--introspection-credentials-file", file]);
    expect_overloaded(&server, "opaque");
    server.wait_for_log("id.internal");
}

/// Covers a private certificate authority of the operator.
#[test]
fn keys_are_fetched_over_tls_with_the_system_certificates() {
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
    expect_overloaded(&server, &token);
    assert_eq!(
        issuer.count(METADATA),
        0,
        "the server must send no request to a provider with an untrusted certificate"
    );
    assert_eq!(server.stop().code(), Some(0));
    let server = launch
        .with_variable("SSL_CERT_FILE", trusted.to_str().unwrap())
        .start();
    assert_eq!(status(&server, &token), 200);
    assert_eq!((issuer.count(METADATA), issuer.count(KEYS)), (1, 1));
}

/// With containers, browsers and tokens use the public URL of the identity provider, which the
/// server often cannot reach.
#[test]
fn keys_of_an_issuer_can_come_from_an_internal_url() {
    let key = Signer::new("ec256", "a");
    let internal = Issuer::start(&key);
    let keys = format!("{}{KEYS}", internal.url());
    let public = "https://id.example/realms/main";
    let (server, _dir) = launch(&[
        "--oidc-issuer",
        public,
        "--oidc-jwks-url",
        &keys,
        "--require-audience=false",
    ]);
    let mut claims = token::claims("alice", "xyz");
    claims["iss"] = json!(public);
    assert_eq!(status(&server, &key.sign(&claims)), 200);
    refused(
        &server,
        &internal.token(&key, "alice", "xyz"),
        "the internal URL is not the issuer",
    );
    assert_eq!((internal.count(METADATA), internal.count(KEYS)), (0, 1));
}

#[test]
fn plain_http_issuer_on_another_machine_requires_a_setting() {
    // The host does not exist, so no request is sent to another machine.
    let arguments = ["--oidc-issuer", "http://keycloak.invalid:8080"];
    let arguments = [&arguments[..], &["--require-audience=false"]].concat();
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&arguments)
        .run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    assert!(ended.err.contains("--allow-http-issuer"), "{}", ended.err);
    let (server, _dir) = launch(&[&arguments[..], &["--allow-http-issuer"]].concat());
    server.wait_for_log("anyone who can change this traffic can issue tokens for any user");
    server.wait_for_log("cannot fetch the keys of an identity provider");
}

#[test]
fn issuer_cannot_sign_tokens_for_another_issuer() {
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
    let (server, _dir) = launch(&[
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
        "with --jwks-url, the server must not fetch metadata"
    );
}

#[test]
fn jwt_typ_refuses_tokens_of_other_types() {
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
fn known_client_refuses_all_other_clients() {
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
        ExpectedError::code("not-found").check(&response, client);
        // A token without the scope gets 403, so the response does not reveal the known clients.
        let response = get(client, &token::of("alice", "xyz"));
        assert_eq!(response.status, 403, "{client}");
    }
}

#[test]
fn invalid_token_settings_prevent_the_start() {
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
    // With a local key, the audience and the issuer are optional, and the log warns if they are not
    // set.
    let (server, _dir) = launch(&["--jwt-hs256-secret-file", secret]);
    server.wait_for_log("--jwt-audience is not set");
    server.wait_for_log("--jwt-issuer is not set");
    let issuer = Issuer::start(&Signer::new("rsa", "a"));
    let (server, _dir) = trusting(&issuer, &["--jwt-audience", "prefd"]);
    assert_eq!(status(&server, "opaque"), 401);
    assert!(!server.has_logged("is not set"));
    assert_eq!(issuer.count(INTROSPECTION), 0);
}
