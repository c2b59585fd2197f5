//! The store that `prefd backup`, `export`, `import` and `erase` work on.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::commands::admin_client::AdminOptions;
use crate::commands::error::CommandError;
use crate::store::{BlockingStore, Error, OpenError, offline};

/// The store of a running server, or of a data directory.
#[derive(Debug, Args)]
pub(super) struct StoreLocation {
    /// Use this data directory instead of a running server. The directory must not be open in any
    /// server
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) admin: AdminOptions,
}

/// Opens the data directory that `--data-dir` names. Blocks on the disk.
pub(super) fn open_data_dir(data_dir: &Path) -> Result<BlockingStore, CommandError> {
    offline::open(data_dir).map_err(open_error)
}

/// Opens the data directory that `--data-dir` names for reading only. Blocks on the disk.
pub(super) fn open_data_dir_read_only(data_dir: &Path) -> Result<BlockingStore, CommandError> {
    offline::open_read_only(data_dir).map_err(open_error)
}

/// Converts an error from opening a data directory. If another process has the data directory open,
/// the returned error also explains how to use the running server.
pub(super) fn open_error(error: OpenError) -> CommandError {
    match error {
        OpenError::Store(error @ Error::Locked { .. }) => CommandError::InUse(error),
        error => CommandError::Open(error),
    }
}
