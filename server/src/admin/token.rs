//! The token of the admin listener.

use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

use crate::io_error::{IoError, io_error};
use crate::small_file;

/// Minimum length of an admin token in bytes, so that the token is hard to guess.
const MIN_TOKEN_BYTES: usize = 16;

/// The admin token file cannot be read, or does not contain a valid token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AdminTokenError {
    #[error("--admin-token-file: {0}")]
    Read(#[from] IoError),
    #[error(
        "{} is not a valid admin token file: expected one line of at least {MIN_TOKEN_BYTES} \
         printable ASCII characters without spaces", path.display()
    )]
    Invalid { path: PathBuf },
}

/// The secret that clients of the admin listener send as a Bearer token.
pub(crate) struct AdminToken(Vec<u8>);

impl AdminToken {
    /// Reads the token from a file that contains only the token.
    ///
    /// # Errors
    /// [`AdminTokenError`] if the file cannot be read or does not contain a valid token.
    pub(crate) fn read(path: &Path) -> Result<Self, AdminTokenError> {
        let text = small_file::read_text(path).map_err(io_error("read", path))?;
        let token = text.trim_ascii_end();
        let is_printable = token.iter().all(u8::is_ascii_graphic);
        if token.len() < MIN_TOKEN_BYTES || !is_printable {
            return Err(AdminTokenError::Invalid {
                path: path.to_owned(),
            });
        }
        Ok(Self(token.to_vec()))
    }

    /// Returns the value of the `Authorization` header with this token.
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
