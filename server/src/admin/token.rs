//! The token of the admin listener.

use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

/// Bytes of a token, at least: it must not be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// Why the token cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminTokenError {
    #[error("cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: not one line of {MIN_TOKEN_BYTES} bytes at least, without spaces", path.display())]
    Unfit { path: PathBuf },
}

/// What whoever asks must know.
pub(crate) struct AdminToken(Vec<u8>);

impl AdminToken {
    /// The one line of a file.
    pub(crate) fn read(path: &Path) -> Result<Self, AdminTokenError> {
        let text = std::fs::read(path).map_err(|source| AdminTokenError::Read {
            path: path.to_owned(),
            source,
        })?;
        let token = text.trim_ascii_end();
        let is_plain = token.iter().all(u8::is_ascii_graphic);
        if token.len() < MIN_TOKEN_BYTES || !is_plain {
            return Err(AdminTokenError::Unfit {
                path: path.to_owned(),
            });
        }
        Ok(Self(token.to_vec()))
    }

    /// For a request.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let value = [b"Bearer ", self.0.as_slice()].concat();
        let mut value = HeaderValue::from_bytes(&value).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
