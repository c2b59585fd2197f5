//! The keys that tokens are verified with, each with the one algorithm it is for.
//!
//! The algorithm comes from the key, never from the token (RFC 8725 section 3.1):
//! a token's `alg` and `kid` only pick among keys that the operator has given.
//! `jku`, `x5u` and `jwk` headers are never looked at.

use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::auth::LEEWAY_SECONDS;

/// Bytes of an HS256 secret, at least: the length of the hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// Bytes of the DER form of a 2048-bit RSA key, which is at least its modulus
/// (RFC 7518 section 3.3 asks for 2048 bits).
const MIN_RSA_BYTES: usize = 256;
/// Bytes of an uncompressed point on P-256 and on P-384: a tag and two coordinates.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// Why a file gives no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: the secret has {found} bytes, and HS256 needs at least {MIN_SECRET_BYTES}", path.display())]
    ShortSecret { path: PathBuf, found: usize },
    #[error("{}: a private key has no place on a server that only verifies; give the public key", path.display())]
    PrivateKey { path: PathBuf },
    #[error("{}: not a PEM public key of RSA (2048 bits or more), EC (P-256, P-384) or Ed25519", path.display())]
    UnknownKey { path: PathBuf },
    #[error("{}: not a JSON Web Key Set: {source}", path.display())]
    NoKeySet {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: a symmetric key in a key set; give it with --jwt-hs256-secret-file", path.display())]
    SymmetricKey { path: PathBuf },
    #[error("{}: no key in it can verify a signature", path.display())]
    NoUsableKey { path: PathBuf },
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    validation: Validation,
}

/// All keys of the operator.
#[derive(Default)]
pub(crate) struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn push(&mut self, id: Option<String>, algorithm: Algorithm, key: DecodingKey) {
        let mut validation = Validation::new(algorithm);
        // The rest of the claims is judged by `claims`, as exactly as the contract
        // has it; that there is an expiry and that it holds, here as well.
        validation.validate_aud = false;
        validation.validate_nbf = true;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of seconds; one more, since here times are rounded"
        )]
        {
            validation.leeway = LEEWAY_SECONDS as u64 + 1;
        }
        self.keys.push(Key {
            id,
            algorithm,
            decoding: key,
            validation,
        });
    }

    /// Adds an HS256 secret: the bytes of the file without a final line break.
    pub(crate) fn add_secret_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let bytes = read(path)?;
        let secret = secret_of(&bytes);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret {
                path: path.to_owned(),
                found: secret.len(),
            });
        }
        self.push(None, Algorithm::HS256, DecodingKey::from_secret(secret));
        Ok(())
    }

    /// Adds a PEM public key: RSA for RS256, P-256 for ES256, P-384 for ES384,
    /// Ed25519 for EdDSA.
    pub(crate) fn add_public_key_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let pem = read(path)?;
        if contains(&pem, b"PRIVATE KEY") {
            return Err(KeyError::PrivateKey {
                path: path.to_owned(),
            });
        }
        let unknown = || KeyError::UnknownKey {
            path: path.to_owned(),
        };
        let (algorithm, key) = public_key(&pem).ok_or_else(unknown)?;
        self.push(None, algorithm, key);
        Ok(())
    }

    /// Adds the signature keys of a JSON Web Key Set (RFC 7517). Keys for other uses
    /// and of unknown kinds are passed over, as its section 5 says.
    pub(crate) fn add_jwks_file(&mut self, path: &Path) -> Result<(), KeyError> {
        let set: JwkSet =
            serde_json::from_slice(&read(path)?).map_err(|source| KeyError::NoKeySet {
                path: path.to_owned(),
                source,
            })?;
        let before = self.keys.len();
        for jwk in &set.keys {
            if matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
                return Err(KeyError::SymmetricKey {
                    path: path.to_owned(),
                });
            }
            if let Some(algorithm) = signature_algorithm(jwk)
                && let Ok(key) = DecodingKey::from_jwk(jwk)
            {
                self.push(jwk.common.key_id.clone(), algorithm, key);
            }
        }
        if self.keys.len() == before {
            return Err(KeyError::NoUsableKey {
                path: path.to_owned(),
            });
        }
        Ok(())
    }

    /// The claims of a token that one of the keys has signed, or why there are none.
    pub(crate) fn verify(&self, token: &[u8]) -> Result<Map<String, Value>, &'static str> {
        const MALFORMED: &str = "The token is not a signed JWT.";
        let header = decode_header(token).map_err(|_| MALFORMED)?;
        // RFC 7515 section 4.1.11: an extension that is not understood refuses it.
        if header.crit.is_some() {
            return Err("The token's crit header names an extension that is not supported.");
        }
        let fitting = self.keys.iter().filter(|key| {
            let same_id = match (&key.id, &header.kid) {
                (Some(ours), Some(theirs)) => ours == theirs,
                _ => true,
            };
            key.algorithm == header.alg && same_id
        });
        let mut outcome = Err("The token is not signed by a trusted key.");
        for key in fitting {
            match decode::<Map<String, Value>>(token, &key.decoding, &key.validation) {
                Ok(verified) => return Ok(verified.claims),
                Err(error) => {
                    use jsonwebtoken::errors::ErrorKind as Kind;
                    match error.kind() {
                        Kind::InvalidSignature => {}
                        Kind::ExpiredSignature => outcome = Err("The token has expired."),
                        Kind::ImmatureSignature => outcome = Err("The token is not valid yet."),
                        Kind::MissingRequiredClaim(_) => outcome = Err("The token has no exp."),
                        Kind::InvalidClaimFormat(_) => {
                            outcome = Err("The token's exp or nbf is not a number.");
                        }
                        _ => outcome = Err(MALFORMED),
                    }
                }
            }
        }
        outcome
    }
}

