//! The credentials with which prefd authenticates to the introspection endpoint.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::small_file;

/// The characters that must be escaped in a form (`application/x-www-form-urlencoded`).
const FORM_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'*');

/// Why credentials could not be read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CredentialsError {
    #[error("--introspection-credentials-file: cannot read {}: {source}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "--introspection-credentials-file {}: expected one line CLIENT_ID:CLIENT_SECRET",
        path.display()
    )]
    Format { path: PathBuf },
}

/// The value of the `Authorization` header with which prefd authenticates to the provider.
#[derive(Clone)]
pub(crate) struct Credentials(HeaderValue);

impl Credentials {
    /// Reads the credentials from a file with one line, `CLIENT_ID:CLIENT_SECRET`. Blocks.
    pub(crate) fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = small_file::read_text(path).map_err(|source| CredentialsError::Read {
            path: path.to_owned(),
            source,
        })?;
        let line = std::str::from_utf8(&text).ok().map(str::trim_end);
        line.and_then(Self::parse)
            .ok_or_else(|| CredentialsError::Format {
                path: path.to_owned(),
            })
    }

    fn parse(line: &str) -> Option<Self> {
        let (id, secret) = line.split_once(':')?;
        if id.is_empty() || secret.is_empty() || line.contains(['\n', '\r']) {
            return None;
        }
        // The client id and the secret are form-encoded before they are joined (RFC 6749 section
        // 2.3.1).
        let pair = format!("{}:{}", form_encode(id), form_encode(secret));
        let value = format!("Basic {}", BASE64.encode(pair));
        let mut header = HeaderValue::try_from(value).ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

pub(super) fn form_encode(text: &str) -> String {
    utf8_percent_encode(text, FORM_ESCAPES).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_form_encoded_before_base64() {
        let header = |line: &str| Credentials::parse(line).map(|Credentials(value)| value);
        // The credentials and the header are the example in RFC 6749 section 2.3.1.
        assert_eq!(
            header("s6BhdRkqt3:gX1fBat3bV").unwrap(),
            "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
        );
        let escaped = header("a b:c:d/é").unwrap();
        assert_eq!(
            escaped,
            format!("Basic {}", BASE64.encode("a%20b:c%3Ad%2F%C3%A9"))
        );
        for bad in ["", "id", "id:", ":secret", "id:a\nb"] {
            assert!(header(bad).is_none(), "{bad}");
        }
    }
}
