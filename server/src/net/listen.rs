//! Listening sockets and accepted connections.
//!
//! The server binds a listening socket to a TCP address or to a path in the file system, or
//! inherits the socket from the process that started the server. Connections can use TLS.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
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

use crate::counters::{Counter, Gauge};
use crate::net::connection::{ConnectionServer, Service};
use crate::net::connection_limit::ConnectionLimit;
use crate::settings::Address;

/// Pause after a failed accept. The usual cause of a failed accept is that the process has no free
/// file descriptor. A descriptor becomes free when a connection ends. Retrying without a pause
/// would keep a core busy until a descriptor becomes free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Maximum number of TCP connections that the kernel queues until they are accepted. If the queue
/// is full, the kernel drops new connection attempts, and a client retries only after a second or
/// more. The queue is therefore longer than the common length of 128. By default, Linux limits the
/// queue to 4096 connections (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Requested size of the kernel's send buffer for each TCP connection. By default, Linux increases
/// the buffer up to 4 MiB, so clients that do not read their responses could occupy gigabytes of
/// memory. A send buffer of 256 KiB allows 20 Mbit/s at a round-trip time of 100 ms.
const SEND_BUFFER_BYTES: usize = 256 * 1024;
/// File mode of the Unix socket. Every user who can access the socket's directory may connect, just
/// as everybody may connect to a TCP port. The token of a request decides what the request may do.
const SOCKET_MODE: u32 = 0o666;

/// Why a listening socket could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: Address, source: io::Error },
    #[error(
        "cannot use the socket that the service manager passed (LISTEN_FDS): expected a listening \
         TCP or Unix socket: {0}"
    )]
    Inherited(io::Error),
    #[error("the service manager passed {0} sockets (LISTEN_FDS), but prefd accepts only one")]
    TooManyInherited(usize),
}

/// A socket that accepts connections, with its address.
pub(crate) struct Listener {
    /// Removes the path of a Unix socket when the listener is dropped. `None` for a TCP socket, and
    /// for an inherited socket. The path of an inherited socket belongs to the service manager.
    ///
    /// This field is dropped before the socket. While the socket is open, no other file can get its
    /// inode number.
    _file: Option<SocketFile>,
    socket: ListeningSocket,
    /// The address of the socket. If port 0 was configured, the address contains the port that the
    /// system has chosen.
    address: Address,
}

enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The path of a Unix socket. Dropping this value removes the path, unless the path now belongs to
/// another socket, for example because another process has replaced the file.
struct SocketFile {
    path: PathBuf,
    /// `None` if the file could not be examined.
    inode: Option<Inode>,
}

/// The device and the number of an inode, which identify a file.
type Inode = (u64, u64);

fn inode(path: &Path) -> Option<Inode> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            inode: inode(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && self.inode == inode(&self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

enum AcceptedStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    /// The socket that the service manager has passed to the server (`sd_listen_fds(3)`). `None` if
    /// the service manager has passed no socket.
    pub(crate) fn inherited() -> Result<Option<Self>, ListenError> {
        let mut sockets = ListenFd::from_env();
        match sockets.len() {
            0 => return Ok(None),
            1 => {}
            many => return Err(ListenError::TooManyInherited(many)),
        }
        let inherited = match sockets.take_tcp_listener(0) {
            Ok(socket) => socket.map(Self::from_tcp),
            Err(_) => sockets
                .take_unix_listener(0)
                .map_err(ListenError::Inherited)?
                .map(Self::from_unix),
        };
        inherited.transpose().map_err(ListenError::Inherited)
    }

    fn from_tcp(socket: std::net::TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Accepted sockets inherit the buffer size from the listening socket.
        set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
        let address = Address::Tcp(socket.local_addr()?);
        let socket = ListeningSocket::Tcp(TcpListener::from_std(socket)?);
        Ok(Self {
            socket,
            address,
            _file: None,
        })
    }

    fn from_unix(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let name = socket.local_addr()?;
        let path = name.as_pathname().map(Path::to_owned);
        let address = Address::Unix(path.unwrap_or_default());
        let socket = ListeningSocket::Unix(UnixListener::from_std(socket)?);
        Ok(Self {
            socket,
            address,
            _file: None,
        })
    }

    /// Binds a new socket. If the path is already a Unix socket on which no process listens, the
    /// old socket is replaced.
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

    /// The address that clients connect to.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    async fn accept(&self) -> io::Result<AcceptedStream> {
        match &self.socket {
            ListeningSocket::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                // Nagle's algorithm is turned off, because it could only delay a response.
                let _ = stream.set_nodelay(true);
                Ok(AcceptedStream::Tcp(stream))
            }
            ListeningSocket::Unix(socket) => Ok(AcceptedStream::Unix(socket.accept().await?.0)),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Without `SO_REUSEADDR`, binding the address can fail for up to a minute after a restart,
    // while old connections are in `TIME_WAIT`.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Listener::from_tcp(socket.listen(BACKLOG)?.into_std()?)
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }?;
    let file = SocketFile::new(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(Listener {
        socket: ListeningSocket::Unix(socket),
        address: Address::Unix(path.to_owned()),
        _file: Some(file),
    })
}

/// Whether the path is a Unix socket on which no process listens. A server process that was killed
/// leaves such a socket behind.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refuses = BlockingUnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    is_socket && refuses
}

