//! Many hostile clients: connections that all send and read slowly, until the attack is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Time in which every client gets one turn. One thread drives all clients, and uses little
/// processor time.
const TURN: Duration = Duration::from_secs(1);
/// Write timeout of a client's opening bytes.
const OPENING: Duration = Duration::from_millis(10);
/// Clients that get their turn between two pauses.
const AT_ONCE: usize = 50;

/// What each hostile client sends and reads.
#[derive(Clone)]
pub struct ClientScript {
    /// Bytes that are sent first.
    opening: Vec<u8>,
    /// Returns the bytes that are sent at a turn. May be empty.
    drip: Arc<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Maximum number of response bytes that are read at each turn.
    read_bytes: usize,
}

/// A running attack. All connections are closed when this is dropped.
#[derive(Debug)]
pub struct HostileClients {
    is_over: Arc<AtomicBool>,
    turns: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    driver: Option<JoinHandle<()>>,
}

impl HostileClients {
    /// Starts an attack. A client whose connection the server closes reconnects at its next turn.
    pub fn start(clients: usize, address: SocketAddr, script: ClientScript) -> Self {
        raise_fd_limit(clients);
        let (is_over, turns, opened) =
            <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let stop = Arc::clone(&is_over);
        let counts = (Arc::clone(&turns), Arc::clone(&opened));
        let driver = std::thread::spawn(move || {
            let mut streams: Vec<Option<TcpStream>> = (0..clients).map(|_| None).collect();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let groups = clients.div_ceil(AT_ONCE) as u32;
                for (group, members) in (1..).zip(streams.chunks_mut(AT_ONCE)) {
                    for client in members {
                        if !client
                            .as_mut()
                            .is_some_and(|client| script.take_turn(client))
                        {
                            *client = script.open(address, &counts.1);
                        }
                    }
                    let pause = (TURN * group / groups).saturating_sub(began.elapsed());
                    // Spreads the turns over time. Nothing waits for the clients. In the first
                    // round there is no pause, so that all clients connect quickly.
                    if counts.0.load(Ordering::Relaxed) > 0 {
                        std::thread::sleep(pause);
                    }
                }
                counts.0.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            is_over,
            turns,
            opened,
            driver: Some(driver),
        }
    }

    /// Waits until every client has had its first turn.
    pub fn wait_until_all_connected(&self) {
        let began = Instant::now();
        while self.turns.load(Ordering::Relaxed) == 0 {
            assert!(
                began.elapsed().as_secs() < 60,
                "the clients did not connect within 60 s"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Number of connections that the clients have opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for HostileClients {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

impl ClientScript {
    /// Clients that send `opening` and then nothing.
    pub fn silent(opening: &[u8]) -> Self {
        Self {
            opening: opening.to_vec(),
            drip: Arc::new(Vec::new),
            read_bytes: 1024,
        }
    }

    /// Sends `drip` at each turn.
    #[must_use]
    pub fn dripping(self, drip: &[u8]) -> Self {
        let drip = drip.to_vec();
        Self {
            drip: Arc::new(move || drip.clone()),
            ..self
        }
    }

    /// Reads at most this number of response bytes at each turn.
    #[must_use]
    pub fn reading(self, read_bytes: usize) -> Self {
        Self { read_bytes, ..self }
    }

    /// Clients that send a request at each turn. `request` is called for each of them, so that the
    /// requests can differ. The clients read the responses.
    pub fn requesting(request: impl Fn() -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self {
            opening: Vec::new(),
            drip: Arc::new(request),
            read_bytes: 64 * 1024,
        }
    }

    fn open(&self, address: SocketAddr, opened: &AtomicUsize) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).ok()?;
        opened.fetch_add(1, Ordering::Relaxed);
        // If the server does not read, it is enough to send what fits into the buffers.
        stream.set_write_timeout(Some(OPENING)).ok()?;
        let sent = stream.write_all(&self.opening);
        let is_open = sent.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true);
        stream.set_nonblocking(true).ok()?;
        is_open.then_some(stream)
    }

    /// Gives a client its turn. Returns false if its connection is closed.
    fn take_turn(&self, client: &mut TcpStream) -> bool {
        let sent = client.write_all(&(self.drip)());
        let mut buffer = vec![0; self.read_bytes];
        match sent.and_then(|()| client.read(&mut buffer)) {
            Ok(bytes) => bytes > 0 || self.read_bytes == 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Raises the file descriptor limit of this process, which holds the client ends of all
/// connections. The usual limit is 1,024.
pub fn raise_fd_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 500;
    if limit.current.is_some_and(|current| current < needed) {
        let current = Some(needed);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })
            .expect("the hard limit allows enough file descriptors");
    }
}
