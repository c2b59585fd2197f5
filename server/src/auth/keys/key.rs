//! One key, with the one algorithm it is for.

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

/// A key that tokens are verified with.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) validation: Validation,
    /// What it was made of, so that a key that goes can be told.
    pub(super) material: Vec<u8>,
}

/// A key to be added.
pub(super) struct NewKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    pub(super) material: Vec<u8>,
}
