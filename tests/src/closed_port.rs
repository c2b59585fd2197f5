//! An address that refuses connections.

use std::net::{SocketAddr, TcpListener, TcpStream};

/// A local port that refuses connections.
///
/// The port is the client port of an open connection. While the connection is open, no other
/// process can get the port and listen on it.
#[derive(Debug)]
pub struct ClosedPort {
    client: TcpStream,
    _server: TcpStream,
}

impl ClosedPort {
    /// Reserves a free port.
    #[expect(clippy::new_without_default, reason = "it reserves a port")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port exists");
        let client = TcpStream::connect(listener.local_addr().unwrap()).expect("the port accepts");
        let (server, _) = listener.accept().expect("a client has connected");
        Self {
            client,
            _server: server,
        }
    }

    /// The address that refuses connections.
    pub fn address(&self) -> SocketAddr {
        self.client
            .local_addr()
            .expect("an open socket has an address")
    }

    /// The address as an `http://` URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}
