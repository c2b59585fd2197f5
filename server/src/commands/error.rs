//! The error type that all commands share.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use hyper::StatusCode;

use crate::admin::AdminTokenError;
use crate::auth::SignError;
use crate::commands::admin_endpoint::AdminEndpoint;
use crate::io_error::IoError;
use crate::serve::ServeError;
use crate::settings::SettingsError;
use crate::store::owner::OwnerError;
use crate::store::restore::RestoreDirectoryError;
use crate::store::{Error, OpenError, cause};
use crate::transfer::archive::ArchiveError;
use crate::transfer::{ExportError, ImportError};

/// Exit code if the command failed.
const FAILED: u8 = 1;
/// Exit code if the command line or the settings are invalid.
pub(super) const USAGE: u8 = 2;

/// The error of a failed command. The text of the error is printed to standard error, after the
/// name of the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum CommandError {
    #[error(
        "--data-dir and --admin cannot be used together: --data-dir uses a data directory that no \
         server has open, and --admin uses a running server"
    )]
    DataDirAndAdmin,
    #[error(transparent)]
    Serve(Box<ServeError>),
    /// The configuration file of `prefd import` is invalid or cannot be read. `prefd serve` and
    /// `prefd config` report errors in settings as [`Self::Serve`].
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot print the settings: {0}")]
    Json(#[from] serde_json::Error),

    #[error(transparent)]
    Io(#[from] IoError),
    #[error("{} already exists: remove it or choose another name", .0.display())]
    AlreadyExists(PathBuf),

    #[error(
        "cannot connect to the server at {endpoint}: {source}. Check that prefd is running, and \
         that --admin is the address of its admin listener (--admin-listen)"
    )]
    Connect {
        endpoint: AdminEndpoint,
        source: io::Error,
    },
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "the connection to the server failed before the response was complete: {0}{causes}. The \
         server log may contain the cause", causes = causes(.0)
    )]
    Http(#[from] hyper::Error),
    #[error("the server could not complete the response: {0}")]
    ServerFailed(String),
    #[error("the server responded with {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error(
        "the server at {0} did not send the response of an admin listener of prefd. Check --admin"
    )]
    NotPrefd(AdminEndpoint),
    #[error("the response of the server is not valid JSON: {0}")]
    InvalidResponse(serde_json::Error),
    #[error("the server sent nothing for {} seconds", .0.as_secs())]
    Timeout(Duration),
    #[error("cannot read the response of the server: {0}")]
    ErrorResponse(Box<dyn std::error::Error + Send + Sync>),

    #[error("{0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
    #[error(transparent)]
    Open(OpenError),
    #[error(
        "{0}. If the data directory belongs to a running server, leave out --data-dir to use that \
         server"
    )]
    InUse(Error),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    RestoreDirectory(#[from] RestoreDirectoryError),
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Import(#[from] ImportError),

    #[error("{} found in {}", problems(*.count), path.display())]
    Problems { path: PathBuf, count: usize },
    #[error(
        "the data directory is damaged: {0}. Run prefd verify to list the affected \
         documents"
    )]
    Damaged(String),
    #[error(
        "the backup was written, but it is incomplete: data at {} could not be read. \
         prefd restore may require --accept-damage", places(*.0)
    )]
    BackupIncomplete(usize),
    #[error(
        "no backup found in {}: expected a file named prefd-<seconds>.tar. To restore a backup \
         with another name, set --from to that file", .0.display()
    )]
    NoBackup(PathBuf),
    #[error(
        "the backup was unpacked without errors, but the store in the backup could not be verified: {0}"
    )]
    RestoreUnverified(OpenError),
    #[error(
        "the backup is intact, but documents in it cannot be read, because the store was damaged \
         when the backup was taken. {} found; the first is {first}. To restore all other \
         documents, use --accept-damage", problems(*.count)
    )]
    RestoreDamaged { count: usize, first: String },
    #[error("the export is incomplete: {0}. All documents that could be read were exported")]
    ExportIncomplete(String),
    #[error("the erasure is incomplete:\n{0}")]
    EraseIncomplete(String),

    #[error(
        "cannot read the signing key {}: {source}. prefd serve --dev creates this file", path.display()
    )]
    DevKey { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Sign(#[from] SignError),

    #[error("cannot create a latency histogram: {0}")]
    HistogramCreation(#[from] hdrhistogram::CreationError),
    #[error("cannot merge the latency histograms: {0}")]
    HistogramAddition(#[from] hdrhistogram::AdditionError),
    #[error("a benchmark thread panicked")]
    ThreadPanicked,
}

impl CommandError {
    /// Wraps an error of `prefd serve`, or of its settings.
    pub(super) fn serve(error: impl Into<ServeError>) -> Self {
        Self::Serve(Box::new(error.into()))
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::DataDirAndAdmin | Self::Settings(_) | Self::Sign(SignError::TooLong) => USAGE,
            Self::Serve(error) if error.is_usage() => USAGE,
            _ => FAILED,
        }
    }
}

/// Joins the texts of several errors or damaged places into one line.
pub(super) fn joined(items: &[impl ToString]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join("; ")
}

/// Returns the messages of the sources of `error`, each after `: `.
fn causes(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(String::new(), |text, source| format!("{text}: {source}"))
}

fn places(count: usize) -> String {
    match count {
        1 => "1 place".to_owned(),
        count => format!("{count} places"),
    }
}

fn problems(count: usize) -> String {
    match count {
        1 => "1 problem was".to_owned(),
        count => format!("{count} problems were"),
    }
}
