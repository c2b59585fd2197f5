//! Checks the parts of a request head on which two HTTP implementations must not disagree: the
//! host, and the transfer coding of the body.

use std::net::Ipv6Addr;

use hyper::Version;
use hyper::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::http::request::Parts;

use crate::http::error::{ApiError, Code};

/// Checks the Host header, the host in a request target in absolute form, and the transfer coding.
///
/// # Errors
/// [`Code::InvalidRequest`] if one of these parts is malformed or not supported.
pub(crate) fn check(parts: &Parts) -> Result<(), Box<ApiError>> {
    check_host(parts)?;
    check_target(parts)?;
    check_transfer_coding(parts)
}

/// Rejects a request with several Host headers or with an invalid Host header, and an HTTP/1.1
/// request without a Host header (RFC 9112 section 3.2). If a request had two Host headers, a proxy
/// could use one of them and the server the other.
fn check_host(parts: &Parts) -> Result<(), Box<ApiError>> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (None, _) if parts.version < Version::HTTP_11 => return Ok(()),
        (Some(host), None) if is_host_and_port(host.as_bytes()) => return Ok(()),
        (Some(_), None) => {
            "The Host header must be a host name or an IP address, with an optional port."
        }
        _ => "The request must have exactly one Host header.",
    };
    Err(ApiError::new(Code::InvalidRequest, detail).at_header("Host"))
}

/// Rejects a request target in absolute form with an empty or invalid host (RFC 9110 section 4.2.1)
/// or with a user name (RFC 9110 section 4.2.4).
fn check_target(parts: &Parts) -> Result<(), Box<ApiError>> {
    match parts.uri.authority() {
        Some(authority) if !is_authority(authority.as_str()) => Err(ApiError::new(
            Code::InvalidRequest,
            "The request target must have a host name or an IP address, with an optional port and \
             without a user name.",
        )),
        _ => Ok(()),
    }
}

fn is_authority(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(':') && is_host_and_port(text.as_bytes())
}

/// Rejects every transfer coding except `chunked`. Without this check, hyper would accept any list
/// of codings that ends in `chunked`, but would not decode the other codings of the list. An
/// intermediary could decode a body with several codings differently (RFC 9112 section 6.1).
fn check_transfer_coding(parts: &Parts) -> Result<(), Box<ApiError>> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_chunked(coding) => Ok(()),
        _ => Err(ApiError::new(
            Code::InvalidRequest,
            "The only supported transfer coding is chunked.",
        )
        .at_header("Transfer-Encoding")),
    }
}

/// Whether the text is `uri-host [ ":" port ]` (RFC 9110 section 7.2). The host may be empty,
/// because a client sends an empty Host header if its URI has no host.
fn is_host_and_port(text: &[u8]) -> bool {
    let port = if let Some(literal) = text.strip_prefix(b"[") {
        let Some(end) = literal.iter().position(|byte| *byte == b']') else {
            return false;
        };
        let (address, rest) = literal.split_at(end);
        if !is_ip_literal(address) {
            return false;
        }
        rest.get(1..).unwrap_or_default()
    } else {
        let end = text.iter().position(|byte| *byte == b':');
        let (name, port) = text.split_at(end.unwrap_or(text.len()));
        if !is_registered_name(name) {
            return false;
        }
        port
    };
    match port.split_first() {
        None => true,
        Some((b':', digits)) => digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// Whether the text is a `reg-name` or an `IPv4address` (RFC 3986 section 3.2.2).
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            (byte, after) if is_name_byte(*byte) => after,
            _ => return false,
        };
    }
    true
}

/// Whether the text is an `IPv6address` or an `IPvFuture` (RFC 3986 section 3.2.2).
fn is_ip_literal(address: &[u8]) -> bool {
    match address.split_first() {
        Some((b'v' | b'V', rest)) => {
            let Some(end) = rest.iter().position(|byte| *byte == b'.') else {
                return false;
            };
            let (version, address) = rest.split_at(end);
            let is_address_byte = |byte: &u8| is_name_byte(*byte) || *byte == b':';
            !version.is_empty()
                && version.iter().all(u8::is_ascii_hexdigit)
                && address.len() > 1
                && address.iter().all(is_address_byte)
        }
        _ => std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok()),
    }
}

/// Whether the byte is `unreserved` or one of `sub-delims` (RFC 3986 section 2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_the_uri_grammar_are_valid() {
        for good in [
            "",
            "prefd.example",
            "prefd.example:8080",
            "prefd.example:",
            ":80",
            "192.0.2.1:80",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::192.0.2.1]:",
            "[v1.fe80:a+b]:1",
            "my_service",
            "caf%C3%A9.example",
            "a,b;c=d",
        ] {
            assert!(is_host_and_port(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b",
            "a/b",
            "u@a",
            "u:p@a",
            "[::1",
            "::1",
            "[::1]8080",
            "[::1]:x",
            "[]",
            "[zz]",
            "[192.0.2.1]",
            "[fe80::1%25eth0]",
            "[v.a]",
            "[v1]",
            "[v1.]",
            "a]",
            "a:b",
            "a:80:80",
            "a:-1",
            "a:80 ",
            "a?b",
            "a#b",
            "a\\b",
            "a\"b",
            "<a>",
            "http://a",
            "%",
            "%2",
            "%zz",
            "café",
            "a\tb",
        ] {
            assert!(!is_host_and_port(bad.as_bytes()), "{bad}");
        }
        assert!(!is_host_and_port(b"a\xff"));
        for bad in ["", ":80", "u@a", "u:p@a"] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
