//! The HTTP client for requests to identity providers. The client uses TLS for `https` URLs, and
//! limits the length of a response.
//!
//! The client does not follow redirects, because only the operator decides where keys come from.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::http::uri::Scheme;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

/// Maximum length of a response body in bytes. A typical key set has a few thousand bytes.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
/// Timeout for opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for a complete GET, from opening the connection to the end of the response body.
const GET_TIMEOUT: Duration = Duration::from_secs(10);
/// Unused connections are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("prefd/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// A URL that requests may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(Uri);

/// The hosts to which requests may be sent over plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainHttp {
    ThisMachine,
    /// Anyone who can change the traffic can issue tokens for any user.
    AllHosts,
}

/// Why a URL cannot be used for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("expected an https:// URL with a host")]
    NotHttps,
    #[error(
        "expected https://, because http:// is allowed only for localhost and loopback addresses. \
         If you trust the network between prefd and the identity provider, set --allow-http-issuer"
    )]
    PlainHttp,
    #[error("the URL must not contain a user name, a password or a fragment")]
    CredentialsOrFragment,
}

impl Endpoint {
    pub(crate) fn parse(text: &str, plain_http: PlainHttp) -> Result<Self, EndpointError> {
        if text.contains('#') {
            return Err(EndpointError::CredentialsOrFragment);
        }
        let uri: Uri = text.parse().map_err(|_| EndpointError::NotHttps)?;
        let authority = uri.authority().ok_or(EndpointError::NotHttps)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::CredentialsOrFragment);
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(EndpointError::NotHttps);
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(Self(uri)),
            Some(scheme) if *scheme == Scheme::HTTP => {
                if plain_http == PlainHttp::AllHosts || is_loopback_host(host) {
                    Ok(Self(uri))
                } else {
                    Err(EndpointError::PlainHttp)
                }
            }
            _ => Err(EndpointError::NotHttps),
        }
    }

    /// Whether requests cross the network without TLS.
    pub(crate) fn is_exposed(&self) -> bool {
        let is_remote = self.0.host().is_some_and(|host| !is_loopback_host(host));
        is_remote && self.0.scheme() == Some(&Scheme::HTTP)
    }
}

/// Whether a URL's host is a loopback address or `localhost`. The host name is not resolved.
pub(crate) fn is_loopback_host(host: &str) -> bool {
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

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HttpClientError {
    #[error("no complete response within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("{}", with_causes(.0))]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the response is incomplete: {}", with_causes(.0.as_ref()))]
    Incomplete(Box<dyn Error + Send + Sync>),
    #[error("unexpected status {0}, expected 200 OK")]
    Status(StatusCode),
    #[error("the response is longer than {MAX_RESPONSE_BYTES} bytes")]
    TooLong,
}

/// The text of an error, followed by the texts of its causes. The text of a hyper error alone names
/// only the step that failed.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Sends requests over pooled connections. Clones are cheap and share the pool.
#[derive(Clone)]
pub(crate) struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// Creates a client with the TLS settings of [`tls`]. Blocks.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            // The client itself allows plain HTTP, because `Endpoint::parse` has already checked
            // which URLs may use it.
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a GET and returns the body of a 200 response.
    pub(crate) async fn get(&self, url: &Endpoint) -> Result<Bytes, HttpClientError> {
        let request = request(Method::GET, url, Bytes::new());
        self.send(request, GET_TIMEOUT).await
    }

    /// Sends a form with POST and returns the body of a 200 response. `total_timeout` covers the
    /// time from opening the connection to the end of the response body.
    pub(crate) async fn post(
        &self,
        url: &Endpoint,
        authorization: HeaderValue,
        form: String,
        total_timeout: Duration,
    ) -> Result<Bytes, HttpClientError> {
        let mut request = request(Method::POST, url, form.into());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, FORM);
        headers.insert(AUTHORIZATION, authorization);
        self.send(request, total_timeout).await
    }

    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        total_timeout: Duration,
    ) -> Result<Bytes, HttpClientError> {
        let connection = capture_connection(&mut request);
        let response_body = async {
            let response = self.0.request(request).await;
            let response = response.map_err(HttpClientError::Connection)?;
            if response.status() != StatusCode::OK {
                return Err(HttpClientError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES);
            let body = body.collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpClientError::TooLong
                } else {
                    HttpClientError::Incomplete(error)
                }
            })?;
            // hyper accepts bare LFs in the trailer section, where another HTTP implementation may
            // see the end of the response. The bytes that follow could then belong to another
            // response, so the connection is not used again.
            if body.trailers().is_some()
                && let Some(connection) = &*connection.connection_metadata()
            {
                connection.poison();
            }
            Ok(body.to_bytes())
        };
        tokio::time::timeout(total_timeout, response_body)
            .await
            .unwrap_or(Err(HttpClientError::Timeout(total_timeout)))
    }
}

