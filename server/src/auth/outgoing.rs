//! Requests that the server sends: to identity providers, over TLS, for small answers.
//!
//! Redirects are not followed: where keys come from is the operator's choice.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

/// Bytes of an answer, at most: a key set has a few thousand.
const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// Time for a connection to be made, and for a GET from beginning to end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const GET_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that nobody uses are closed after so long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("prefd/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Where a request may go: an `https` URL, or an `http` one of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(Uri);

/// Why a URL is not one to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("not an https URL")]
    NoUrl,
    #[error("a URL that is not of this machine must begin with https://")]
    Plain,
    #[error("a URL must not hold a user name, a password or a fragment")]
    Extra,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError::Extra);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::NoUrl)?;
        let authority = uri.authority().ok_or(EndpointError::NoUrl)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Extra);
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(EndpointError::NoUrl);
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(Self(uri)),
            Some(scheme) if *scheme == Scheme::HTTP => {
                if is_of_this_machine(host) {
                    Ok(Self(uri))
                } else {
                    Err(EndpointError::Plain)
                }
            }
            _ => Err(EndpointError::NoUrl),
        }
    }
}

pub(crate) fn is_of_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OutgoingError {
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{}", causes(.0))]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer breaks off: {}", causes(.0.as_ref()))]
    Broken(Box<dyn Error + Send + Sync>),
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    #[error("the answer has more than {MAX_ANSWER_BYTES} bytes")]
    TooLong,
}

/// An error with what is behind it: hyper's own words name only the step that failed.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Sends requests, over connections that are kept for a while. A cheap handle.
#[derive(Clone)]
pub(crate) struct Outgoing(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Outgoing {
    /// Trusts the certificates that the system trusts, or those that `SSL_CERT_FILE` names.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            // What may be plain, an `Endpoint` says.
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// The body of a 200 to a GET.
    pub(crate) async fn get(&self, from: &Endpoint) -> Result<Bytes, OutgoingError> {
        let request = request(Method::GET, from, Bytes::new());
        self.send(request, GET_TIMEOUT).await
    }

    /// The body of a 200 to a POST of a form, within this time.
    pub(crate) async fn post(
        &self,
        to: &Endpoint,
        authorization: HeaderValue,
        form: String,
        patience: Duration,
    ) -> Result<Bytes, OutgoingError> {
        let mut request = request(Method::POST, to, form.into());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, FORM);
        headers.insert(AUTHORIZATION, authorization);
        self.send(request, patience).await
    }

    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
    ) -> Result<Bytes, OutgoingError> {
        let exchange = async {
            let response = self.0.request(request).await;
            let response = response.map_err(OutgoingError::Connection)?;
            if response.status() != StatusCode::OK {
                return Err(OutgoingError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    OutgoingError::TooLong
                } else {
                    OutgoingError::Broken(error)
                }
            })?;
            Ok(body.to_bytes())
        };
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(OutgoingError::Timeout(patience)))
    }
}

/// Trusts the certificates that the system trusts.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // A provider on this machine can be asked all the same.
        tracing::warn!(errors = ?found.errors, "no trusted certificates were found: nobody can be asked over TLS");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn request(method: Method, to: &Endpoint, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = to.0.clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, JSON);
    headers.insert(USER_AGENT, AGENT);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_tls() {
        for good in [
            "https://id.example",
            "https://id.example:8443/realms/x?y=z",
            "http://127.0.0.1:3000/jwks",
            "http://127.8.9.1",
            "http://[::1]:80/",
            "http://localhost:3000",
            "http://LocalHost",
        ] {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        for (bad, error) in [
            ("", EndpointError::NoUrl),
            ("id.example", EndpointError::NoUrl),
            ("/jwks", EndpointError::NoUrl),
            ("ftp://127.0.0.1/x", EndpointError::NoUrl),
            ("file:///etc/passwd", EndpointError::NoUrl),
            ("https://", EndpointError::NoUrl),
            ("http://id.example", EndpointError::Plain),
            ("http://128.0.0.1", EndpointError::Plain),
            ("http://localhost.example", EndpointError::Plain),
            ("http://127.0.0.1@id.example/", EndpointError::Extra),
            ("https://user:password@id.example", EndpointError::Extra),
            ("https://id.example/#keys", EndpointError::Extra),
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(error), "{bad}");
        }
    }
}
