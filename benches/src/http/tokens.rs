//! Tokens of many users, signed with keys that are only for tests.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::Result;
use crate::documents::Key;

/// Private key for RS256.
const RSA: &[u8] = include_bytes!("../../../tests/fixtures/keys/rsa-test-only.pem");
/// Private key for ES256.
const EC: &[u8] = include_bytes!("../../../tests/fixtures/keys/ec256-test-only.pem");
/// Public keys for prefd, with their file names.
pub(super) const PUBLIC_KEYS: [(&str, &[u8]); 2] = [
    (
        "rsa.pub.pem",
        include_bytes!("../../../tests/fixtures/keys/rsa-test-only.pub.pem"),
    ),
    (
        "ec.pub.pem",
        include_bytes!("../../../tests/fixtures/keys/ec256-test-only.pub.pem"),
    ),
];
/// Lifetime of a token: longer than any run.
const LIFETIME_SECONDS: u64 = 24 * 3600;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    client_id: &'a str,
    exp: u64,
}

/// Signs a token for each of the first `users` users with RS256 or ES256.
pub(super) fn sign(algorithm: Algorithm, users: u64) -> Result<Vec<String>> {
    let signing_key = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA)?,
        _ => EncodingKey::from_ec_pem(EC)?,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = Header::new(algorithm);
    let mut key = Key::default();
    let mut tokens = Vec::new();
    for user in 0..users {
        key.set(user);
        let claims = Claims {
            sub: key.user(),
            client_id: key.client(),
            exp: now + LIFETIME_SECONDS,
        };
        tokens.push(encode(&header, &claims, &signing_key)?);
    }
    Ok(tokens)
}
