//! Starts a server from its settings, and shuts the server down.
//!
//! This layer creates the parts of a server and connects them. This layer must not know the command
//! line. The `commands` layer passes the settings.
//!
//! **Architecture Invariant:** this layer imports only the layers below it, so it imports
//! nothing from `commands`.

mod descriptors;
mod error;
mod parts;
mod server;
mod signals;
mod store_watch;
mod systemd;

pub(crate) use error::ServeError;
#[cfg(feature = "fuzzing")]
pub(crate) use parts::{connection_server, handler};
pub(crate) use server::{check_settings, run};
