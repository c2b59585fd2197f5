//! Sockets that clients come to: of an address, of a path, or handed over by the process
//! that started this one; with or without TLS.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::counters::{Count, Gauge};
use crate::net::connection::{Carrier, Service};
use crate::net::places::Places;
use crate::settings::Address;

/// How long to wait where the system has no file descriptor for a connection: they
/// come back as connections end, and asking at once again would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the system keeps until they are accepted. Where they are more, they
/// are turned away, each to try again after seconds. So it is as many as Linux allows
/// unless it is told otherwise (net.core.somaxconn), and not the usual 128.
const BACKLOG: u32 = 4096;
/// What the system may hold of an answer that a client does not take, for each
/// connection. By itself it would go up to 4 MiB, and clients that take nothing could
/// have gigabytes in their hands. It lets 20 Mbit/s pass over 100 ms.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// Whoever may look into its folder may connect to a socket, as to a port: what a request
/// may do, its token says.
const SOCKET_MODE: u32 = 0o666;

/// Why there is nothing to come to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: Address, source: io::Error },
    #[error("cannot use the socket that was handed over (LISTEN_FDS): {0}")]
    HandedOver(io::Error),
    #[error("{0} sockets were handed over (LISTEN_FDS), and one can be used")]
    TooMany(usize),
}

/// A socket that clients come to.
pub(crate) struct Listener {
    socket: Socket,
    /// What it is called: with the port that the system has picked.
    address: Address,
    /// Goes with it, if it is ours.
    _file: Option<SocketFile>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A socket's name in the file system, for as long as somebody listens.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The socket that was handed over (systemd's `sd_listen_fds(3)`), if one was.
    pub(crate) fn handed_over() -> Result<Option<Self>, ListenError> {
        let mut sockets = ListenFd::from_env();
        match sockets.len() {
            0 => return Ok(None),
            1 => {}
            many => return Err(ListenError::TooMany(many)),
        }
        let handed_over = match sockets.take_tcp_listener(0) {
            Ok(socket) => socket.map(Self::of_tcp),
            Err(_) => sockets
                .take_unix_listener(0)
                .map_err(ListenError::HandedOver)?
                .map(Self::of_unix),
        };
        handed_over.transpose().map_err(ListenError::HandedOver)
    }

    fn of_tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Of the sockets that are accepted, too.
        set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
        let address = Address::Tcp(socket.local_addr()?);
        let socket = Socket::Tcp(TcpListener::from_std(socket)?);
        Ok(Self {
            socket,
            address,
            _file: None,
        })
    }

    fn of_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let name = socket.local_addr()?;
        let path = name.as_pathname().map(Path::to_owned);
        let address = Address::Unix(path.unwrap_or_default());
        let socket = Socket::Unix(UnixListener::from_std(socket)?);
        Ok(Self {
            socket,
            address,
            _file: None,
        })
    }

    /// A new one. A socket in the file system that nobody listens on any more is replaced.
    pub(crate) fn bind(address: &Address) -> Result<Self, ListenError> {
        let bound = match address {
            Address::Tcp(address) => bind_tcp(*address),
            Address::Unix(path) => bind_unix(path),
        };
        bound.map_err(|source| ListenError::Bind {
            address: address.clone(),
            source,
        })
    }

    /// Where clients find it.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    async fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                // An answer is written in one go; waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Socket::Unix(socket) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Else a restart could fail for a minute, on what is left of old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Listener::of_tcp(socket.listen(BACKLOG)?.into_std()?)
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(Listener {
        socket: Socket::Unix(socket),
        address: Address::Unix(path.to_owned()),
        _file: Some(file),
    })
}

/// Whether there is a socket that nobody listens on: its process was killed.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refuses = BlockingUnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refuses
}

/// Connections, as metrics count them.
#[derive(Default)]
pub(crate) struct ConnectionCounters {
    pub(crate) open: Gauge,
    pub(crate) failed_handshakes: Count,
}

/// What is done with those who come.
pub(crate) struct Door<H> {
    pub(crate) carrier: Arc<Carrier<H>>,
    pub(crate) counters: Arc<ConnectionCounters>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) places: Places,
    /// Time for a TLS handshake.
    pub(crate) handshake_timeout: Duration,
}

impl<H: Service> Door<H> {
    /// Accepts connections, each carried by a task of its own, for as long as it is polled.
    pub(crate) async fn keep(&self, listener: &Listener, stopping: &watch::Receiver<()>) {
        loop {
            match listener.accept().await {
                Ok(Stream::Tcp(stream)) => self.let_in(stream, stopping).await,
                Ok(Stream::Unix(stream)) => self.let_in(stream, stopping).await,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn let_in<S>(&self, stream: S, stopping: &watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = self.places.take().await;
        let standing = Arc::clone(place.standing());
        let (carrier, mut stopping) = (Arc::clone(&self.carrier), stopping.clone());
        let counters = Arc::clone(&self.counters);
        // Boxed, so that of one that has ended little is kept.
        let task = match self.tls.clone() {
            None => tokio::spawn(Box::pin(async move {
                let _counted = counters.open.count();
                carrier.carry(stream, place.standing(), stopping).await;
            })),
            Some(tls) => {
                let timeout = self.handshake_timeout;
                tokio::spawn(Box::pin(async move {
                    let _counted = counters.open.count();
                    let shaken = tokio::select! {
                        shaken = tokio::time::timeout(timeout, tls.accept(stream)) => shaken,
                        _ = stopping.changed() => return,
                    };
                    match shaken {
                        Ok(Ok(stream)) => {
                            carrier.carry(stream, place.standing(), stopping).await;
                        }
                        Ok(Err(error)) => {
                            counters.failed_handshakes.add_one();
                            tracing::debug!(%error, "a TLS handshake failed");
                        }
                        Err(_) => {
                            counters.failed_handshakes.add_one();
                            tracing::debug!("a TLS handshake did not end in time");
                        }
                    }
                }))
            }
        };
        self.places.carried_by(standing, task.abort_handle());
    }
}
