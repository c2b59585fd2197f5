//! The format of log lines.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// One line of plain text per event
    #[default]
    Text,
    /// One JSON object per event
    Json,
}
