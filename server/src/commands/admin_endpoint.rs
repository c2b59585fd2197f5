//! The address of the admin listener of a running server, as set with `--admin`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

use crate::settings::{AbstractSocket, unix_path};

const UNIX: &str = "unix:";
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// The address of an admin listener: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminEndpoint {
    Tcp {
        /// A host name or an IP address. An IPv6 address is stored without brackets.
        host: String,
        port: u16,
        is_tls: bool,
    },
    Unix(PathBuf),
}

/// The text is not a valid address of an admin listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAdminEndpoint {
    #[error("expected http://HOST:PORT, https://HOST:PORT or unix:PATH")]
    Malformed,
    #[error(transparent)]
    Abstract(#[from] AbstractSocket),
}

impl AdminEndpoint {
    /// Returns the value of the `Host` header of a request.
    pub(super) fn host_header(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
        }
    }
}

impl FromStr for AdminEndpoint {
    type Err = InvalidAdminEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidAdminEndpoint> {
        if let Some(path) = unix_path(text).transpose()? {
            return Ok(Self::Unix(path));
        }
        let uri: Uri = text.parse().map_err(|_| InvalidAdminEndpoint::Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(InvalidAdminEndpoint::Malformed),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(InvalidAdminEndpoint::Malformed);
        }
        let host = uri.host().ok_or(InvalidAdminEndpoint::Malformed)?;
        let default_port = if is_tls { HTTPS_PORT } else { HTTP_PORT };
        Ok(Self::Tcp {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
            is_tls,
        })
    }
}

impl fmt::Display for AdminEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Tcp { is_tls, .. } => {
                let scheme = if *is_tls { "https" } else { "http" };
                write!(f, "{scheme}://{}", self.host_header())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_http_https_or_a_unix_socket() {
        for (text, shown) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://[::1]:8081/", "http://[::1]:8081"),
            ("https://prefd.example", "https://prefd.example:443"),
            ("unix:/run/prefd/admin.sock", "unix:/run/prefd/admin.sock"),
        ] {
            assert_eq!(text.parse::<AdminEndpoint>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1:8081",
            "ftp://x",
            "http://",
            "http://x/path",
            "http://x?y",
        ] {
            let parsed = text.parse::<AdminEndpoint>();
            assert_eq!(parsed, Err(InvalidAdminEndpoint::Malformed), "{text}");
        }
        let parsed = "unix:@prefd".parse::<AdminEndpoint>();
        assert_eq!(parsed, Err(InvalidAdminEndpoint::Abstract(AbstractSocket)));
    }
}
