//! HTTP semantics: bodies, errors, entity tags, conditional requests, CORS and routes. Each file of
//! this layer checks or builds one part of a request or response.
//!
//! From `store`, this layer uses data types such as `Revision`, but not `Store`. This layer must
//! not know who sends a request, which sockets exist, or which operation a request performs.
//!
//! **Architecture Invariant:** this layer imports only `store`, `log`, `settings` and `counters`.

mod body;
pub(crate) mod body_headers;
mod body_stream;
mod budget;
mod clock;
mod cors;
mod date;
mod error;
mod etag;
mod header;
pub(crate) mod path_name;
mod precondition;
mod request_body;
mod request_context;
pub(crate) mod request_head;
mod request_id;
mod response;
mod route;

pub(crate) use body::Body;
pub(crate) use body_stream::{BodyReader, BodyWriter};
pub(crate) use budget::{Budget, Eviction, UploadPermit};
pub(crate) use clock::Clock;
pub(crate) use cors::{Cors, CorsError};
pub(crate) use error::{ApiError, Code, JSON_API};
pub(crate) use etag::etag;
pub(crate) use header::{JSON, NO_STORE};
pub(crate) use precondition::{Conditions, UnmetCondition};
pub(crate) use request_body::RequestBody;
pub(crate) use request_context::{ApiResult, NO_USER, RequestContext, catch_unwind};
pub(crate) use response::{EMPTY_DOCUMENT, no_content, not_modified, ok, precondition_failed};
pub(crate) use route::{METHODS, Route};
