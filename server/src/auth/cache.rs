//! Verified tokens, remembered so that a signature is checked once.
//!
//! Bounded, and of no use to a thief: it is keyed by a hash of the token under a key
//! of this process, and holds claims. Expiry is not its business: whoever takes
//! claims from it checks their times. A key that is withdrawn takes its tokens with
//! it, since a cache belongs to one set of keys.

use std::hash::Hasher;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::auth::Claims;

/// Bytes of claims that an entry holds typically; the bound is on the sum.
const TYPICAL_CLAIMS_BYTES: u64 = 512;

pub(crate) struct TokenCache {
    key: [u8; 16],
    claims: Cache<u128, Arc<Claims>, ClaimsWeight>,
}

#[derive(Clone)]
struct ClaimsWeight;

impl Weighter<u128, Arc<Claims>> for ClaimsWeight {
    fn weight(&self, _: &u128, claims: &Arc<Claims>) -> u64 {
        claims.weight() as u64
    }
}

impl TokenCache {
    /// For some `entries` tokens of ordinary size. Without random bytes for a key it
    /// holds nothing.
    pub(crate) fn new(entries: usize) -> Self {
        let mut key = [0; 16];
        let entries = match getrandom::fill(&mut key) {
            Ok(()) => entries,
            Err(_) => 0,
        };
        Self {
            key,
            claims: Cache::with_weighter(
                entries,
                (entries as u64).saturating_mul(TYPICAL_CLAIMS_BYTES),
                ClaimsWeight,
            ),
        }
    }

    fn hash(&self, token: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(token);
        hasher.finish128().as_u128()
    }

    pub(crate) fn get(&self, token: &[u8]) -> Option<Arc<Claims>> {
        self.claims.get(&self.hash(token))
    }

    pub(crate) fn insert(&self, token: &[u8], claims: &Arc<Claims>) {
        self.claims.insert(self.hash(token), Arc::clone(claims));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_keyed_by_the_whole_token() {
        let cache = TokenCache::new(10);
        let claims = Arc::new(Claims::of("u", "c", &["s"]));
        cache.insert(b"token", &claims);
        assert_eq!(cache.get(b"token").as_ref(), Some(&claims));
        assert!(cache.get(b"tokem").is_none() && cache.get(b"toke").is_none());
        for index in 0..1_000_u32 {
            cache.insert(&index.to_le_bytes(), &claims);
        }
        let bytes = cache.claims.weight();
        assert!(bytes <= 10 * TYPICAL_CLAIMS_BYTES, "{bytes}");
    }
}
