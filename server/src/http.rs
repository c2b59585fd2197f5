//! HTTP as this server speaks it: bodies, errors, entity tags, conditional requests, and
//! the parts of a request that are judged one at a time.
//!
//! It knows documents only by what the store says of them. It must not know who asks,
//! which sockets exist, or what a request is for.
//!
//! **Architecture Invariant:** it imports only `store`, `settings` and `counters`.

mod answer;
mod body;
mod budget;
mod cors;
mod error;
mod etag;
mod exchange;
mod header;
mod id;
pub(crate) mod media_type;
mod pipe;
mod precondition;
mod route;

pub(crate) use answer::{NO_DOCUMENT, found, no_content, not_modified, precondition_failed};
pub(crate) use body::Body;
pub(crate) use budget::Budget;
pub(crate) use cors::{Cors, CorsError};
pub(crate) use error::{Code, JSON_API, Refusal};
pub(crate) use etag::etag;
pub(crate) use exchange::{Answer, Exchange, NOBODY, unpanicked};
pub(crate) use pipe::{BodyReader, Pipe};
pub(crate) use precondition::{Conditions, Verdict, unmodified};
pub(crate) use route::{MAX_CLIENT_ID_BYTES, METHODS, Route};
