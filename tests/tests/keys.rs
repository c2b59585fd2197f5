//! Configured keys: which kinds verify tokens, and which are refused at startup.

mod common;

use common::{BINARY, refused, status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::server::Launch;
use prefd_tests::token::{self, fixture, hs256, signed};
use serde_json::{Value, json};

#[test]
fn public_keys_of_each_kind_verify_tokens() {
    for (name, algorithm, header) in [
        ("rsa", Algorithm::RS256, "RS256"),
        ("ec256", Algorithm::ES256, "ES256"),
        ("ec384", Algorithm::ES384, "ES384"),
        ("ed25519", Algorithm::EdDSA, "EdDSA"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let public = fixture(&format!("keys/{name}-test-only.pub.pem"));
        let server = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&["--jwt-public-key-file", public.to_str().unwrap()])
            .start();
        let pem = std::fs::read(fixture(&format!("keys/{name}-test-only.pem"))).unwrap();
        let key = match name {
            "rsa" => EncodingKey::from_rsa_pem(&pem),
            "ed25519" => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_ec_pem(&pem),
        }
        .unwrap();
        let claims = token::claims("alice", "xyz");
        let good = signed(
            &json!({"alg": header, "kid": "any"}),
            &claims,
            algorithm,
            &key,
        );
        assert_eq!(status(&server, &good), 200, "{name}");
        // Changes one character of the token.
        let flip = |token: &str, at: usize| {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            String::from_utf8(bytes).unwrap()
        };
        refused(
            &server,
            &flip(&good, good.len() - 10),
            "a changed signature",
        );
        refused(
            &server,
            &flip(&good, good.find('.').unwrap() + 20),
            "changed claims",
        );
        refused(&server, &hs256(&claims), "signed with another key");
    }
}

/// Writes a key set to a temporary file.
fn jwks(keys: &[Value]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    file
}

/// Returns a public test key as a JWK with the given key id.
fn jwk(name: &str, id: &str) -> Value {
    let text = std::fs::read_to_string(fixture("keys/jwks-test-only.json")).unwrap();
    let keys: Value = serde_json::from_str(&text).unwrap();
    let mut key = keys[name].clone();
    key["kid"] = json!(id);
    key
}

#[test]
fn key_set_verifies_with_signature_keys_but_not_encryption_keys() {
    let mut encryption = jwk("ec384", "not-for-signatures");
    encryption["use"] = json!("enc");
    let unknown = json!({"kty": "XYZ", "kid": "unknown", "x": "y"});
    let set = jwks(&[
        jwk("rsa", "r"),
        jwk("ec256", "e"),
        jwk("ed25519", "o"),
        encryption,
        unknown,
    ]);
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--jwks-file", set.path().to_str().unwrap()])
        .start();
    let claims = token::claims("alice", "xyz");
    let pem = |name: &str| std::fs::read(fixture(&format!("keys/{name}-test-only.pem"))).unwrap();
    let rsa = EncodingKey::from_rsa_pem(&pem("rsa")).unwrap();
    let ec = EncodingKey::from_ec_pem(&pem("ec256")).unwrap();
    let ec384 = EncodingKey::from_ec_pem(&pem("ec384")).unwrap();
    let ed = EncodingKey::from_ed_pem(&pem("ed25519")).unwrap();
    let sign = |algorithm, name: &str, kid: &str, key| {
        signed(&json!({"alg": name, "kid": kid}), &claims, algorithm, key)
    };
    assert_eq!(
        status(&server, &sign(Algorithm::RS256, "RS256", "r", &rsa)),
        200
    );
    assert_eq!(
        status(&server, &sign(Algorithm::ES256, "ES256", "e", &ec)),
        200
    );
    assert_eq!(
        status(&server, &sign(Algorithm::EdDSA, "EdDSA", "o", &ed)),
        200
    );
    assert_eq!(
        status(
            &server,
            &signed(&json!({"alg": "RS256"}), &claims, Algorithm::RS256, &rsa)
        ),
        200
    );
    refused(
        &server,
        &sign(Algorithm::RS256, "RS256", "e", &rsa),
        "signed with a key other than the one that `kid` names",
    );
    refused(
        &server,
        &sign(Algorithm::ES384, "ES384", "not-for-signatures", &ec384),
        "signed with a key for encryption",
    );
}

#[test]
fn invalid_or_missing_keys_prevent_startup() {
    let symmetric = jwks(&[json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"})]);
    let empty = jwks(&[]);
    let short = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(short.path(), "short\n").unwrap();
    let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
    let key = |name: &str| fixture(name).to_str().unwrap().to_owned();
    for (flag, file, word) in [
        ("--jwks-file", path(&symmetric), "symmetric"),
        ("--jwks-file", path(&empty), "no key"),
        ("--jwks-file", key("keys/rsa-test-only.pub.pem"), "Key Set"),
        ("--jwt-hs256-secret-file", path(&short), "32"),
        ("--jwt-hs256-secret-file", "/nowhere".to_owned(), "/nowhere"),
        (
            "--jwt-public-key-file",
            key("keys/rsa-test-only.pem"),
            "private key",
        ),
        (
            "--jwt-public-key-file",
            key("keys/rsa1024-test-only.pub.pem"),
            "2048",
        ),
        ("--jwt-public-key-file", path(&short), "PEM"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&[flag, &file])
            .run();
        assert_eq!(ended.status.code(), Some(1), "{flag} {file}: {ended:?}");
        assert!(ended.err.contains(word), "{flag} {file}: {}", ended.err);
        assert!(ended.out.is_empty(), "expected no output: {}", ended.out);
    }
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path()).without_key().run();
    assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    for flag in [
        "--jwt-hs256-secret-file",
        "--jwt-public-key-file",
        "--jwks-file",
        "--dev",
    ] {
        assert!(ended.err.contains(flag), "{}", ended.err);
    }
}
