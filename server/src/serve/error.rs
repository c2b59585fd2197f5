//! Why the server did not start, or did not end well.

use std::io;
use std::path::PathBuf;

use crate::admin::AdminTokenError;
use crate::api::OpenApiError;
use crate::auth::SignError;
use crate::auth::setup::IdentityError;
use crate::http::CorsError;
use crate::net::{ListenError, TlsError};
use crate::serve::descriptors::TooFew;
use crate::settings::{Address, SettingsError};
use crate::store::{Error, UnfinishedRestore, cause};

/// Why the server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("--dev listens on loopback addresses only, and {0} is none: its key is for trying out")]
    DevOffLoopback(Address),
    #[error("--admin-listen {0} can be reached from elsewhere, and takes --admin-token-file")]
    AdminWithoutToken(Address),
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    #[error("--api-version {0:?} cannot be a part of a path")]
    Version(String),
    #[error("--log: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot open the data directory {}: {source}{}", path.display(), cause(source))]
    Open { path: PathBuf, source: Error },
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error("the store was not closed cleanly: {0}")]
    Close(Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("--tls-cert-file and --tls-key-file go together")]
    HalfTls,
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Cors(#[from] CorsError),
    #[error(transparent)]
    OpenApi(#[from] OpenApiError),
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Descriptors(#[from] TooFew),
}

impl ServeError {
    /// Whether it was asked for in a way that cannot work.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::DevOffLoopback(_)
            | Self::AdminWithoutToken(_)
            | Self::Zero(_)
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

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}
