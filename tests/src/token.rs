//! Tokens, good and bad, and the keys that sign them. The keys are for these tests
//! only.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::crypto;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

/// The secret in [`secret_file`].
pub const SECRET: &str = "a-secret-for-tests-only-0123456789";

/// A file of the fixtures.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

/// The file with [`SECRET`].
pub fn secret_file() -> PathBuf {
    fixture("keys/hs256-test-only.secret")
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The claims of an ordinary token.
pub fn claims(user: &str, client: &str) -> Value {
    json!({"sub": user, "client_id": client, "exp": now() + 3600})
}

/// A token of this user and client, without scopes.
pub fn of(user: &str, client: &str) -> String {
    hs256(&claims(user, client))
}

/// The same with these scopes.
pub fn with_scope(user: &str, client: &str, scope: &str) -> String {
    let mut claims = claims(user, client);
    claims["scope"] = json!(scope);
    hs256(&claims)
}

/// These claims, signed with [`SECRET`].
pub fn hs256(claims: &Value) -> String {
    signed(
        &json!({"alg": "HS256", "typ": "JWT"}),
        claims,
        Algorithm::HS256,
        &hs256_key(),
    )
}

/// The key of [`SECRET`].
pub fn hs256_key() -> EncodingKey {
    EncodingKey::from_secret(SECRET.as_bytes())
}

/// Whatever header and claims, signed by this algorithm and key, whatever the header
/// says.
pub fn signed(header: &Value, claims: &Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    signed_bytes(header, claims.to_string().as_bytes(), algorithm, key)
}

/// The same with claims that need be none.
pub fn signed_bytes(
    header: &Value,
    claims: &[u8],
    algorithm: Algorithm,
    key: &EncodingKey,
) -> String {
    let message = format!("{}.{}", base64url(header), base64url_bytes(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).expect("it can be signed");
    format!("{message}.{signature}")
}

/// Base64url without padding, of a value's JSON.
pub fn base64url(value: &Value) -> String {
    base64url_bytes(value.to_string().as_bytes())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64url without padding (RFC 4648 section 5).
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

/// What [`base64url_bytes`] has made a text of.
pub fn base64url_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for digits in text.as_bytes().chunks(4) {
        let bits = digits.iter().fold(0, |bits, digit| {
            let value = ALPHABET.iter().position(|known| known == digit);
            bits << 6 | value.expect("a digit") as u32
        });
        let bits = bits << (32 - 6 * digits.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[..digits.len() * 6 / 8]);
    }
    bytes
}
