//! The two names of a namespace, and the hash of a namespace.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::model::error::{Error, Result};

/// Maximum length of a user or client name in bytes. On disk, one byte stores the length.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// The user and the client of a namespace. Both names are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) user: Arc<str>,
    pub(crate) client: Arc<str>,
}

impl Names {
    /// # Errors
    /// [`Error::InvalidName`].
    pub(crate) fn new(user: &str, client: &str) -> Result<Self> {
        Ok(Self {
            user: validate_name("user", user)?.into(),
            client: validate_name("client", client)?.into(),
        })
    }
}

/// Returns `name` if it is a valid user or client name. `which` is "user" or "client".
///
/// Control characters are not allowed, because a NUL separates the user from the client in
/// the keys of the catalogue.
///
/// # Errors
/// [`Error::InvalidName`].
pub(crate) fn validate_name<'a>(which: &'static str, name: &'a str) -> Result<&'a str> {
    let reason = if name.is_empty() {
        "is empty"
    } else if name.len() > MAX_NAME_BYTES {
        "has more than 255 bytes"
    } else if has_control_character(name) {
        "has a control character"
    } else {
        return Ok(name);
    };
    Err(Error::InvalidName { which, reason })
}

fn has_control_character(name: &str) -> bool {
    // The characters U+0080 to U+009F are control characters outside ASCII.
    if name.is_ascii() {
        return name.bytes().any(|byte| byte.is_ascii_control());
    }
    name.chars().any(char::is_control)
}

/// The 128-bit hash of a namespace's names (SipHash-2-4). Its key is secret and is stored in
/// the manifest, so that nobody can choose names whose hashes collide.
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
        #[allow(clippy::cast_possible_truncation, reason = "each half has 64 bits")]
        Self(low as u64, (low >> 64) as u64)
    }

    /// The low and the high 64 bits. [`std::hash::Hash`] uses the low bits.
    pub(crate) fn halves(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for NamespaceHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// A hasher that returns its input. A [`NamespaceHash`] is already uniformly distributed, so
/// a map needs no second hash.
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

/// A map whose keys are namespace hashes.
pub(crate) type NamespaceMap<T> = HashMap<NamespaceHash, T, BuildHasherDefault<IdentityHasher>>;
