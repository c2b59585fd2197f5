//! A real identity provider and a real server: users log in with the authorization code flow,
//! and the server accepts their tokens. The provider also rotates its keys, and goes down.

mod common;

use common::{BINARY, refused_because, status, wait_for_status};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::machine;
use prefd_tests::oidc_provider::{AUDIENCE, CREDENTIALS, JWT, OPAQUE, OidcProvider};
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;
use serde_json::{Value, json};

/// Starts a server that accepts the tokens of the provider.
fn start_server_for(provider: &OidcProvider, arguments: &[&str]) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials");
    std::fs::write(&credentials, CREDENTIALS).unwrap();
    let server = Launch::new(BINARY, &dir.path().join("data"))
        .without_key()
        .with(&["--oidc-issuer", provider.url()])
        .with(&["--jwt-audience", AUDIENCE, "--jwt-typ", "at+jwt"])
        .with(&[
            "--introspection-credentials-file",
            credentials.to_str().unwrap(),
        ])
        .with(arguments)
        .start();
    (server, dir)
}

/// Sends a GET, and returns the status and the body.
fn read(server: &Server, client: &str, token: &str) -> (u16, String) {
    let response = server.connect().request(&Request::of("GET", client, token));
    (response.status, response.text().to_owned())
}

/// A copy of a JWT with another `iat`. The copy has the signature of the original, which is not
/// valid for the changed claims, and names the same key.
fn forged_copy(jwt: &str, issued_at: u64) -> String {
    let parts: Vec<&str> = jwt.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!("expected a JWT with three parts: {jwt}");
    };
    let mut claims: Value = serde_json::from_slice(&token::base64url_decoded(claims)).unwrap();
    claims["iat"] = json!(issued_at);
    format!("{header}.{}.{signature}", token::base64url(&claims))
}

#[test]
fn provider_tokens_give_access_to_the_documents_of_their_user() {
    if !machine::has_oidc_provider() {
        return;
    }
    let mut provider = OidcProvider::start();
    let (server, _dir) = start_server_for(&provider, &[]);
    for (resource, client) in [(JWT, "xyz"), (OPAQUE, "other")] {
        let alice = provider.log_in("alice", client, resource, "");
        let bob = provider.log_in("bob", client, resource, "");
        let body = format!("{{\"of\":\"{resource}\"}}");
        let put = Request::of("PUT", client, &alice).body(&body);
        assert_eq!(server.connect().request(&put).status, 204, "{resource}");
        assert_eq!(read(&server, client, &alice), (200, body), "{resource}");
        assert_eq!(read(&server, client, &bob), (200, "{}".to_owned()));
        assert_eq!(read(&server, "foreign", &alice).0, 403);
        let scope = "user:preferences:read:foreign";
        let scoped = provider.log_in("alice", client, resource, scope);
        assert_eq!(read(&server, "foreign", &scoped).0, 200, "{resource}");
        let write = Request::of("PUT", "foreign", &scoped).body("{}");
        assert_eq!(server.connect().request(&write).status, 403, "{resource}");
    }
}

#[test]
fn key_rotation_does_not_refuse_valid_tokens() {
    if !machine::has_oidc_provider() {
        return;
    }
    let mut provider = OidcProvider::start();
    let (server, _dir) = start_server_for(&provider, &["--jwks-refresh", "200ms"]);
    let old = provider.log_in("alice", "xyz", JWT, "");
    assert_eq!(status(&server, &old), 200);
    for _ in 0..3 {
        provider.rotate();
        let new = provider.log_in("alice", "xyz", JWT, "");
        // A token with an unknown key triggers an early refresh. Tokens signed with the old
        // key stay valid, because the provider still publishes that key.
        wait_for_status(&server, &new, 200);
        assert_eq!(status(&server, &old), 200);
    }
    let new = provider.log_in("bob", "xyz", JWT, "");
    assert_eq!(status(&server, &new), 200);
    provider.withdraw();
    wait_for_status(&server, &old, 401);
    assert_eq!(status(&server, &new), 200);
}

#[test]
fn token_with_an_unknown_key_triggers_a_key_refresh() {
    if !machine::has_oidc_provider() {
        return;
    }
    let mut provider = OidcProvider::start();
    let (server, _dir) = start_server_for(&provider, &["--jwks-refresh", "1h"]);
    let old = provider.log_in("alice", "xyz", JWT, "");
    assert_eq!(status(&server, &old), 200);
    provider.rotate();
    let new = provider.log_in("alice", "xyz", JWT, "");
    assert_eq!((status(&server, &new), status(&server, &old)), (200, 200));
}

#[test]
fn provider_outage_does_not_change_which_tokens_are_accepted() {
    if !machine::has_oidc_provider() {
        return;
    }
    let mut provider = OidcProvider::start();
    let (server, _dir) = start_server_for(
        &provider,
        &["--jwks-refresh", "50ms", "--introspection-ttl", "50ms"],
    );
    let (jwt, unseen) = (
        provider.log_in("alice", "xyz", JWT, ""),
        provider.log_in("bob", "xyz", JWT, ""),
    );
    let (opaque, revoked) = (
        provider.log_in("alice", "xyz", OPAQUE, ""),
        provider.log_in("bob", "xyz", OPAQUE, ""),
    );
    for token in [&jwt, &opaque, &revoked] {
        assert_eq!(status(&server, token), 200);
    }
    provider.revoke(&revoked, "xyz");
    wait_for_status(&server, &revoked, 401);
    assert_eq!(status(&server, &opaque), 200);
    drop(provider);
    server.wait_for_log("cannot fetch the keys of an identity provider");
    for _ in 0..10 {
        for token in [&jwt, &unseen, &opaque] {
            assert_eq!(status(&server, token), 200);
        }
        // The provider has reported this token as revoked. It must not become valid again.
        assert_ne!(status(&server, &revoked), 200);
    }
    // The last successful fetch began after this token was issued, so its key would be known.
    let an_hour_ago = forged_copy(&jwt, token::now() - 3_600);
    let reason = "The token is not signed by a trusted key.";
    refused_because(&server, &an_hour_ago, reason, "a forged older token");
    // The last successful fetch began before this token was issued. The provider may have published
    // another key with the id of the known key since then, so the response is 503 and not 401.
    let forged = forged_copy(&jwt, token::now());
    let response = server
        .connect()
        .request(&Request::of("GET", "xyz", &forged));
    ExpectedError::code("overloaded").check(&response, "a forged newer token");
    // Forged tokens do not change which tokens are accepted.
    for token in [&jwt, &unseen, &opaque] {
        assert_eq!(status(&server, token), 200);
    }
}
