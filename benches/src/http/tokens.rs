//! Tokens of many users, signed by keys that are for tests only.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::Result;
use crate::documents::Key;

/// Keys to sign with, and for prefd to verify with.
const RSA: &[u8] = include_bytes!("../../../tests/fixtures/keys/rsa-test-only.pem");
const EC: &[u8] = include_bytes!("../../../tests/fixtures/keys/ec256-test-only.pem");
/// The public halves, with the names of the files that prefd reads them from.
pub(super) const PUBLIC: [(&str, &[u8]); 2] = [
    (
        "rsa.pub.pem",
        include_bytes!("../../../tests/fixtures/keys/rsa-test-only.pub.pem"),
    ),
    (
        "ec.pub.pem",
        include_bytes!("../../../tests/fixtures/keys/ec256-test-only.pub.pem"),
    ),
];
/// Longer than any run takes.
const LIFETIME_SECONDS: u64 = 24 * 3600;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    client_id: &'a str,
    exp: u64,
}

/// A token for each of the first `users` users, by RS256 or ES256.
pub(super) fn sign(algorithm: Algorithm, users: u64) -> Result<Vec<String>> {
    let signing = match algorithm {
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
        tokens.push(encode(&header, &claims, &signing)?);
    }
    Ok(tokens)
}
