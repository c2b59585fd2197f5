//! `prefd serve`: from settings to a listening server, and back to a closed store.
//!
//! It puts the parts together, and is the only place that knows all of them. It must not
//! know the command line: a command hands it settings.
//!
//! **Architecture Invariant:** it imports only what lies below it, and nothing of
//! `commands`.

mod descriptors;
mod error;
pub(crate) mod log;
mod parts;
mod server;
mod systemd;

pub(crate) use error::ServeError;
#[cfg(feature = "fuzzing")]
pub(crate) use parts::{connection_server, handler};
pub(crate) use server::{check_settings, run};
