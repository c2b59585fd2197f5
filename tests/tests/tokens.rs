//! Tokens: which are believed, and that nothing in a token chooses how it is judged.

mod common;

use common::{BINARY, fresh, refused, refused_because, status, wait_for_status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::api_error::Expected;
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url, fixture, hs256, hs256_key, now, signed};
use serde_json::{Value, json};

fn with(name: &str, value: Value) -> Value {
    let mut claims = token::claims("alice", "xyz");
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = token::claims("alice", "xyz");
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn no_token_at_all_is_told_from_a_bad_one() {
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
        Expected::code("missing-token").check(&response, &format!("{header:?}"));
    }
    let invalid = Expected::code("invalid-token").source(json!({"header": "Authorization"}));
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
    Expected::code("missing-token").check(&server.connect().request(&query), "in the query");
}

#[test]
fn times_are_required_and_judged() {
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
        "within the leeway"
    );
    assert_eq!(
        status(&server, &hs256(&with("exp", json!(now() as f64 + 10.5)))),
        200,
        "decimal"
    );
    refused(
        &server,
        &hs256(&with("exp", json!(now() as f64 - 40.5))),
        "decimal, expired",
    );
    refused(&server, &hs256(&with("nbf", json!(now() + 60))), "not yet");
    refused(&server, &hs256(&with("nbf", json!("0"))), "nbf as a text");
    assert_eq!(
        status(&server, &hs256(&with("nbf", json!(now() + 15)))),
        200,
        "within the leeway"
    );
}

/// As a proxy has them.
#[test]
fn users_that_share_a_connection_have_their_own_documents() {
    let (server, _dir) = fresh(&[]);
    let mut client = server.connect();
    let tokens = [token::of("alice", "xyz"), token::of("bobby", "xyz")];
    // Of one length, so that only their bytes tell them apart.
    assert_eq!(tokens[0].len(), tokens[1].len());
    let mut forged = tokens[0].clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    let bodies = [r#"{"of":"alice"}"#, r#"{"of":"bobby"}"#];
    for (token, body) in tokens.iter().zip(bodies) {
        let put = Request::of("PUT", "xyz", token).body(body);
        assert_eq!(client.request(&put).status, 204);
    }
    let asked = [0, 0, 1, 1, 0, 2, 0, 2, 1, 2, 2, 1, 0];
    for who in asked {
        let Some(token) = tokens.get(who) else {
            let response = client.request(&Request::of("GET", "xyz", &forged));
            assert_eq!(response.status, 401);
            continue;
        };
        let response = client.request(&Request::of("GET", "xyz", token));
        assert_eq!((response.status, response.text()), (200, bodies[who]));
    }
}

#[test]
fn a_remembered_token_still_expires() {
    let (server, _dir) = fresh(&[]);
    // Valid for some seconds more, with the leeway.
    let token = hs256(&with("exp", json!(now() - 20)));
    assert_eq!(status(&server, &token), 200);
    wait_for_status(&server, &token, 401);
    refused_because(&server, &token, "The token has expired.", "remembered");
}

#[test]
fn user_and_client_are_required() {
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
fn the_algorithm_comes_from_the_key() {
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
    // The public key as an HMAC secret.
    let confused = EncodingKey::from_secret(&std::fs::read(&public).unwrap());
    refused(
        &server,
        &signed(
            &json!({"alg": "HS256"}),
            &claims,
            Algorithm::HS256,
            &confused,
        ),
        "confused",
    );
    refused(
        &server,
        &signed(
            &json!({"alg": "RS256"}),
            &claims,
            Algorithm::HS256,
            &confused,
        ),
        "confused",
    );
    // Signed by a known key, but by another algorithm than the key is for.
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
        "a key that is not ours",
    );
}

#[test]
fn headers_of_a_token_are_never_followed() {
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
    // A listener that would see if they were followed.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    for header in [
        json!({"alg": "HS256", "jku": url}),
        json!({"alg": "HS256", "x5u": url}),
    ] {
        assert_eq!(status(&server, &sign(header.clone())), 200, "{header}");
        let foreign = EncodingKey::from_secret(b"another secret, of somebody else");
        refused(
            &server,
            &signed(&header, &claims, Algorithm::HS256, &foreign),
            "a foreign key",
        );
    }
    let own_key = token::base64url_bytes(b"another secret, of somebody else");
    let jwk = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": own_key}});
    let foreign = EncodingKey::from_secret(b"another secret, of somebody else");
    refused(
        &server,
        &signed(&jwk, &claims, Algorithm::HS256, &foreign),
        "its own key",
    );
    assert!(listener.accept().is_err(), "a header was followed");
}

#[test]
fn a_token_over_8_kib_is_refused() {
    let (server, _dir) = fresh(&[]);
    let sized = |target: usize| {
        let mut pad = target / 2;
        loop {
            let token = hs256(&with("pad", json!("p".repeat(pad))));
            if token.len() >= target {
                return token;
            }
            pad += (target - token.len()).div_ceil(2).max(1);
        }
    };
    let under = sized(8_180);
    assert!(under.len() <= 8_192, "{}", under.len());
    assert_eq!(status(&server, &under), 200);
    refused(&server, &sized(8_193), "8193 bytes");
    refused(&server, &sized(9 * 1024), "9 KiB");
}

#[test]
fn issuer_and_audience_are_judged_once_configured() {
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
    refused(&server, &token::of("alice", "xyz"), "neither");
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
