//! Token introspection (RFC 7662): prefd asks the provider whether a token is active. JWTs are
//! introspected only if no keys are configured.
//!
//! Responses about active and inactive tokens are cached. A cached response about an active token
//! is used while prefd renews it in the background, and while the provider cannot be reached. At
//! any time, at most one introspection request is in progress for each token, and at most
//! [`MAX_REQUESTS`] in total. Tokens that were active have their own share of these requests, so
//! requests with invented tokens cannot delay them.

mod client;
mod credentials;
mod introspector;
mod lane;
mod responses;

pub(super) use client::{IntrospectionClient, IntrospectionEndpoint};
pub(super) use credentials::{Credentials, CredentialsError};
pub(super) use introspector::{Introspector, MAX_REQUESTS};
pub(super) use responses::CachePolicy;
