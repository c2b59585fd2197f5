//! Configured keys: which kinds verify tokens, and which are refused at startup.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{BINARY, refused, refused_because, status};
use jsonwebtoken::{Algorithm, EncodingKey};
use prefd_tests::server::Launch;
use prefd_tests::token::{self, base64url_bytes, base64url_decoded, fixture, hs256, signed};
use serde_json::{Value, json};

#[test]
fn public_keys_of_each_kind_verify_tokens() {
    for (name, algorithm, header) in [
        ("rsa", Algorithm::RS256, "RS256"),
        ("ec256", Algorithm::ES256, "ES256"),
        ("ec384", Algorithm::ES384, "ES384"),
        ("ed25519", Algorithm::EdDSA, "EdDSA"),
        ("ed25519", Algorithm::EdDSA, "Ed25519"),
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

/// These forms of a modulus break RFC 7518, but each represents exactly one number. A key that
/// cannot be used must not be ignored silently.
#[test]
fn rsa_key_in_an_unusual_form_verifies_tokens() {
    let rsa = std::fs::read(fixture("keys/rsa-test-only.pem")).unwrap();
    let rsa = EncodingKey::from_rsa_pem(&rsa).unwrap();
    let claims = token::claims("alice", "xyz");
    let good = signed(&json!({"alg": "RS256"}), &claims, Algorithm::RS256, &rsa);
    let key = jwk("rsa", "r");
    let n = key["n"].as_str().unwrap();
    let with_zero = base64url_bytes(&[&[0][..], &base64url_decoded(n)].concat());
    let plain = n.replace('-', "+").replace('_', "/");
    for modulus in [
        with_zero,
        format!("{n}=="),
        plain.clone(),
        format!("{plain}=="),
    ] {
        let mut key = key.clone();
        key["n"] = json!(modulus);
        let set = jwks(&[key]);
        let dir = tempfile::tempdir().unwrap();
        let server = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&["--jwks-file", set.path().to_str().unwrap()])
            .start();
        assert_eq!(status(&server, &good), 200, "{modulus}");
    }
    let mut key = key.clone();
    key["n"] = json!(format!("{n}+_"));
    let set = jwks(&[key]);
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--jwks-file", set.path().to_str().unwrap()])
        .run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    for word in ["--jwks-file", "key \"r\"", "its n"] {
        assert!(ended.err.contains(word), "{word}: {}", ended.err);
    }
}

/// Anybody can send a token that names no key. Its signature must not be checked with every key of
/// a large key set.
#[test]
fn token_without_key_id_is_checked_with_at_most_4_keys() {
    let other = |index: usize| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        // An uncompressed point: one byte, and two coordinates of 48 bytes (SEC 1 section 2.3.3).
        let coordinate = |at: usize| base64url_bytes(&key.public_key_raw()[at..at + 48]);
        json!({"kty": "EC", "crv": "P-384", "kid": format!("other-{index}"),
               "x": coordinate(1), "y": coordinate(49)})
    };
    let ec384 = std::fs::read(fixture("keys/ec384-test-only.pem")).unwrap();
    let ec384 = EncodingKey::from_ec_pem(&ec384).unwrap();
    let claims = token::claims("alice", "xyz");
    let sign = |header: Value| signed(&header, &claims, Algorithm::ES384, &ec384);
    for (position, is_tried) in [(3, true), (4, false), (63, false)] {
        let mut keys: Vec<_> = (0..position).map(other).collect();
        keys.push(jwk("ec384", "ours"));
        // Keys for another algorithm do not count.
        keys.insert(0, jwk("rsa", "rsa"));
        let set = jwks(&keys);
        let dir = tempfile::tempdir().unwrap();
        let server = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&["--jwks-file", set.path().to_str().unwrap()])
            .start();
        let named = sign(json!({"alg": "ES384", "kid": "ours"}));
        assert_eq!(
            status(&server, &named),
            200,
            "a token that names key {position}"
        );
        let unnamed = sign(json!({"alg": "ES384"}));
        if is_tried {
            assert_eq!(status(&server, &unnamed), 200, "key {position}");
        } else {
            let reason = "More than 4 trusted keys match the token's alg and kid, and the first 4 \
                          have not signed the token.";
            refused_because(&server, &unnamed, reason, &format!("key {position}"));
            server.wait_for_log("more than 4 keys");
        }
    }
}