/// Counts connections and failed TLS handshakes.
#[derive(Default)]
pub(crate) struct ConnectionCounters {
    pub(crate) open: Gauge,
    /// Number of TLS handshakes that failed or timed out.
    pub(crate) failed_handshakes: Counter,
}

/// Accepts connections, and serves each connection in a separate task.
pub(crate) struct Acceptor<H> {
    pub(crate) server: Arc<ConnectionServer<H>>,
    pub(crate) counters: Arc<ConnectionCounters>,
    /// `None` if connections do not use TLS.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limit: ConnectionLimit,
    /// Timeout for a TLS handshake.
    pub(crate) handshake_timeout: Duration,
}

impl<H: Service> Acceptor<H> {
    /// Accepts connections for as long as this future is polled. Dropping the future does not close
    /// open connections: they are served until they end. If `stopping` changes, each open
    /// connection ends after its current request.
    pub(crate) async fn accept_loop(&self, listener: &Listener, stopping: &watch::Receiver<()>) {
        loop {
            match listener.accept().await {
                Ok(AcceptedStream::Tcp(stream)) => self.accept_one(stream, stopping).await,
                Ok(AcceptedStream::Unix(stream)) => self.accept_one(stream, stopping).await,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for a free slot, and then spawns the task that serves the connection.
    async fn accept_one<S>(&self, stream: S, stopping: &watch::Receiver<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = self.limit.acquire().await;
        let state = Arc::clone(slot.state());
        let (server, mut stopping) = (Arc::clone(&self.server), stopping.clone());
        let counters = Arc::clone(&self.counters);
        // The future is boxed, so that its memory is freed when the task ends. The memory of the
        // task itself is freed later, because the connection limit may still hold the task's abort
        // handle.
        let task = match self.tls.clone() {
            None => tokio::spawn(Box::pin(async move {
                let _open = counters.open.enter();
                slot.state().mark_waiting_now();
                server.run(stream, slot.state(), stopping).await;
            })),
            Some(tls) => {
                let timeout = self.handshake_timeout;
                tokio::spawn(Box::pin(async move {
                    let _open = counters.open.enter();
                    slot.state().mark_waiting_now();
                    let handshake = tokio::select! {
                        outcome = tokio::time::timeout(timeout, tls.accept(stream)) => outcome,
                        _ = stopping.changed() => return,
                    };
                    match handshake {
                        Ok(Ok(stream)) => server.run(stream, slot.state(), stopping).await,
                        Ok(Err(error)) => {
                            counters.failed_handshakes.add_one();
                            tracing::debug!(%error, "TLS handshake failed");
                        }
                        Err(_) => {
                            counters.failed_handshakes.add_one();
                            tracing::debug!(?timeout, "TLS handshake timed out");
                        }
                    }
                }))
            }
        };
        self.limit.register(state, task.abort_handle());
    }
}
