//! What commands ask of a running server, on the operator's listener.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue, TE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::admin::{AdminToken, AdminTokenError};
use crate::auth::http_client;
use crate::http::Body;
use crate::telemetry::Probe;

const UNIX: &str = "unix:";
const DEFAULT_PLACE: &str = "http://127.0.0.1:8081";
/// Bytes of a refusal that are read.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// How long a server may take to say how it is.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to begin with what is long: a backup waits for another one, a list
/// for the catalogue, which may have to be built.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// How long it may then take for the next piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Where a server is asked.
#[derive(Debug, Clone, Args)]
pub(super) struct AdminOptions {
    /// The operator's listener of the server: http://ADDR, https://NAME or unix:PATH
    #[arg(long, value_name = "URL", env = "PREFD_ADMIN", default_value = DEFAULT_PLACE)]
    admin: Place,
    /// The file with the token that it takes
    #[arg(long, value_name = "FILE", env = "PREFD_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
}

/// `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Tcp {
        host: String,
        port: u16,
        is_tls: bool,
    },
    Unix(PathBuf),
}

/// Not a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not http://HOST:PORT, https://HOST:PORT or unix:PATH")]
pub(crate) struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Uri = text.parse().map_err(|_| NoPlace)?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(NoPlace),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(NoPlace);
        }
        let host = uri.host().ok_or(NoPlace)?;
        let usual_port = if is_tls { 443 } else { 80 };
        Ok(Self::Tcp {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(usual_port),
            is_tls,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Tcp { host, port, is_tls } => {
                let scheme = if *is_tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
        }
    }
}

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum AdminError {
    #[error("cannot reach the server at {place}: {source}. Is it running, with --admin-listen?")]
    Connect {
        place: String,
        source: std::io::Error,
    },
    #[error(transparent)]
    Token(#[from] AdminTokenError),
    #[error("cannot prepare for TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the server did not answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the server refused with {status}: {detail}")]
    Refused { status: StatusCode, detail: String },
    #[error("the server did not answer in time")]
    Late,
    #[error("the server's answer cannot be read: {0}")]
    Answer(Box<dyn std::error::Error + Send + Sync>),
}

impl AdminOptions {
    /// The answer to a request, where it is a success.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Response<Incoming>, AdminError> {
        self.send(method, path, Body::empty()).await
    }

    /// What a path gives, however long that is, handed on piece by piece; and the trailers
    /// behind it.
    pub(crate) async fn get<E: From<AdminError>>(
        &self,
        path: &str,
        begin: impl FnOnce(&Response<Incoming>),
        mut take: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<HeaderMap, E> {
        let asked = timeout(BEGIN_TIMEOUT, self.ask(Method::GET, path)).await;
        let response = asked.unwrap_or(Err(AdminError::Late))?;
        begin(&response);
        let mut body = response.into_body();
        let mut trailers = HeaderMap::new();
        loop {
            let frame = timeout(PIECE_TIMEOUT, body.frame()).await;
            let Some(frame) = frame.map_err(|_| AdminError::Late)? else {
                return Ok(trailers);
            };
            match frame.map_err(AdminError::from)?.into_data() {
                Ok(piece) => take(piece)?,
                Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
            }
        }
    }

    /// The same of a request with a body.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, AdminError> {
        let token = self
            .admin_token_file
            .as_deref()
            .map(token_header)
            .transpose()?;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        let host = match &self.admin {
            Place::Unix(_) => "localhost".to_owned(),
            Place::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, port, .. } => format!("{host}:{port}"),
        };
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::try_from(host) {
            headers.insert(HOST, host);
        }
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if let Some(token) = token.flatten() {
            headers.insert(AUTHORIZATION, token);
        }
        let response = self.exchange(request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES);
        let body = body.collect().await.map_err(AdminError::Answer)?.to_bytes();
        Err(AdminError::Refused {
            status,
            detail: detail(&body),
        })
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Response<Incoming>, AdminError> {
        let unreachable = |source| AdminError::Connect {
            place: self.admin.to_string(),
            source,
        };
        match &self.admin {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(unreachable)?;
                exchange(stream, request).await
            }
            Place::Tcp { host, port, is_tls } => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(unreachable)?;
                if !is_tls {
                    return exchange(stream, request).await;
                }
                let connector = TlsConnector::from(std::sync::Arc::new(http_client::tls()?));
                let name = host.clone().try_into().map_err(|_| {
                    unreachable(std::io::Error::other("no certificate can be of this name"))
                })?;
                let stream = connector.connect(name, stream).await.map_err(unreachable)?;
                exchange(stream, request).await
            }
        }
    }
}

/// Which server, and what to ask it.
#[derive(Debug, Args)]
pub(super) struct HealthOptions {
    #[command(flatten)]
    admin: AdminOptions,
    /// Ask whether it lives (/livez), and not whether it is ready (/readyz)
    #[arg(long)]
    live: bool,
}

/// Asks a server how it is.
pub(super) fn healthcheck(options: &HealthOptions) -> Result<(), AdminError> {
    let path = if options.live {
        Probe::Live
    } else {
        Probe::Ready
    }
    .path();
    let ask = async {
        let asked = options.admin.ask(Method::GET, path);
        let answer = timeout(HEALTH_TIMEOUT, asked).await;
        answer.unwrap_or(Err(AdminError::Late))
    };
    run(ask).map(drop)
}

/// Runs what a command asks.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, AdminError>>) -> Result<T, AdminError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .map_err(|error| AdminError::Answer(error.into()))?
        .block_on(work)
}

fn token_header(file: &Path) -> Result<Option<HeaderValue>, AdminTokenError> {
    Ok(AdminToken::read(file)?.header())
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, AdminError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

/// What a refusal says.
fn detail(body: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = document.pointer("/errors/0/detail");
    match (
        detail.and_then(serde_json::Value::as_str),
        document.get("reasons"),
    ) {
        (Some(detail), _) => detail.to_owned(),
        (None, Some(reasons)) => reasons.to_string(),
        (None, None) => "it did not say why".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_of_three_kinds() {
        for (text, shown) in [
            ("http://127.0.0.1:8081", "http://127.0.0.1:8081"),
            ("http://[::1]:8081/", "http://[::1]:8081"),
            ("https://prefd.example", "https://prefd.example:443"),
            ("unix:/run/prefd/admin.sock", "unix:/run/prefd/admin.sock"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1:8081",
            "ftp://x",
            "http://",
            "http://x/path",
            "http://x?y",
        ] {
            assert_eq!(text.parse::<Place>(), Err(NoPlace), "{text}");
        }
    }
}