/// TLS settings that trust the certificate authorities of the system. If the environment variable
/// `SSL_CERT_FILE` is set, the certificate authorities in that file are trusted instead. Blocks.
pub(crate) fn tls() -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // Missing certificate authorities are not an error, because a provider on this machine can
        // be reached without TLS.
        tracing::warn!(
            errors = ?found.errors,
            "no trusted certificate authorities found, so outgoing TLS connections will fail: set \
             SSL_CERT_FILE to a file with trusted certificates"
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn request(method: Method, url: &Endpoint, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.0.clone();
    let headers = request.headers_mut();
    headers.insert(ACCEPT, JSON);
    headers.insert(USER_AGENT, AGENT);
    request
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Starts an identity provider that sends the given response to every request. Returns its
    /// address, and the number of connections that it has accepted.
    fn provider(response: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let accepted = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                    for _ in lines.filter(String::is_empty) {
                        (&stream).write_all(response.as_bytes()).unwrap();
                    }
                });
            }
        });
        (address, connections)
    }

    #[tokio::test]
    async fn connection_is_not_reused_after_a_response_with_trailers() {
        const REQUESTS: usize = 20;
        let client = HttpClient::new().unwrap();
        for response in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\n\r\n\r\n",
        ] {
            let (address, connections) = provider(response);
            let url = format!("http://{address}/keys");
            let url = Endpoint::parse(&url, PlainHttp::ThisMachine).unwrap();
            for _ in 0..REQUESTS {
                assert_eq!(client.get(&url).await.unwrap(), "{}");
            }
            assert_eq!(connections.load(Ordering::SeqCst), REQUESTS, "{response:?}");
        }
    }

    #[test]
    fn plain_http_is_accepted_only_for_loopback_urls() {
        for good in [
            "https://id.example",
            "https://id.example:8443/realms/x?y=z",
            "http://127.0.0.1:3000/jwks",
            "http://127.8.9.1",
            "http://[::1]:80/",
            "http://localhost:3000",
            "http://LocalHost",
        ] {
            for plain_http in [PlainHttp::ThisMachine, PlainHttp::AllHosts] {
                let endpoint = Endpoint::parse(good, plain_http).unwrap();
                assert!(!endpoint.is_exposed(), "{good}");
            }
        }
        for (bad, error) in [
            ("", EndpointError::NotHttps),
            ("id.example", EndpointError::NotHttps),
            ("/jwks", EndpointError::NotHttps),
            ("ftp://127.0.0.1/x", EndpointError::NotHttps),
            ("file:///etc/passwd", EndpointError::NotHttps),
            ("https://", EndpointError::NotHttps),
            ("http://id.example", EndpointError::PlainHttp),
            ("http://128.0.0.1", EndpointError::PlainHttp),
            ("http://localhost.example", EndpointError::PlainHttp),
            (
                "http://127.0.0.1@id.example/",
                EndpointError::CredentialsOrFragment,
            ),
            (
                "https://user:password@id.example",
                EndpointError::CredentialsOrFragment,
            ),
            (
                "https://id.example/#keys",
                EndpointError::CredentialsOrFragment,
            ),
        ] {
            let parsed = Endpoint::parse(bad, PlainHttp::ThisMachine);
            assert_eq!(parsed, Err(error), "{bad}");
            let allowed = Endpoint::parse(bad, PlainHttp::AllHosts);
            if error == EndpointError::PlainHttp {
                assert!(allowed.unwrap().is_exposed(), "{bad}");
            } else {
                assert_eq!(allowed, Err(error), "{bad}");
            }
        }
    }
}
