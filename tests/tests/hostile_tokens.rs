//! Many hostile clients with invented tokens at the same time as one well-behaved client, at a slow
//! identity provider. The well-behaved client must get its documents, and its response times are
//! limited.

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{BINARY, alone, wait_until};
use prefd_tests::hostile_clients::{ClientScript, HostileClients};
use prefd_tests::http::Request;
use prefd_tests::issuer::{INTROSPECTION, Issuer, Signer};
use prefd_tests::latency_probe::{LatencyProbe, NAMESPACE};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::json;

/// Each client sends one request per second, with another token each time.
const CLIENTS: usize = 900;
const PROVIDER_DELAY: Duration = Duration::from_secs(1);

/// Compares the response times of a client with the given token with an attack at a slow provider,
/// and without. `has_effect` returns true as soon as the attack has exhausted the resource that it
/// is directed at.
fn check_attack(
    attack: &str,
    server: &Server,
    issuer: &Issuer,
    token: &str,
    script: ClientScript,
    has_effect: impl FnMut() -> bool,
) {
    let _turn = alone();
    // The probe panics if a response is not the expected one, such as 401 or 503.
    let mut probe = LatencyProbe::with_token(server.address, token);
    let quiet = probe.rounds();
    issuer.delay_responses(PROVIDER_DELAY);
    let hostile_clients = HostileClients::start(CLIENTS, server.address, script);
    hostile_clients.wait_until_all_connected();
    wait_until("the attack has its effect", has_effect);
    probe.check_slowdown(attack, &quiet);
    drop(hostile_clients);
    assert!(!server.has_logged("panicked"));
}

/// A GET whose token `make` creates from a number that was not used before.
fn numbered(make: impl Fn(u64) -> String + Send + Sync + 'static) -> ClientScript {
    let next = AtomicU64::new(0);
    ClientScript::requesting(move || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        Request::of("GET", NAMESPACE, &make(number)).bytes()
    })
}

#[test]
fn invented_opaque_tokens_do_not_delay_a_known_user() {
    let issuer = Issuer::start(&Signer::new("ec256", "a"));
    issuer.set_introspection(
        "known",
        &json!({"active": true, "sub": "probe", "client_id": NAMESPACE, "exp": token::now() + 3600}),
    );
    let credentials = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(credentials.path(), "prefd:secret").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("{}{INTROSPECTION}", issuer.url());
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--introspection-url", &endpoint])
        .with(&["--introspection-credentials-file"])
        .with(&[credentials.path().to_str().unwrap()])
        // The known token has to be renewed many times during the test.
        .with(&["--introspection-ttl", "100ms"])
        .with(&["--require-audience=false", "--log", "warn"])
        .start();
    let status_of_another = || {
        let request = Request::of("GET", NAMESPACE, "another");
        server.connect().request(&request).status
    };
    check_attack(
        "invented opaque tokens",
        &server,
        &issuer,
        "known",
        numbered(|number| format!("invented-{number}")),
        || status_of_another() == 503,
    );
}

#[test]
fn invented_key_ids_do_not_delay_tokens_of_a_known_key() {
    let (key, new) = (Signer::new("ec256", "a"), Signer::new("ed25519", "new"));
    let issuer = Issuer::start(&key);
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--oidc-issuer", &issuer.url()])
        .with(&["--require-audience=false", "--log", "warn"])
        .start();
    let token = issuer.token(&key, "probe", NAMESPACE);
    let claims = token.split('.').nth(1).unwrap().to_owned();
    let get = |token: &str| {
        let request = Request::of("GET", NAMESPACE, token);
        server.connect().request(&request).status
    };
    let invented = move |number: u64| {
        let header = json!({"alg": "ES256", "kid": format!("invented-{number}")});
        format!("{}.{claims}.AAAA", token::base64url(&header))
    };
    let unknown = invented(u64::MAX);
    check_attack(
        "invented key ids",
        &server,
        &issuer,
        &token,
        numbered(invented),
        || get(&unknown) == 503,
    );
    // After a rotation, a token of the new key is never called invalid, and is soon accepted.
    issuer.publish(&[&new, &key]);
    let of_new_key = issuer.token(&new, "probe", NAMESPACE);
    wait_until("the new key is known", || match get(&of_new_key) {
        200 => true,
        503 => false,
        status => panic!("unexpected status {status} for a token of a new key"),
    });
}
