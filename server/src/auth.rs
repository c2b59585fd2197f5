//! Who asks: from an `Authorization` header to a user, a client and scopes.
//!
//! A resource server (RFC 6750, 7519, 8725, 9068): keys are the operator's or those of
//! providers that the operator has named, one algorithm for each key, and nothing in a
//! token chooses either. Tokens that are not JWTs are judged by their issuer (RFC 7662).
//!
//! It must not know what a request is for, how connections are served, or that documents
//! exist.
//!
//! **Architecture Invariant:** it imports only `http`, `settings` and `counters`, and
//! neither `net` nor `transfer`.

mod authenticator;
mod challenge;
mod claims;
pub(crate) mod dev;
mod introspection;
mod keys;
mod last_token;
pub(crate) mod outgoing;
mod provider;
mod rules;
mod scope;
pub(crate) mod setup;
mod sign;
mod token_cache;

pub(crate) use authenticator::Authenticator;
pub(crate) use challenge::{NO_LINKED_IDENTITY, bearer};
pub(crate) use keys::{KeySet, secret_of};
pub(crate) use last_token::LastToken;
pub(crate) use scope::Access;
pub(crate) use sign::{DEFAULT_TTL, NewClaims, SignError, sign};
