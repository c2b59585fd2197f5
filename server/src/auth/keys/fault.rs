//! What can be wrong with a key, and why a token is not believed.

use std::path::PathBuf;

/// Bytes of an HS256 secret, at least: the length of the hash (RFC 7518 section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// Keys of one provider, at most: a token without an id is held against each of them.
pub(super) const MAX_PROVIDER_KEYS: usize = 64;
pub(super) const MALFORMED: &str = "The token is not a signed JWT.";
/// Bits of an RSA modulus, at least (RFC 7518 section 3.3).
pub(super) const MIN_RSA_BITS: usize = 2048;

/// Why a file gives no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {fault}", path.display())]
    Unfit { path: PathBuf, fault: KeyFault },
}

/// What is wrong with a key, or a set of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum KeyFault {
    #[error("the secret has {found} bytes, and HS256 needs at least {MIN_SECRET_BYTES}")]
    ShortSecret { found: usize },
    #[error("a private key has no place on a server that only verifies; give the public key")]
    PrivateKey,
    #[error("not one PEM public key of RSA, EC (P-256, P-384) or Ed25519")]
    UnknownKey,
    #[error("the RSA key has {found} bits, and at least {MIN_RSA_BITS} are needed")]
    WeakRsaKey { found: usize },
    #[error("not a JSON Web Key Set: {0}")]
    NoKeySet(#[from] serde_json::Error),
    #[error("a symmetric key in a key set; give it with --jwt-hs256-secret-file")]
    SymmetricKey,
    #[error("no key in it can verify a signature")]
    NoUsableKey,
    #[error("more than {MAX_PROVIDER_KEYS} keys: the others are passed over")]
    TooManyKeys,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distrust {
    /// None of these keys has signed it; one that is not known yet may have.
    NoKey,
    /// One has, but it is of another issuer than the token names, which may have it too.
    OtherIssuer,
    /// Whatever keys there are.
    Because(&'static str),
}
