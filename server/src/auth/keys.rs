//! The keys that tokens are verified with, each with the one algorithm it is for.
//!
//! The algorithm comes from the key, never from the token (RFC 8725 section 3.1):
//! a token's `alg` and `kid` only pick among keys that the operator has given.
//! `jku`, `x5u` and `jwk` headers are never looked at.

mod jwks;
mod modulus;
mod pem;

use std::fs;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, dangerous, decode, decode_header};
use serde_json::{Map, Value};

use crate::auth::LEEWAY_SECONDS;

/// Bytes of an HS256 secret, at least: the length of the hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

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
    #[error("{}: not one PEM public key of RSA, EC (P-256, P-384) or Ed25519", path.display())]
    UnknownKey { path: PathBuf },
    #[error("{}: the RSA key has {found} bits, and at least {} are needed", path.display(), modulus::MIN_BITS)]
    WeakRsaKey { path: PathBuf, found: usize },
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
        let (algorithm, key) = pem::public_key(path, &read(path)?)?;
        self.push(None, algorithm, key);
        Ok(())
    }

    /// Adds the signature keys of a JSON Web Key Set.
    pub(crate) fn add_jwks_file(&mut self, path: &Path) -> Result<(), KeyError> {
        for (id, algorithm, key) in jwks::signature_keys(path, &read(path)?)? {
            self.push(id, algorithm, key);
        }
        Ok(())
    }

    /// The claims of a token that one of the keys has signed, or why there are none.
    pub(crate) fn verify(&self, token: &[u8]) -> Result<Map<String, Value>, &'static str> {
        const MALFORMED: &str = "The token is not a signed JWT.";
        let header = decode_header(token).map_err(|_| MALFORMED)?;
        // RFC 7515 section 4.1.11: an extension that is not understood refuses it.
        if header.crit.is_some() || has_crit(token) {
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
                        Kind::MissingRequiredClaim(_) => {
                            outcome = Err("The token has no exp that is a time in seconds.");
                        }
                        Kind::InvalidClaimFormat(_) => {
                            outcome = Err("The token's exp or nbf is not a time in seconds.");
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

/// Whether a token's header has a `crit` at all: `decode_header` takes one that is null
/// for one that is absent. The header is decoded as if it were a token's claims, which
/// are JSON in base64url too.
fn has_crit(token: &[u8]) -> bool {
    let header = token.split(|byte| *byte == b'.').next().unwrap_or_default();
    let members: Result<Map<String, Value>, _> =
        dangerous::insecure_decode_claims([b".", header, b"."].concat());
    members.is_ok_and(|members| members.contains_key("crit"))
}

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"of the unit tests, and of 32 bytes";
    const ED_25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAcn3valyAfEPsVWfkHQlPacQKW7hQ2xWXH1tYH27aWFI=
-----END PUBLIC KEY-----
";

    #[test]
    fn a_secret_is_the_file_without_its_last_line_break() {
        assert_eq!(secret_of(b"a\n"), b"a");
        assert_eq!(secret_of(b"a\r\n"), b"a");
        assert_eq!(secret_of(b" a\n\n"), b" a\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [b'x'; 32]).unwrap();
        assert!(KeySet::default().add_secret_file(file.path()).is_ok());
        fs::write(file.path(), [&[b'x'; 31][..], b"\n"].concat()).unwrap();
        let short = KeySet::default().add_secret_file(file.path());
        assert!(matches!(
            short,
            Err(KeyError::ShortSecret { found: 31, .. })
        ));
    }

    #[test]
    fn a_token_chooses_neither_key_nor_algorithm() {
        let mut keys = KeySet::default();
        let key = |secret| DecodingKey::from_secret(secret);
        keys.push(Some("a".to_owned()), Algorithm::HS256, key(SECRET));
        keys.push(
            None,
            Algorithm::EdDSA,
            DecodingKey::from_ed_pem(ED_25519.as_bytes()).unwrap(),
        );
        let sign = |algorithm, id: Option<&str>, secret: &[u8]| {
            let mut header = Header::new(algorithm);
            header.kid = id.map(str::to_owned);
            // What would send a trusting server elsewhere.
            header.jku = Some("https://example.com/keys".to_owned());
            let claims = json!({"sub": "u", "exp": 4_000_000_000_u64});
            encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap()
        };
        let verify = |token: String| {
            keys.verify(token.as_bytes())
                .map(|claims| claims["sub"].clone())
        };
        assert_eq!(
            verify(sign(Algorithm::HS256, Some("a"), SECRET)),
            Ok(json!("u"))
        );
        assert_eq!(verify(sign(Algorithm::HS256, None, SECRET)), Ok(json!("u")));
        for refused in [
            sign(Algorithm::HS256, Some("b"), SECRET),
            sign(Algorithm::HS384, Some("a"), SECRET),
            sign(
                Algorithm::HS256,
                None,
                b"another secret, and of 32 bytes too",
            ),
            // The public key as a secret.
            sign(Algorithm::HS256, None, ED_25519.as_bytes()),
        ] {
            assert!(verify(refused).is_err());
        }
    }
}
