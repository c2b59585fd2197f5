//! The HTTP scenario. wrk sends the same requests to each server over loopback.
//!
//! - `phases` has the phases of the scenario.
//! - `server` starts a server in a folder of its own, and `process` ends its processes.
//!   `nginx`, `webdis`, `prefd` and `constant` configure the servers.
//! - `requests` has the requests for each server, and `tokens` signs their tokens.
//! - `wrk` sends the requests that are measured. `client` stores the documents for gets, checks
//!   responses, and sends large puts with the bodies of `body`.
//!
//! Documents for gets are stored before wrk sends its first request to a server. The reason is
//! a defect of webdis that `client` describes.
//!
//! Every server gets the same request headers, including tokens, but only prefd checks the
//! tokens. The resources of a server do not include those of wrk and of this process.

mod body;
mod client;
pub(crate) mod constant;
mod nginx;
mod phases;
mod prefd;
mod process;
mod requests;
mod server;
mod tokens;
mod webdis;
mod wrk;
