//! The settings of `prefd serve`: their names, help texts, value types and sources.
//!
//! The code in this folder must not open sockets, stores, or files other than the configuration
//! file.
//!
//! **Architecture Invariant:** this is one of the lowest layers. This layer imports only
//! `small_file`, and every other layer may import it.

mod address;
mod human_duration;
mod log_format;
mod serve;
mod sources;

pub(crate) use address::{AbstractSocket, Address, MaybeAddress, unix_path};
pub(crate) use human_duration::{HumanDuration, duration_or};
pub(crate) use log_format::LogFormat;
pub(crate) use serve::Settings;
pub(crate) use sources::{SettingsError, SettingsSources};
