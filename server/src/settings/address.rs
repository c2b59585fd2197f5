//! Where to listen: an address and a port, or a socket in the file system.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const UNIX: &str = "unix:";

/// `ADDR:PORT`, or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as 127.0.0.1:8080, [::]:8080 or unix:/run/prefd/prefd.sock")]
pub(crate) struct NoAddress;

impl Address {
    /// Whether only this machine can reach it.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        match text.strip_prefix(UNIX) {
            Some("") => Err(NoAddress),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| NoAddress),
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
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Self, NoAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An address, or none: `off`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum MaybeAddress {
    Off,
    At(Address),
}

impl FromStr for MaybeAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At),
        }
    }
}

impl TryFrom<String> for MaybeAddress {
    type Error = NoAddress;

    fn try_from(text: String) -> Result<Self, NoAddress> {
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
    fn an_address_is_of_either_kind() {
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
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
    }
}
