//! The names of signature algorithms in keys and tokens.

use jsonwebtoken::Algorithm;

/// The algorithm with a name from the IANA registry "JSON Web Signature and Encryption Algorithms".
/// `None` if the algorithm is not supported.
pub(super) fn algorithm_named(name: &str) -> Option<Algorithm> {
    match name {
        // RFC 9864 replaces `EdDSA` with a name for each curve. prefd supports only Ed25519.
        "Ed25519" => Some(Algorithm::EdDSA),
        _ => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eddsa_and_ed25519_name_the_same_algorithm() {
        for name in ["EdDSA", "Ed25519"] {
            assert_eq!(algorithm_named(name), Some(Algorithm::EdDSA), "{name}");
        }
        assert_eq!(algorithm_named("ES384"), Some(Algorithm::ES384));
        for name in ["Ed448", "ed25519", "none", "ES512", ""] {
            assert_eq!(algorithm_named(name), None, "{name}");
        }
    }
}
