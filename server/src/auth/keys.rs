//! The keys that verify tokens. Each key is used with exactly one algorithm.
//!
//! The algorithm is a property of the key, and a token cannot choose another algorithm (RFC 8725
//! section 3.1). A token's `alg` and `kid` only select which of the known keys are tried. The
//! header parameters `jku`, `x5u` and `jwk` are ignored.

mod algorithm;
mod check;
mod error;
mod jwks;
mod key;
mod pem;
mod set;
mod token;

pub(crate) use error::{KeyError, KeyFault, VerifyError};
pub(crate) use set::{Attempts, KeySet, SignedClaims, secret_of};
pub(crate) use token::{Token, UnverifiedClaims};