/// The secret in a file: editors end a file with a line break that nobody means.
pub(crate) fn secret_of(file: &[u8]) -> &[u8] {
    let secret = file.strip_suffix(b"\n").unwrap_or(file);
    secret.strip_suffix(b"\r").unwrap_or(secret)
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn public_key(pem: &[u8]) -> Option<(Algorithm, DecodingKey)> {
    if let Ok(key) = DecodingKey::from_rsa_pem(pem) {
        let long = key.try_get_as_bytes().ok()?.len() > MIN_RSA_BYTES;
        return long.then_some((Algorithm::RS256, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let algorithm = match key.try_get_as_bytes().ok()?.len() {
            P256_POINT_BYTES => Algorithm::ES256,
            P384_POINT_BYTES => Algorithm::ES384,
            _ => return None,
        };
        return Some((algorithm, key));
    }
    let key = DecodingKey::from_ed_pem(pem).ok()?;
    Some((Algorithm::EdDSA, key))
}

/// The algorithm of a key that is for signatures: its `alg`, where that fits its
/// kind, or the usual one of its kind.
fn signature_algorithm(jwk: &Jwk) -> Option<Algorithm> {
    let common = &jwk.common;
    let is_for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|used| *used == PublicKeyUse::Signature);
    let may_verify = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !may_verify {
        return None;
    }
    let fitting: &[(KeyAlgorithm, Algorithm)] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            (KeyAlgorithm::RS256, Algorithm::RS256),
            (KeyAlgorithm::RS384, Algorithm::RS384),
            (KeyAlgorithm::RS512, Algorithm::RS512),
            (KeyAlgorithm::PS256, Algorithm::PS256),
            (KeyAlgorithm::PS384, Algorithm::PS384),
            (KeyAlgorithm::PS512, Algorithm::PS512),
        ],
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            &[(KeyAlgorithm::ES256, Algorithm::ES256)]
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P384 => {
            &[(KeyAlgorithm::ES384, Algorithm::ES384)]
        }
        AlgorithmParameters::OctetKeyPair(okp) if okp.curve == EllipticCurve::Ed25519 => {
            &[(KeyAlgorithm::EdDSA, Algorithm::EdDSA)]
        }
        _ => &[],
    };
    let named = common.key_algorithm;
    fitting
        .iter()
        .find(|(name, _)| named.is_none_or(|named| named == *name))
        .map(|(_, algorithm)| *algorithm)
}
