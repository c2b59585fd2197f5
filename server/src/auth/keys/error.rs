//! The errors of keys and key files, and the reasons why the verification of a token fails.

use std::path::PathBuf;

use jsonwebtoken::Algorithm;

/// Minimum length of an HS256 secret in bytes: the length of the hash (RFC 7518 section 3.2).
pub(super) const MIN_SECRET_BYTES: usize = 32;
/// Maximum number of keys that are used from one provider's key set.
pub(super) const MAX_PROVIDER_KEYS: usize = 64;
/// Maximum number of keys that are tried for one token. A token does not have to name its key, and
/// without this limit, anybody could make prefd check 64 signatures per request. Providers usually
/// publish two or three keys.
pub(super) const MAX_ATTEMPTS: usize = 4;
pub(super) const MALFORMED: &str = "The token is not a signed JWT.";
/// Minimum length of an RSA modulus in bits (RFC 7518 section 3.3).
pub(super) const MIN_RSA_BITS: usize = 2048;
/// Maximum length of an RSA modulus in bits. The signature library refuses longer keys.
pub(super) const MAX_RSA_BITS: usize = 8192;

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
    #[error(
        "expected a public key, but found a certificate: write its public key to a file, for example \
         with \"openssl x509 -pubkey -noout\""
    )]
    Certificate,
    #[error("expected one PEM public key: RSA, EC (P-256 or P-384) or Ed25519")]
    UnsupportedKey,
    #[error(
        "the RSA key has {found} bits, but prefd accepts only keys of {MIN_RSA_BITS} to \
         {MAX_RSA_BITS} bits"
    )]
    RsaKeyLength { found: usize },
    #[error("expected an RSA key with an odd modulus, and with an odd exponent of 2 to 33 bits")]
    UnsupportedRsaNumbers,
    #[error(
        "the point of the EC key is not on the curve {0}: the key is damaged, or is for a curve \
         other than P-256 and P-384"
    )]
    NotOnCurve(&'static str),
    #[error("not a JSON Web Key Set: {0}")]
    NotAKeySet(#[from] serde_json::Error),
    #[error(
        "it is a symmetric key: put the secret into the file of --jwt-hs256-secret-file instead"
    )]
    SymmetricKey,
    #[error("{key} in the key set is unusable: {fault}")]
    InSet {
        /// The id of the key, or its position in the set.
        key: String,
        fault: Box<KeyFault>,
    },
    #[error("its {0} is missing or is not base64url")]
    NotBase64Url(&'static str),
    #[error("{0}")]
    Unusable(&'static str),
    #[error("the key set contains no key that can verify the signature of a token")]
    NoUsableKey,
    #[error(
        "the key set has more than {MAX_PROVIDER_KEYS} signature keys: only the first \
         {MAX_PROVIDER_KEYS} are used"
    )]
    TooManyKeys,
    #[error(
        "more than {MAX_ATTEMPTS} keys for {0:?} in the key set: a token that does not name its key \
         with kid is checked with only {MAX_ATTEMPTS} of them. Withdraw unused keys, or let the \
         tokens name their key"
    )]
    TooManyForAlgorithm(Algorithm),
}

/// Why the verification of a token failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VerifyError {
    /// None of the known keys has signed the token. A newer key may have signed the token.
    NoKey,
    /// A known key has signed the token, but the token does not name the issuer of that key.
    /// Another issuer may publish the same key.
    IssuerMismatch,
    /// More than [`MAX_ATTEMPTS`] keys match the token's header, and none of the tried ones has
    /// signed the token.
    TooManyCandidates,
    /// The token is invalid for this reason. Newer keys would not make the token valid.
    Rejected(&'static str),
}

impl VerifyError {
    /// Whether a key that is not known yet may verify the token.
    pub(crate) fn may_be_fixed_by_newer_keys(self) -> bool {
        match self {
            Self::NoKey | Self::IssuerMismatch | Self::TooManyCandidates => true,
            Self::Rejected(_) => false,
        }
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoKey => "The token is not signed by a trusted key.",
            Self::IssuerMismatch => "The token's issuer is not trusted.",
            Self::TooManyCandidates => {
                "More than 4 trusted keys match the token's alg and kid, and the first 4 have not \
                 signed the token."
            }
            Self::Rejected(reason) => reason,
        }
    }
}
