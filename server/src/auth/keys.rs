//! The keys that verify tokens. Each key is used with exactly one algorithm.
//!
//! The key decides the algorithm, never the token (RFC 8725 section 3.1). A token's `alg`
//! and `kid` only select among the configured keys. The headers `jku`, `x5u` and `jwk` are
//! ignored.

mod error;
mod jwks;
mod key;
mod modulus;
mod pem;
mod set;
mod token;

pub(crate) use error::{KeyError, KeyFault, VerifyError};
pub(crate) use set::{KeySet, SignedClaims, secret_of};
pub(crate) use token::Token;
