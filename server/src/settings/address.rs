//! Addresses to listen on: an IP address and a port, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const UNIX: &str = "unix:";

/// An address to listen on: `IP:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The text is not a valid address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidAddress {
    #[error(
        "expected IP:PORT or unix:PATH, such as 127.0.0.1:8080, [::]:8080 or \
         unix:/run/prefd/prefd.sock"
    )]
    Malformed,
    #[error(transparent)]
    Abstract(#[from] AbstractSocket),
}

/// The text is the address of an abstract Unix socket (unix(7)). Abstract sockets are not
/// supported, because they have no file permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "abstract Unix sockets (unix:@NAME) are not supported: use unix:PATH, or unix:./@NAME for a file \
     whose name begins with @"
)]
pub(crate) struct AbstractSocket;

/// Returns the path in an address of the form `unix:PATH`, or `None` if the text has another form.
///
/// # Errors
/// [`AbstractSocket`] if the path begins with `@`.
pub(crate) fn unix_path(text: &str) -> Option<Result<PathBuf, AbstractSocket>> {
    let path = text.strip_prefix(UNIX)?;
    if path.starts_with('@') {
        return Some(Err(AbstractSocket));
    }
    Some(Ok(path.into()))
}

impl Address {
    /// Returns true if only this machine can connect: a loopback address or a Unix socket.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        match unix_path(text).transpose()? {
            Some(path) if path.as_os_str().is_empty() => Err(InvalidAddress::Malformed),
            Some(path) => Ok(Self::Unix(path)),
            None => {
                let address = text.parse().map(Self::Tcp);
                address.map_err(|_| InvalidAddress::Malformed)
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An address to listen on, or `off` to turn the listener off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum MaybeAddress {
    Off,
    At(Address),
}

impl FromStr for MaybeAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At),
        }
    }
}

impl TryFrom<String> for MaybeAddress {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<MaybeAddress> for String {
    fn from(address: MaybeAddress) -> Self {
        match address {
            MaybeAddress::Off => "off".to_owned(),
            MaybeAddress::At(address) => address.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_parses_and_only_loopback_and_unix_are_local() {
        for (text, is_local) in [
            ("127.0.0.1:8080", true),
            ("[::1]:0", true),
            ("0.0.0.0:80", false),
            ("[::]:80", false),
            ("unix:/run/prefd.sock", true),
            ("unix:prefd.sock", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.is_local(), is_local, "{text}");
            assert_eq!(address.to_string(), text);
        }
        for text in ["", "unix:", "127.0.0.1", "localhost:80", "/run/prefd.sock"] {
            let parsed = text.parse::<Address>();
            assert_eq!(parsed, Err(InvalidAddress::Malformed), "{text}");
        }
        let parsed = "unix:@prefd".parse::<Address>();
        assert_eq!(parsed, Err(InvalidAddress::Abstract(AbstractSocket)));
        assert!("unix:./@prefd".parse::<Address>().is_ok());
    }
}
