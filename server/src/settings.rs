//! What `serve` can be told: every setting, the types of their values, and the sources
//! that settings come from.
//!
//! It knows no other part of the server: nothing here opens a socket, a store or a file
//! other than the configuration file.
//!
//! **Architecture Invariant:** this is the ground floor. It imports nothing from the
//! rest of the crate, and every other part may import it.

mod address;
mod given;
mod log_format;
mod serve;
mod span;

pub(crate) use address::{Address, MaybeAddress};
pub(crate) use given::{Given, SettingsError};
pub(crate) use log_format::Format;
pub(crate) use serve::Settings;
pub(crate) use span::{Span, span};
