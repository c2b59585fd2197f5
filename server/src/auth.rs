//! Authentication: turns an `Authorization` header into a user, a client and scopes.
//!
//! prefd is a resource server (RFC 6750, RFC 7519, RFC 8725, RFC 9068). JWTs are verified with keys
//! from files and with keys that the configured identity providers publish. Each key is used with
//! exactly one algorithm. A token cannot choose where a key comes from, or which algorithm a key is
//! used with. If token introspection (RFC 7662) is configured, prefd asks the identity provider
//! about tokens that are not JWTs, and about JWTs if no source of keys is configured.
//!
//! This layer must not know what a request is for, how connections are served, or that documents
//! exist.
//!
//! **Architecture Invariant:** this layer imports only `http`, `store`, `settings`, `counters` and
//! `small_file`. From `store`, this layer imports only the type `Name`. This layer imports neither
//! `net` nor `transfer`.

mod authenticator;
mod challenge;
mod claims;
pub(crate) mod dev;
mod fetch_allowance;
pub(crate) mod http_client;
mod introspection;
mod key_source;
mod keys;
mod last_token;
mod members;
mod provider;
mod provider_urls;
mod rules;
mod scope;
pub(crate) mod setup;
mod sign;
mod token_cache;
mod trusted_keys;

pub(crate) use authenticator::Authenticator;
pub(crate) use challenge::{NO_LINKED_IDENTITY, authorization, bearer};
pub(crate) use keys::{KeySet, secret_of};
pub(crate) use last_token::LastToken;
pub(crate) use scope::Access;
pub(crate) use sign::{DEFAULT_TTL, NewClaims, SignError, sign};
