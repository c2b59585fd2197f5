//! The two names of a namespace, and the hash that the table finds it by.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::model::error::{Error, Result};

/// Bytes of a user or client name, at most: what one length byte on disk can say.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// A user and a client, as a caller named them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) user: Arc<str>,
    pub(crate) client: Arc<str>,
}

impl Names {
    pub(crate) fn new(user: &str, client: &str) -> Result<Self> {
        Ok(Self {
            user: valid("user", user)?.into(),
            client: valid("client", client)?.into(),
        })
    }
}

/// Control characters are refused, so that a NUL can part the names in ordered keys.
pub(crate) fn valid<'a>(which: &'static str, name: &'a str) -> Result<&'a str> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "has more than 255 bytes"
    } else if has_control(name) {
        "has a control character"
    } else {
        return Ok(name);
    };
    Err(Error::InvalidName { which, reason })
}

fn has_control(name: &str) -> bool {
    // Beyond ASCII there are U+0080 to U+009F.
    if name.is_ascii() {
        return name.bytes().any(|byte| byte.is_ascii_control());
    }
    name.chars().any(char::is_control)
}

/// A keyed 128-bit hash of a namespace's names. The key is a secret of the store
/// (in its manifest), so nobody can choose names that collide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamespaceHash(u64, u64);

impl NamespaceHash {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn of(key: &[u8; 16], user: &str, client: &str) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write(&(user.len() as u64).to_le_bytes());
        hasher.write(user.as_bytes());
        hasher.write(client.as_bytes());
        let hash = hasher.finish128();
        Self(hash.h1, hash.h2)
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        ((u128::from(self.1) << 64) | u128::from(self.0)).to_le_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let low = u128::from_le_bytes(bytes);
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of it")]
        Self(low as u64, (low >> 64) as u64)
    }

    /// The half that [`std::hash::Hash`] uses, and the other one.
    pub(crate) fn halves(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for NamespaceHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// The hash of a namespace is as good as random already.
#[derive(Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }
}

/// A map by the hash of a namespace.
pub(crate) type NamespaceMap<T> = HashMap<NamespaceHash, T, BuildHasherDefault<IdentityHasher>>;
