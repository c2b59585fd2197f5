//! A key and the only algorithm that it is used with.

use jsonwebtoken::{Algorithm, DecodingKey};

/// A key that verifies tokens.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// The bytes that the key was read from. These bytes are compared to find out which keys of a
    /// set were added or withdrawn.
    pub(super) material: Vec<u8>,
}

/// A key that was read, but is not part of a set yet.
pub(super) struct NewKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    /// See [`Key::material`].
    pub(super) material: Vec<u8>,
}
