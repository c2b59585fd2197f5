//! The keys of one document, to find duplicates.

use std::collections::HashSet;

/// Maximum number of keys that are compared one by one. For so few keys, comparing is at least as
/// fast as hashing. Documents within the default limits have at most 10 keys.
const MAX_COMPARED_KEYS: usize = 32;

/// The decoded keys of the members that a document has so far. The time to add a key does not grow
/// with the number of keys.
#[derive(Debug)]
pub(crate) enum KeySet {
    /// Up to [`MAX_COMPARED_KEYS`] keys, in the order of the document.
    Few(Vec<String>),
    Many {
        /// The hash of a `HashSet` is keyed with random bytes, so clients cannot choose keys whose
        /// hashes collide.
        keys: HashSet<String>,
        /// The key that was added last.
        last: String,
    },
}

impl Default for KeySet {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl KeySet {
    /// Adds a key. If the set already contains the key, returns the key as an error.
    pub(crate) fn insert(&mut self, key: String) -> Result<(), String> {
        match self {
            Self::Few(keys) if keys.contains(&key) => Err(key),
            Self::Few(keys) if keys.len() < MAX_COMPARED_KEYS => {
                keys.push(key);
                Ok(())
            }
            Self::Few(keys) => {
                let mut keys: HashSet<String> = keys.drain(..).collect();
                let last = key.clone();
                keys.insert(key);
                *self = Self::Many { keys, last };
                Ok(())
            }
            Self::Many { keys, last } => {
                last.clone_from(&key);
                if keys.insert(key) {
                    return Ok(());
                }
                Err(last.clone())
            }
        }
    }

    /// Number of keys in the set.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(keys) => keys.len(),
            Self::Many { keys, .. } => keys.len(),
        }
    }

    /// The key that was added last, or an empty string if the set is empty.
    pub(crate) fn last(&self) -> &str {
        match self {
            Self::Few(keys) => keys.last().map_or("", String::as_str),
            Self::Many { last, .. } => last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duplicate_is_found_for_every_number_of_keys() {
        let mut set = KeySet::default();
        assert_eq!((set.len(), set.last()), (0, ""));
        for count in 0..4 * MAX_COMPARED_KEYS {
            for earlier in 0..count {
                let key = format!("key {earlier}");
                assert_eq!(set.insert(key.clone()), Err(key), "{count}");
            }
            let key = format!("key {count}");
            assert_eq!(set.insert(key.clone()), Ok(()));
            assert_eq!((set.len(), set.last()), (count + 1, key.as_str()));
            let is_hashed = matches!(set, KeySet::Many { .. });
            assert_eq!(is_hashed, count >= MAX_COMPARED_KEYS, "{count}");
        }
    }
}
