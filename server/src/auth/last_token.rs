//! The token that a connection sent last: most send the same one each time, and to compare
//! it takes a fraction of what its hash does.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::auth::claims::Verified;

/// A connection's last verified token, and what it says. Like the cache of tokens it leaves
/// the times to whoever takes claims from it.
#[derive(Default)]
pub(crate) struct LastToken(Mutex<Last>);

#[derive(Default)]
struct Last {
    token: Vec<u8>,
    /// `None` where there was no token yet.
    verified: Option<Verified>,
}

impl LastToken {
    /// What is known of `token`, if it is the last one. How long this takes says nothing of
    /// where they differ: behind a proxy a connection is not of one user.
    pub(super) fn get(&self, token: &[u8]) -> Option<Verified> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        verify_slices_are_equal(&last.token, token).ok()?;
        last.verified.clone()
    }

    pub(super) fn set(&self, token: &[u8], verified: &Verified) {
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
    fn only_the_whole_last_token_is_known() {
        let last = LastToken::default();
        assert_eq!(last.get(b""), None);
        let of = |user: &str| Verified {
            claims: Arc::new(Claims::of(user, "c", &[])),
            generation: 0,
        };
        let (first, second) = (of("u"), of("v"));
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
