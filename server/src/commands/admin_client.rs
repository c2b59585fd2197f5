//! Requests to the admin listener of a running server.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderValue,
    TE, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::{AdminToken, CHECKS_FAILED, FAILED, JSON};
use crate::auth::http_client;
use crate::commands::admin_endpoint::AdminEndpoint;
use crate::commands::error::CommandError;
use crate::http::Body;
use crate::io_error::io_error;

const DEFAULT_ENDPOINT: &str = "http://127.0.0.1:8081";
/// Maximum size of an error response.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Maximum size of a JSON response. The response to an erasure names each unreadable segment.
const MAX_JSON_BYTES: usize = 16 * 1024 * 1024;
/// Timeout for the response head of a download. Before the server sends the head of a backup
/// response, it waits for an earlier backup to end, and takes a snapshot.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Timeout for the next bytes of a response body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// The running server that a command sends requests to.
#[derive(Debug, Clone, Args)]
pub(super) struct AdminOptions {
    /// Admin listener of the running server: http://HOST:PORT, https://HOST:PORT or unix:PATH
    #[arg(long, value_name = "URL", env = "PREFD_ADMIN", default_value = DEFAULT_ENDPOINT,
          help_heading = "Running server")]
    admin: AdminEndpoint,
    /// File with the admin token of the running server. Required if the server has an admin
    /// token
    #[arg(
        long,
        value_name = "FILE",
        env = "PREFD_ADMIN_TOKEN_FILE",
        help_heading = "Running server"
    )]
    admin_token_file: Option<PathBuf>,
}

/// A response whose body is read in chunks.
pub(super) struct Download {
    pub(super) headers: HeaderMap,
    body: Incoming,
    /// The trailers are complete after [`Self::next`] has returned `None`.
    pub(super) trailers: HeaderMap,
}

impl Download {
    /// Returns the next bytes of the body, or `None` at the end of the body.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, CommandError> {
        loop {
            let frame = timeout(BODY_TIMEOUT, self.body.frame()).await;
            let frame = frame.map_err(|_| CommandError::Timeout(BODY_TIMEOUT))?;
            let Some(frame) = frame.transpose()? else {
                return Ok(None);
            };
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    if let Some(cause) = trailers.get(FAILED) {
                        return Err(CommandError::ServerFailed(decoded(cause)));
                    }
                    self.trailers.extend(trailers);
                }
            }
        }
    }
}

impl AdminOptions {
    /// Sends a GET request whose response may be long. The response must have the given media type.
    pub(super) async fn download(
        &self,
        path: &str,
        media_type: &HeaderValue,
    ) -> Result<Download, CommandError> {
        let request = self.send_for(media_type, Method::GET, path, Body::empty());
        let response = timeout(HEAD_TIMEOUT, request).await;
        let response = response.map_err(|_| CommandError::Timeout(HEAD_TIMEOUT))??;
        let (head, body) = response.into_parts();
        Ok(Download {
            headers: head.headers,
            body,
            trailers: HeaderMap::new(),
        })
    }

    /// Sends a request like [`Self::send`], and returns the JSON object of the response, which must
    /// have the given fields.
    pub(super) async fn send_for_json(
        &self,
        method: Method,
        path: &str,
        body: Body,
        fields: &[&str],
    ) -> Result<Value, CommandError> {
        let response = self.send_for(&JSON, method, path, body).await?;
        let body = Limited::new(response.into_body(), MAX_JSON_BYTES);
        let body = body.collect().await.map_err(CommandError::ErrorResponse)?;
        let object: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(CommandError::InvalidResponse)?;
        if fields.iter().all(|field| object.get(field).is_some()) {
            Ok(object)
        } else {
            Err(CommandError::NotPrefd(self.admin.clone()))
        }
    }

    /// Sends a request like [`Self::send`]. The response must have the status 200, the given media
    /// type and a certain end, because a server that is not prefd can respond to any request.
    async fn send_for(
        &self,
        media_type: &HeaderValue,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, CommandError> {
        let response = self.send(method, path, body).await?;
        let headers = response.headers();
        let is_expected = response.status() == StatusCode::OK
            && headers.get(CONTENT_TYPE) == Some(media_type)
            && !headers.contains_key(CONTENT_ENCODING)
            // Otherwise, the body ends when the connection is closed, and nothing shows whether the
            // body is complete.
            && (headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING));
        if is_expected {
            Ok(response)
        } else {
            Err(CommandError::NotPrefd(self.admin.clone()))
        }
    }

    /// Sends a request. Returns the response if its status is 2xx. Any other status is returned as
    /// [`CommandError::Refused`]. This function has no timeout.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, CommandError> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(self.admin.host_header()) {
            headers.insert(HOST, host);
        }
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CHECKS_FAILED, HeaderValue::from_static("1"));
        if let Some(file) = &self.admin_token_file
            && let Some(token) = AdminToken::read(file)?.header()
        {
            headers.insert(AUTHORIZATION, token);
        }
        let response = self.connect_and_send(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_ERROR_BYTES);
        let body = body.collect().await.map_err(CommandError::ErrorResponse)?;
        Err(CommandError::Refused {
            status,
            detail: detail(&body.to_bytes()),
        })
    }

    async fn connect_and_send(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, CommandError> {
        let connect_error = |source| CommandError::Connect {
            endpoint: self.admin.clone(),
            source,
        };
        match &self.admin {
            AdminEndpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(connect_error)?;
                exchange(stream, request).await
            }
            AdminEndpoint::Tcp { host, port, is_tls } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await;
                let stream = stream.map_err(connect_error)?;
                if !is_tls {
                    return exchange(stream, request).await;
                }
                let connector = TlsConnector::from(Arc::new(http_client::tls()?));
                let name = host.clone().try_into().map_err(|_| {
                    let message = "the host is not a valid name for a certificate";
                    connect_error(io::Error::other(message))
                })?;
                let stream = connector.connect(name, stream).await;
                exchange(stream.map_err(connect_error)?, request).await
            }
        }
    }
}

/// Runs `work` on a new async runtime. Blocks until `work` has ended.
pub(super) fn block_on<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io_error("start", "the async runtime"))?;
    let outcome = runtime.block_on(work);
    // Do not wait for blocking threads: a thread that is still reading standard input ends only
    // when the process exits.
    runtime.shutdown_background();
    outcome
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, CommandError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// Decodes the percent-encoded text in a trailer.
pub(super) fn decoded(value: &HeaderValue) -> String {
    let text = percent_decode(value.as_bytes());
    text.decode_utf8_lossy().into_owned()
}

/// Returns the detail of a JSON:API error response, or the reasons in a response of `/readyz`.
fn detail(body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = document.pointer("/errors/0/detail");
    match (detail.and_then(Value::as_str), document.get("reasons")) {
        (Some(detail), _) => detail.to_owned(),
        (None, Some(reasons)) => reasons.to_string(),
        (None, None) => "the response has no error detail".to_owned(),
    }
}
