//! A cache of verified tokens and introspection responses. A request whose token has a usable cache
//! entry requires neither a signature check nor an introspection request.
//!
//! The size of the cache in bytes is limited. The tokens themselves are not stored: entries are
//! looked up by a hash of the token, and the hash key is random. The cache does not check whether a
//! token has expired, so callers must check the times of the claims that they get.

use std::hash::Hasher;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use siphasher::sip128::{Hasher128, SipHasher24};

/// Typical size of an entry in bytes, with claims and the bookkeeping of the cache. The total size
/// of all entries is limited to the configured number of entries times this size. A smaller entry
/// counts as this size, so the cache holds at most the configured number of entries.
const TYPICAL_ENTRY_BYTES: u64 = 512;

pub(super) struct TokenCache<V> {
    key: [u8; 16],
    entries: Cache<u128, Entry<V>, EntryWeight>,
}

#[derive(Clone)]
struct Entry<V> {
    value: V,
    /// Size of `value` in bytes.
    weight: usize,
}

#[derive(Clone)]
struct EntryWeight;

impl<V> Weighter<u128, Entry<V>> for EntryWeight {
    fn weight(&self, _: &u128, entry: &Entry<V>) -> u64 {
        (entry.weight as u64).max(TYPICAL_ENTRY_BYTES)
    }
}

impl<V: Clone> TokenCache<V> {
    /// Creates a cache for `entries` tokens of typical size, or fewer larger ones. If the system
    /// provides no random bytes for the hash key, the cache stays empty.
    pub(crate) fn new(entries: usize) -> Self {
        let mut key = [0; 16];
        let entries = match getrandom::fill(&mut key) {
            Ok(()) => entries,
            Err(_) => 0,
        };
        Self {
            key,
            entries: Cache::with_weighter(
                entries,
                (entries as u64).saturating_mul(TYPICAL_ENTRY_BYTES),
                EntryWeight,
            ),
        }
    }

    fn hash(&self, token: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(token);
        hasher.finish128().as_u128()
    }

    pub(crate) fn get(&self, token: &[u8]) -> Option<V> {
        let entry = self.entries.get(&self.hash(token))?;
        Some(entry.value)
    }

    /// Adds an entry. `weight` is the size of `value` in bytes.
    pub(crate) fn insert(&self, token: &[u8], value: V, weight: usize) {
        self.entries
            .insert(self.hash(token), Entry { value, weight });
    }

    pub(crate) fn remove(&self, token: &[u8]) {
        self.entries.remove(&self.hash(token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_bounded_and_keyed_by_the_complete_token() {
        let cache = TokenCache::new(10);
        cache.insert(b"token", 1, 200);
        assert_eq!(cache.get(b"token"), Some(1));
        assert!(cache.get(b"tokem").is_none() && cache.get(b"toke").is_none());
        for index in 0..1_000_u32 {
            cache.insert(&index.to_le_bytes(), 2, 200);
        }
        let bytes = cache.entries.weight();
        assert!(bytes <= 10 * TYPICAL_ENTRY_BYTES, "{bytes}");
        cache.insert(b"token", 3, 200);
        cache.remove(b"token");
        assert_eq!(cache.get(b"token"), None);
    }

    /// The entries of refused tokens are much smaller than claims.
    #[test]
    fn cache_of_small_entries_holds_only_the_configured_number() {
        let cache = TokenCache::new(100);
        for index in 0..10_000_u32 {
            cache.insert(&index.to_le_bytes(), (), size_of::<u128>());
        }
        let held = cache.entries.len();
        assert!((90..=100).contains(&held), "{held}");
    }
}
