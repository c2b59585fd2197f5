//! Caches a connection's last token that was verified with a key. Most connections send the same
//! token with every request, and comparing two tokens is much cheaper than hashing a token for the
//! token cache.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::auth::claims::VerifiedToken;

/// A connection's last token that was verified with a key, and the claims of this token. Callers
/// must check whether the claims have expired.
#[derive(Default)]
pub(crate) struct LastToken(Mutex<CachedToken>);

#[derive(Default)]
struct CachedToken {
    token: Vec<u8>,
    /// `None` until a token of the connection was verified with a key.
    verified: Option<VerifiedToken>,
}

impl LastToken {
    /// The claims of `token`, if it is the cached token.
    ///
    /// The tokens are compared in constant time. Users behind a proxy can share a connection. With
    /// a faster comparison, one user could measure how many leading bytes of a guess match another
    /// user's token.
    pub(super) fn get(&self, token: &[u8]) -> Option<VerifiedToken> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        verify_slices_are_equal(&last.token, token).ok()?;
        last.verified.clone()
    }

    pub(super) fn set(&self, token: &[u8], verified: &VerifiedToken) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.token.clear();
        last.token.extend_from_slice(token);
        last.verified = Some(verified.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::claims::Claims;

    #[test]
    fn only_the_complete_last_token_is_found() {
        let last = LastToken::default();
        assert_eq!(last.get(b""), None);
        let verified = |user: &str| VerifiedToken {
            claims: Arc::new(Claims::for_test(user, "c", &[])),
            generation: 0,
        };
        let (first, second) = (verified("u"), verified("v"));
        last.set(b"first token", &first);
        assert_eq!(last.get(b"first token"), Some(first));
        for other in [
            "",
            "first toke",
            "first tokens",
            "First token",
            "first tokem",
        ] {
            assert_eq!(last.get(other.as_bytes()), None, "{other}");
        }
        last.set(b"second", &second);
        assert_eq!(last.get(b"second"), Some(second));
        assert_eq!(last.get(b"first token"), None);
    }
}
