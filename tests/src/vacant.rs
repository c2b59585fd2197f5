//! An address where nobody listens.

use std::net::{SocketAddr, TcpListener, TcpStream};

/// A port of this machine that refuses every connection, and that nobody else is given
/// for as long as this is held: the near end of a connection has it.
#[derive(Debug)]
pub struct Vacant {
    near: TcpStream,
    _far: TcpStream,
}

impl Vacant {
    /// A free one.
    #[expect(clippy::new_without_default, reason = "it takes a port")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().unwrap()).expect("a connection");
        let (far, _) = listener.accept().expect("a connection");
        Self { near, _far: far }
    }

    /// What is vacant.
    pub fn address(&self) -> SocketAddr {
        self.near.local_addr().expect("it has one")
    }

    /// The same for a request.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}
