//! The names of users and clients, and the hash of a namespace.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use siphasher::sip128::{Hasher128, SipHasher24};

use crate::model::error::Error;

/// A valid name of a user or a client: 1 to [`Name::MAX_BYTES`] bytes of UTF-8 without control
/// characters.
///
/// A `Name` is validated when it is created. A server can therefore validate the names in a token
/// once, and use the names for many requests. Cloning a `Name` is cheap, because all clones share
/// the text.
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, Name, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let engine = Engine::open(Config::new(dir.path()))?;
/// let user = Name::new("alice").expect("the name is valid");
/// engine.namespace(&user, "editor")?.write(b"{}", WriteOptions::default())?;
/// assert!(engine.get(&user, "editor")?.is_some());
/// assert!(Name::new("line\nbreak").is_err());
/// # Ok::<(), prefd_engine::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Maximum length of a name in bytes. In files, the length of a name is stored in one byte.
    pub const MAX_BYTES: usize = 255;

    /// Validates a name.
    ///
    /// # Errors
    /// [`InvalidName`] if `text` is empty, is longer than [`Self::MAX_BYTES`], or contains a
    /// control character. Control characters are not allowed, because the control character NUL
    /// separates the user from the client in the keys of the catalogue.
    pub fn new(text: &str) -> Result<Self, InvalidName> {
        validate(text)?;
        Ok(Self(text.into()))
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error for text that is not a valid [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("the name {}", self.reason())]
pub enum InvalidName {
    /// The text is empty.
    Empty,
    /// The text has more than [`Name::MAX_BYTES`] bytes.
    TooLong,
    /// The text contains a control character (Unicode category Cc).
    ControlCharacter,
}

impl InvalidName {
    fn reason(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::TooLong => "is longer than 255 bytes",
            Self::ControlCharacter => "contains a control character",
        }
    }
}

/// A [`Name`], or text that is validated when it is passed as a name.
///
/// The trait is implemented for [`Name`], `str`, [`String`] and references to these types. The
/// trait is sealed and cannot be implemented for other types.
pub trait AsName: sealed::Sealed {
    /// Validates the name and returns its text without copying it.
    ///
    /// # Errors
    /// [`InvalidName`] if the text is not a valid name.
    fn as_name_str(&self) -> Result<&str, InvalidName>;

    /// Validates the name and returns it as a [`Name`].
    ///
    /// # Errors
    /// [`InvalidName`] if the text is not a valid name.
    fn to_name(&self) -> Result<Name, InvalidName>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Name {}
    impl Sealed for str {}
    impl Sealed for String {}
    impl<T: Sealed + ?Sized> Sealed for &T {}
}

impl AsName for Name {
    fn as_name_str(&self) -> Result<&str, InvalidName> {
        Ok(&self.0)
    }

    fn to_name(&self) -> Result<Name, InvalidName> {
        Ok(self.clone())
    }
}

impl AsName for str {
    fn as_name_str(&self) -> Result<&str, InvalidName> {
        validate(self)?;
        Ok(self)
    }

    fn to_name(&self) -> Result<Name, InvalidName> {
        Name::new(self)
    }
}

impl AsName for String {
    fn as_name_str(&self) -> Result<&str, InvalidName> {
        self.as_str().as_name_str()
    }

    fn to_name(&self) -> Result<Name, InvalidName> {
        Name::new(self)
    }
}

impl<T: AsName + ?Sized> AsName for &T {
    fn as_name_str(&self) -> Result<&str, InvalidName> {
        T::as_name_str(self)
    }

    fn to_name(&self) -> Result<Name, InvalidName> {
        T::to_name(self)
    }
}

/// The user and the client of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) user: Name,
    pub(crate) client: Name,
}

impl Names {
    /// Validates the names of a user and a client.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub(crate) fn new(user: impl AsName, client: impl AsName) -> Result<Self, Error> {
        Ok(Self {
            user: user.to_name().map_err(invalid_user)?,
            client: client.to_name().map_err(invalid_client)?,
        })
    }
}

/// Converts the error for an invalid user name to an [`Error`].
pub(crate) fn invalid_user(invalid: InvalidName) -> Error {
    let (which, reason) = ("user", invalid.reason());
    Error::InvalidName { which, reason }
}

/// Converts the error for an invalid client name to an [`Error`].
pub(crate) fn invalid_client(invalid: InvalidName) -> Error {
    let (which, reason) = ("client", invalid.reason());
    Error::InvalidName { which, reason }
}

fn validate(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > Name::MAX_BYTES {
        return Err(InvalidName::TooLong);
    }
    if has_control_character(text) {
        return Err(InvalidName::ControlCharacter);
    }
    Ok(())
}

fn has_control_character(name: &str) -> bool {
    // The characters U+0080 to U+009F are control characters outside ASCII.
    if name.is_ascii() {
        return name.bytes().any(|byte| byte.is_ascii_control());
    }
    name.chars().any(char::is_control)
}

/// The 128-bit hash of a namespace's names (SipHash-2-4). The hash key is stored in the
/// manifest. The key is secret, so that an attacker cannot choose names whose hashes collide.
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

    /// Returns the low and the high 64 bits of the hash. The implementation of [`std::hash::Hash`]
    /// uses the low 64 bits.
    pub(crate) fn halves(self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl std::hash::Hash for NamespaceHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// A hasher that returns its input unchanged. The keys of a [`NamespaceMap`] are namespace hashes,
/// which are already uniformly distributed, so they need not be hashed again.
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
