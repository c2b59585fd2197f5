//! Authentication: from an `Authorization` header to a user, a client and scopes.
//!
//! prefd is a resource server (RFC 6750, RFC 7519, RFC 8725, RFC 9068). It verifies JWTs
//! with keys from the operator's files and from the identity providers that the operator
//! has configured. Each key is used with one algorithm, and nothing in a token chooses the
//! key's source or the algorithm. Tokens that are not JWTs are sent to the identity
//! provider for introspection (RFC 7662).
//!
//! The layer must not know what a request is for, how connections are served, or that
//! documents exist.
//!
//! **Architecture Invariant:** it imports only `http`, `settings` and `counters`, and
//! neither `net` nor `transfer`.

mod authenticator;
mod challenge;
mod claims;
pub(crate) mod dev;
pub(crate) mod http_client;
mod introspection;
mod keys;
mod last_token;
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
