//! Errors that can occur while a server starts or stops.

use std::path::PathBuf;

use crate::admin::AdminTokenError;
use crate::api::OpenApiError;
use crate::auth::SignError;
use crate::auth::setup::IdentityError;
use crate::http::CorsError;
use crate::io_error::IoError;
use crate::log::LogError;
use crate::net::{ListenError, TlsError};
use crate::serve::descriptors::FdLimitError;
use crate::settings::{Address, SettingsError};
use crate::store::owner::OwnerError;
use crate::store::{Error, UnfinishedRestore, UnstorableLimits, cause};

/// The server could not be started, or was not stopped cleanly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(
        "--dev requires a loopback address or a Unix socket, but {0} is reachable from other \
         machines"
    )]
    DevOffLoopback(Address),
    #[error(
        "--admin-listen {0} is reachable from other machines, so --admin-token-file is required"
    )]
    AdminWithoutToken(Address),
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
    #[error("{setting} must be at least {min}")]
    TooSmall { setting: &'static str, min: u64 },
    #[error("{setting} must be at most {max}")]
    TooLarge { setting: &'static str, max: u64 },
    #[error("{}", storage_setting(.0))]
    Storage(Error),
    #[error(transparent)]
    Limits(#[from] UnstorableLimits),
    #[error(
        "--max-unfinished-upload-bytes {bytes} is less than the maximum length of a body, {max_body_bytes} \
         (--max-body-bytes), so the largest documents could not be uploaded"
    )]
    UnfinishedUploads { bytes: u64, max_body_bytes: u64 },
    #[error(
        "--api-version {0:?} is not a valid path segment: expected ASCII letters, digits, \
         and the characters -._~"
    )]
    Version(String),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot open the data directory {}: {source}{}", path.display(), cause(source))]
    Open { path: PathBuf, source: Error },
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("the store was not closed cleanly: {0}")]
    Close(Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("--tls-cert-file and --tls-key-file must be set together")]
    HalfTls,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Cors(#[from] CorsError),
    #[error(transparent)]
    OpenApi(#[from] OpenApiError),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    FdLimit(#[from] FdLimitError),
}

/// Describes an error of the engine's configuration with the name of the setting that causes it.
fn storage_setting(error: &Error) -> String {
    match error {
        Error::InvalidConfig { setting, reason } => {
            format!("--{} {reason}", setting.replace('_', "-"))
        }
        error => error.to_string(),
    }
}

impl ServeError {
    /// Returns true if the error is caused by an invalid command line or invalid settings.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::DevOffLoopback(_)
            | Self::AdminWithoutToken(_)
            | Self::TooSmall { .. }
            | Self::TooLarge { .. }
            | Self::Storage(_)
            | Self::Limits(_)
            | Self::UnfinishedUploads { .. }
            | Self::Version(_)
            | Self::Log(_)
            | Self::HalfTls
            | Self::Cors(_)
            | Self::Open {
                source: Error::InvalidConfig { .. },
                ..
            } => true,
            Self::Identity(error) => error.is_usage(),
            _ => false,
        }
    }
}
