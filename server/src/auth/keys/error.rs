//! The errors of keys and key files, and the reasons why the verification of a token fails.

use std::path::PathBuf;

/// Minimum length of an HS256 secret in bytes: the length of the hash (RFC 7518 section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// Maximum number of keys that are used from one provider's key set. The number is limited because
/// a token without a key id may have to be checked with every key.
pub(super) const MAX_PROVIDER_KEYS: usize = 64;
pub(super) const MALFORMED: &str = "The token is not a signed JWT.";
/// Minimum length of an RSA modulus in bits (RFC 7518 section 3.3).
pub(super) const MIN_RSA_BITS: usize = 2048;

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot use {}: {fault}", path.display())]
    Unusable { path: PathBuf, fault: KeyFault },
}

/// What is wrong with a key or a key set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyFault {
    #[error("the secret has {found} bytes, but HS256 requires at least {MIN_SECRET_BYTES}")]
    ShortSecret { found: usize },
    #[error("expected a public key, but found a private key: prefd only verifies tokens")]
    PrivateKey,
    #[error("expected one PEM public key: RSA, EC (P-256 or P-384) or Ed25519")]
    UnsupportedKey,
    #[error("the RSA key has {found} bits, but at least {MIN_RSA_BITS} are required")]
    WeakRsaKey { found: usize },
    #[error("not a JSON Web Key Set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error(
        "the key set contains a symmetric key: put the secret into the file of \
         --jwt-hs256-secret-file instead"
    )]
    SymmetricKey,
    #[error("the key set contains no key that can verify the signature of a token")]
    NoUsableKey,
    #[error(
        "the key set has more than {MAX_PROVIDER_KEYS} signature keys: only the first \
         {MAX_PROVIDER_KEYS} are used"
    )]
    TooManyKeys,
}

/// Why the verification of a token failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// None of the known keys has signed the token. A newer key may have signed the token.
    NoKey,
    /// A known key has signed the token, but the token does not name the issuer of that key.
    /// Another issuer may publish the same key.
    IssuerMismatch,
    /// The token is invalid for this reason. Newer keys would not make the token valid.
    Rejected(&'static str),
}
