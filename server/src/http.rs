//! HTTP semantics: bodies, errors, entity tags, conditional requests, CORS and routes. Each file of
//! this layer checks or builds one part of a request or response.
//!
//! From `store`, this layer uses data types such as `Revision`, but not `Store`. This layer must
//! not know who sends a request, which sockets exist, or which operation a request performs.
//!
//! **Architecture Invariant:** this layer imports only `store`, `settings` and `counters`.

mod body;
mod body_stream;
mod budget;
mod cors;
mod error;
mod etag;
mod header;
pub(crate) mod media_type;
mod precondition;
mod request_context;
mod request_id;
mod response;
mod route;

pub(crate) use body::Body;
pub(crate) use body_stream::{BodyReader, BodyWriter};
pub(crate) use budget::Budget;
pub(crate) use cors::{Cors, CorsError};
pub(crate) use error::{ApiError, Code, JSON_API};
pub(crate) use etag::etag;
pub(crate) use header::JSON;
pub(crate) use precondition::{Conditions, UnmetCondition, is_unmodified};
pub(crate) use request_context::{ApiResult, NO_USER, RequestContext, catch_unwind};
pub(crate) use response::{EMPTY_DOCUMENT, no_content, not_modified, ok, precondition_failed};
pub(crate) use route::{METHODS, Route};