#[test]
fn invalid_or_missing_keys_prevent_startup() {
    let symmetric = jwks(&[json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"})]);
    let empty = jwks(&[]);
    let short = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(short.path(), "short\n").unwrap();
    let certificate = tempfile::NamedTempFile::new().unwrap();
    let identity = rcgen::generate_simple_self_signed(vec!["prefd.test".to_owned()]).unwrap();
    std::fs::write(certificate.path(), identity.cert.pem()).unwrap();
    let utf_16 = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(utf_16.path(), b"\xff\xfe-\0-\0").unwrap();
    let introspection = [
        "--introspection-url",
        "https://id.example/introspection",
        "--jwt-audience",
        "prefd",
    ];
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
        ("--jwt-public-key-file", path(&certificate), "certificate"),
        ("--jwt-public-key-file", path(&utf_16), "UTF-16"),
        (
            "--jwt-hs256-secret-file",
            "/dev/zero".to_owned(),
            "longer than",
        ),
        (
            "--jwt-public-key-file",
            "/dev/zero".to_owned(),
            "longer than",
        ),
        ("--jwks-file", "/dev/zero".to_owned(), "longer than"),
        ("--tls-cert-file", "/dev/zero".to_owned(), "longer than"),
        ("--admin-token-file", "/dev/zero".to_owned(), "longer than"),
        (
            "--introspection-credentials-file",
            "/dev/zero".to_owned(),
            "longer than",
        ),
        ("--config", "/dev/zero".to_owned(), "longer than"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let ended = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&[flag, &file])
            .with(match flag {
                "--tls-cert-file" => &["--dev", "--tls-key-file", "/dev/zero"],
                "--introspection-credentials-file" => &introspection,
                "--admin-token-file" => &["--dev", "--admin-listen", "127.0.0.1:0"],
                _ => &[],
            })
            .run();
        // An invalid configuration file is a usage error.
        let code = if flag == "--config" { 2 } else { 1 };
        assert_eq!(ended.status.code(), Some(code), "{flag} {file}: {ended:?}");
        for word in [flag, word] {
            assert!(ended.err.contains(word), "{flag} {file}: {}", ended.err);
        }
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

/// Some editors begin a text file with a byte order mark.
#[test]
fn key_files_may_begin_with_a_byte_order_mark() {
    let with_mark = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("\u{feff}{text}")).unwrap();
        file
    };
    let pem = std::fs::read_to_string(fixture("keys/ec256-test-only.pub.pem")).unwrap();
    let (pem, set) = (
        with_mark(&pem),
        with_mark(&json!({"keys": [jwk("rsa", "r")]}).to_string()),
    );
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .without_key()
        .with(&["--jwt-public-key-file", pem.path().to_str().unwrap()])
        .with(&["--jwks-file", set.path().to_str().unwrap()])
        .start();
    let claims = token::claims("alice", "xyz");
    for (name, algorithm, alg) in [
        ("ec256", Algorithm::ES256, "ES256"),
        ("rsa", Algorithm::RS256, "RS256"),
    ] {
        let key = std::fs::read(fixture(&format!("keys/{name}-test-only.pem"))).unwrap();
        let key = match name {
            "rsa" => EncodingKey::from_rsa_pem(&key),
            _ => EncodingKey::from_ec_pem(&key),
        };
        let token = signed(&json!({"alg": alg}), &claims, algorithm, &key.unwrap());
        assert_eq!(status(&server, &token), 200, "{name}");
    }
    // Two files can have the keys of two issuers.
    server.wait_for_log("tokens of several issuers are accepted");
}

#[test]
fn secret_file_that_others_can_read_causes_a_warning() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), token::SECRET).unwrap();
    let path = secret.path().to_str().unwrap();
    for (mode, warns) in [(0o644, true), (0o640, false), (0o600, false)] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(secret.path(), permissions).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let server = Launch::new(BINARY, dir.path())
            .without_key()
            .with(&["--jwt-hs256-secret-file", path])
            .start();
        assert_eq!(status(&server, &token::of("alice", "xyz")), 200);
        let log = server.stop_with_log().err;
        let warning = "secret file can be read by every user of this machine";
        assert_eq!(log.contains(warning), warns, "{mode:o}");
    }
}
