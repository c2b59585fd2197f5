//! The keys that tokens are verified with, each with the one algorithm it is for.
//!
//! The algorithm comes from the key, never from the token (RFC 8725 section 3.1): a
//! token's `alg` and `kid` only pick among keys that the operator has given. `jku`, `x5u`
//! and `jwk` headers are ignored.

mod fault;
mod jwks;
mod key;
mod modulus;
mod pem;
mod set;
mod token;

pub(crate) use fault::{Distrust, KeyError, KeyFault};
pub(crate) use set::{KeySet, Signed, secret_of};
pub(crate) use token::Token;
