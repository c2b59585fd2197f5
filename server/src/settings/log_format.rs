//! What a line of the log looks like.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a line looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// An object for each event
    Json,
}
