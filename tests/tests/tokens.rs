//! Tokens: which tokens are accepted. A token cannot choose the algorithm or the key that
//! verifies it.

mod common;

use std::cmp::Ordering;

use common::{BINARY, fresh, refused, refused_because, status, wait_for_status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::api_error::ExpectedError;
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url, fixture, hs256, hs256_key, now, signed};
use serde_json::{Value, json};

/// Returns valid claims with one claim changed.
fn with(name: &str, value: Value) -> Value {
    let mut claims = token::claims("alice", "xyz");
    claims[name] = value;
    claims
}

/// Returns valid claims with one claim removed.
fn without(name: &str) -> Value {
    let mut claims = token::claims("alice", "xyz");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn missing_token_and_invalid_token_are_different_errors() {
    let (server, _dir) = fresh(&[]);
    let good = token::of("alice", "xyz");
    let path = common::target("xyz");
    for header in [
        None,
        Some("Basic eDp5"),
        Some("Digest x"),
        Some("BearerX"),
        Some(good.as_str()),
        Some(""),
    ] {
        let mut request = Request::new("GET", &path);
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let response = server.connect().request(&request);
        ExpectedError::code("missing-token").check(&response, &format!("{header:?}"));
    }
    let invalid = ExpectedError::code("invalid-token").source(json!({"header": "Authorization"}));
    for header in [
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer a.b.c",
        "bearer ..",
        "Bearer \u{fc}",
    ] {
        let response = server
            .connect()
            .request(&Request::new("GET", &path).header("Authorization", header));
        invalid.check(&response, header);
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request =
            Request::new("GET", &path).header("Authorization", &format!("{scheme} {good}"));
        assert_eq!(server.connect().request(&request).status, 200);
    }
    let query = Request::new("GET", &format!("{path}?access_token={good}"));
    ExpectedError::code("missing-token").check(&server.connect().request(&query), "in the query");
}

#[test]
fn exp_is_required_and_exp_and_nbf_are_checked() {
    let (server, _dir) = fresh(&[]);
    refused(&server, &hs256(&without("exp")), "no exp");
    for exp in [
        json!((now() + 99).to_string()),
        json!(null),
        json!([now() + 99]),
        json!(true),
        json!(-5),
        json!({}),
    ] {
        refused(
            &server,
            &hs256(&with("exp", exp.clone())),
            &format!("exp {exp}"),
        );
    }
    refused(&server, &hs256(&with("exp", json!(now() - 40))), "expired");
    assert_eq!(
        status(&server, &hs256(&with("exp", json!(now() - 20)))),
        200,
        "expected the token to be valid within the leeway"
    );
    assert_eq!(
        status(&server, &hs256(&with("exp", json!(now() as f64 + 10.5)))),
        200,
        "expected a decimal `exp` to be accepted"
    );
    refused(
        &server,
        &hs256(&with("exp", json!(now() as f64 - 40.5))),
        "decimal, expired",
    );
    refused(
        &server,
        &hs256(&with("nbf", json!(now() + 60))),
        "nbf in the future",
    );
    refused(&server, &hs256(&with("nbf", json!("0"))), "nbf as a string");
    assert_eq!(
        status(&server, &hs256(&with("nbf", json!(now() + 15)))),
        200,
        "expected the token to be valid within the leeway"
    );
}

/// A proxy sends requests of several users over one connection.
#[test]
fn users_on_one_connection_get_their_own_documents() {
    let (server, _dir) = fresh(&[]);
    let mut client = server.connect();
    let tokens = [token::of("alice", "xyz"), token::of("bobby", "xyz")];
    // Tokens of equal length, so that only their bytes differ.
    assert_eq!(tokens[0].len(), tokens[1].len());
    let mut forged = tokens[0].clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let bodies = [r#"{"of":"alice"}"#, r#"{"of":"bobby"}"#];
    for (token, body) in tokens.iter().zip(bodies) {
        let put = Request::of("PUT", "xyz", token).body(body);
        assert_eq!(client.request(&put).status, 204);
    }
    let sequence = [0, 0, 1, 1, 0, 2, 0, 2, 1, 2, 2, 1, 0];
    for user in sequence {
        let Some(token) = tokens.get(user) else {
            let response = client.request(&Request::of("GET", "xyz", &forged));
            assert_eq!(response.status, 401);
            continue;
        };
        let response = client.request(&Request::of("GET", "xyz", token));
        assert_eq!((response.status, response.text()), (200, bodies[user]));
    }
}

#[test]
fn cached_token_expires() {
    let (server, _dir) = fresh(&[]);
    // With the leeway, the token stays valid for some seconds.
    let token = hs256(&with("exp", json!(now() - 20)));
    assert_eq!(status(&server, &token), 200);
    wait_for_status(&server, &token, 401);
    refused_because(&server, &token, "The token has expired.", "a cached token");
}

#[test]
fn user_and_client_claims_are_required() {
    let (server, _dir) = fresh(&[]);
    for bad in [
        json!(""),
        json!(null),
        json!(7),
        json!("a\nb"),
        json!("x".repeat(256)),
        json!(["alice"]),
    ] {
        refused(
            &server,
            &hs256(&with("sub", bad.clone())),
            &format!("sub {bad}"),
        );
        refused(
            &server,
            &hs256(&with("client_id", bad.clone())),
            &format!("client_id {bad}"),
        );
    }
    refused(&server, &hs256(&without("sub")), "no sub");
    refused(&server, &hs256(&without("client_id")), "no client_id");
    let mut azp = without("client_id");
    azp["azp"] = json!("xyz");
    assert_eq!(status(&server, &hs256(&azp)), 200, "azp");
    for scope in [
        json!("user:preferences:read:xyz other"),
        json!(["user:preferences:read:xyz"]),
    ] {
        for name in ["scope", "scp"] {
            let mut claims = with("client_id", json!("foreign"));
            claims[name] = scope.clone();
            assert_eq!(status(&server, &hs256(&claims)), 200, "{name} {scope}");
        }
    }
}

#[test]
fn algorithm_is_determined_by_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let public = fixture("keys/rsa-test-only.pub.pem");
    let server = Launch::new(BINARY, dir.path())
        .with(&["--jwt-public-key-file", public.to_str().unwrap()])
        .start();
    let claims = token::claims("alice", "xyz");
    let rsa = EncodingKey::from_rsa_pem(&std::fs::read(fixture("keys/rsa-test-only.pem")).unwrap())
        .unwrap();
    assert_eq!(
        status(
            &server,
            &signed(&json!({"alg": "RS256"}), &claims, Algorithm::RS256, &rsa)
        ),
        200
    );
    for none in ["none", "None", "NONE", "nOnE"] {
        let head = base64url(&json!({"alg": none, "typ": "JWT"}));
        refused(&server, &format!("{head}.{}.", base64url(&claims)), none);
        refused(
            &server,
            &format!("{head}.{}.AAAA", base64url(&claims)),
            none,
        );
    }
    // Algorithm confusion: the public key is used as an HMAC secret.
    let public_key_as_secret = EncodingKey::from_secret(&std::fs::read(&public).unwrap()).unwrap();
    refused(
        &server,
        &signed(
            &json!({"alg": "HS256"}),
            &claims,
            Algorithm::HS256,
            &public_key_as_secret,
        ),
        "the public key as an HMAC secret",
    );
    refused(
        &server,
        &signed(
            &json!({"alg": "RS256"}),
            &claims,
            Algorithm::HS256,
            &public_key_as_secret,
        ),
        "the public key as an HMAC secret",
    );
    // Signed with a configured key, but with an algorithm that the key is not for.
    for (name, algorithm) in [
        ("RS384", Algorithm::RS384),
        ("RS512", Algorithm::RS512),
        ("PS256", Algorithm::PS256),
    ] {
        refused(
            &server,
            &signed(&json!({"alg": name}), &claims, algorithm, &rsa),
            name,
        );
    }
    for (name, algorithm) in [("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)] {
        refused(
            &server,
            &signed(&json!({"alg": name}), &claims, algorithm, &hs256_key()),
            name,
        );
    }
    refused(
        &server,
        &signed(
            &json!({"alg": "RS256"}),
            &claims,
            Algorithm::HS256,
            &hs256_key(),
        ),
        "wrong key type",
    );
    let ec = EncodingKey::from_ec_pem(&std::fs::read(fixture("keys/ec256-test-only.pem")).unwrap())
        .unwrap();
    refused(
        &server,
        &signed(&json!({"alg": "ES256"}), &claims, Algorithm::ES256, &ec),
        "a key that is not configured",
    );
}

#[test]
fn crit_is_refused_and_keys_in_token_headers_are_ignored() {
    let (server, _dir) = fresh(&[]);
    let claims = token::claims("alice", "xyz");
    let sign = |header: Value| signed(&header, &claims, Algorithm::HS256, &hs256_key());
    for crit in [
        json!(["exp"]),
        json!([]),
        json!(["b64"]),
        json!("exp"),
        json!(null),
    ] {
        refused(
            &server,
            &sign(json!({"alg": "HS256", "crit": crit})),
            &format!("crit {crit}"),
        );
    }
    // If the server fetched a URL in a header, the listener would get a connection.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    for header in [
        json!({"alg": "HS256", "jku": url}),
        json!({"alg": "HS256", "x5u": url}),
    ] {
        assert_eq!(status(&server, &sign(header.clone())), 200, "{header}");
        let foreign = EncodingKey::from_secret(b"another secret, of somebody else").unwrap();
        refused(
            &server,
            &signed(&header, &claims, Algorithm::HS256, &foreign),
            "an unknown key",
        );
    }
    let own_key = token::base64url_bytes(b"another secret, of somebody else");
    let jwk = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": own_key}});
    let foreign = EncodingKey::from_secret(b"another secret, of somebody else").unwrap();
    refused(
        &server,
        &signed(&jwk, &claims, Algorithm::HS256, &foreign),
        "the key in its own header",
    );
    assert!(
        listener.accept().is_err(),
        "expected the server not to fetch a URL in a header"
    );
}

#[test]
fn signed_token_with_a_fault_is_refused_for_its_true_reason() {
    let (server, _dir) = fresh(&[]);
    let claims = token::claims("alice", "xyz");
    let key = hs256_key();
    let unsupported = json!({"alg": "ES512", "typ": "JWT"});
    let twice = format!(
        "{{\"sub\":\"alice\",\"client_id\":\"xyz\",\"exp\":{},\"exp\":{}}}",
        now() + 60,
        now() + 61
    );
    let sign_bytes = |claims: &[u8]| {
        token::signed_bytes(&json!({"alg": "HS256"}), claims, Algorithm::HS256, &key)
    };
    for (token, reason) in [
        (
            signed(&unsupported, &claims, Algorithm::HS256, &key),
            "The token's signature algorithm is not supported.",
        ),
        (
            sign_bytes(twice.as_bytes()),
            "The token's claims contain a name twice.",
        ),
        (
            sign_bytes(b"[]"),
            "The token's claims cannot be read as a JSON object.",
        ),
        (
            sign_bytes(br#"{"sub":"alice","client_id":"xyz","exp":1e400}"#),
            "The token's claims cannot be read as a JSON object.",
        ),
        ("opaque".to_owned(), "The token is not a signed JWT."),
    ] {
        refused_because(&server, &token, reason, reason);
    }
    for client_id in [json!(null), json!("")] {
        let mut claims = with("client_id", client_id.clone());
        claims["azp"] = json!("xyz");
        assert_eq!(
            status(&server, &hs256(&claims)),
            200,
            "client_id {client_id}"
        );
    }
}

/// A valid token of exactly `bytes` bytes.
fn sized(bytes: usize) -> String {
    let mut pad = bytes / 2;
    loop {
        let token = hs256(&with("pad", json!("p".repeat(pad))));
        match token.len().cmp(&bytes) {
            Ordering::Less => pad += (bytes - token.len()).div_ceil(2).max(1),
            Ordering::Equal => return token,
            // Three bytes of claims become four of the token, so not every length is possible with
            // the same header.
            Ordering::Greater => return sized(bytes - 1),
        }
    }
}

#[test]
fn token_over_16_kib_is_refused() {
    let (server, _dir) = fresh(&[]);
    // An Entra token with 150 groups has 8,196 bytes.
    for bytes in [8_200, 16_384] {
        assert_eq!(status(&server, &sized(bytes)), 200, "{bytes} bytes");
    }
    let reason = "The token is longer than 16384 bytes.";
    refused_because(&server, &"A".repeat(16_385), reason, "16,385 bytes");
}

#[test]
fn max_token_bytes_fits_into_a_request_head() {
    let (server, _dir) = fresh(&["--max-token-bytes", "65536"]);
    assert_eq!(status(&server, &sized(65_536)), 200);
    let reason = "The token is longer than 65536 bytes.";
    refused_because(&server, &"A".repeat(65_537), reason, "65,537 bytes");
    for bytes in ["0", "65537"] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Launch::new(BINARY, dir.path())
            .with(&["--max-token-bytes", bytes])
            .run();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        assert!(ended.err.contains("--max-token-bytes"), "{}", ended.err);
    }
}

#[test]
fn configured_issuer_and_audience_are_required() {
    let (server, _dir) = fresh(&[
        "--jwt-issuer",
        "https://issuer.test",
        "--jwt-audience",
        "prefd",
    ]);
    let of = |iss: Value, aud: Value| {
        let mut claims = token::claims("alice", "xyz");
        claims["iss"] = iss;
        claims["aud"] = aud;
        hs256(&claims)
    };
    let issuer = json!("https://issuer.test");
    assert_eq!(status(&server, &of(issuer.clone(), json!("prefd"))), 200);
    assert_eq!(
        status(&server, &of(issuer.clone(), json!(["x", "prefd"]))),
        200
    );
    refused(&server, &token::of("alice", "xyz"), "neither iss nor aud");
    for aud in [json!("other"), json!([]), json!(null), json!("prefd ")] {
        refused(
            &server,
            &of(issuer.clone(), aud.clone()),
            &format!("aud {aud}"),
        );
    }
    for iss in [
        json!("https://issuer.test/"),
        json!(["https://issuer.test"]),
        json!(null),
        json!(""),
    ] {
        refused(
            &server,
            &of(iss.clone(), json!("prefd")),
            &format!("iss {iss}"),
        );
    }
}
