//! Valid and invalid tokens, and the keys that sign them. The keys are only for these tests.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::crypto;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The HS256 secret in [`secret_file`].
pub const SECRET: &str = "a-secret-for-tests-only-0123456789";

/// Path of a file in `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// Path of the file with [`SECRET`].
pub fn secret_file() -> PathBuf {
    fixture("keys/hs256-test-only.secret")
}

/// The current time in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The claims of a token for a user and a client that is valid for an hour.
pub fn claims(user: &str, client: &str) -> Value {
    json!({"sub": user, "client_id": client, "exp": now() + 3600})
}

/// A valid token for a user and a client, without scopes.
pub fn of(user: &str, client: &str) -> String {
    hs256(&claims(user, client))
}

/// A valid token for a user and a client, with the given scopes.
pub fn with_scope(user: &str, client: &str, scope: &str) -> String {
    let mut claims = claims(user, client);
    claims["scope"] = json!(scope);
    hs256(&claims)
}

/// Signs claims with [`SECRET`].
pub fn hs256(claims: &Value) -> String {
    signed(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims,
        Algorithm::HS256,
        &hs256_key(),
    )
}

/// The signing key made from [`SECRET`].
pub fn hs256_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes()).unwrap()
}

/// Signs a header and claims with the given algorithm and key, even if the header names a
/// different algorithm.
pub fn signed(header: &Value, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    signed_bytes(header, claims.to_string().as_bytes(), algorithm, key)
}

/// Signs a header and arbitrary bytes in the place of the claims.
pub fn signed_bytes(
    header: &Value,
    claims: &[u8],
    algorithm: Algorithm,
    key: &EncodingKey,
) -> String {
    let message = format!("{}.{}", base64url(header), base64url_bytes(claims));
    let signature =
        crypto::sign(message.as_bytes(), key, algorithm).expect("the key fits the algorithm");
    format!("{message}.{signature}")
}

/// Encodes the JSON of a value as base64url without padding.
pub fn base64url(value: &Value) -> String {
    base64url_bytes(value.to_string().as_bytes())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Encodes bytes as base64url without padding (RFC 4648 section 5).
pub fn base64url_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut padded = [0; 4];
        padded[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(padded);
        for digit in 0..=group.len() {
            let index = (bits >> (18 - 6 * digit)) & 63;
            text.push(char::from(ALPHABET[usize::try_from(index).unwrap()]));
        }
    }
    text
}

/// Decodes the output of [`base64url_bytes`].
pub fn base64url_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for digits in text.as_bytes().chunks(4) {
        let bits = digits.iter().fold(0, |bits, digit| {
            let value = ALPHABET.iter().position(|known| known == digit);
            bits << 6 | value.expect("each character is in the base64url alphabet") as u32
        });
        let bits = bits << (32 - 6 * digits.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[..digits.len() * 6 / 8]);
    }
    bytes
}
