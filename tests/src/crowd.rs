//! A crowd of hostile clients: many connections that all do the same, slowly, for as
//! long as it is held.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The whole crowd has a turn in this time, so that one thread carries it and takes
/// little of the processors.
const TURN: Duration = Duration::from_secs(1);
/// Time that a client gives its opening.
const OPENING: Duration = Duration::from_millis(10);
/// Clients that have their turn at once, between two pauses.
const AT_ONCE: usize = 50;

/// What each client of a crowd does.
#[derive(Debug, Clone)]
pub struct Part {
    /// Sent first.
    pub opening: Vec<u8>,
    /// Sent at each turn; nothing where it is empty.
    pub drip: Vec<u8>,
    /// Taken of what the server sends, in bytes at each turn.
    pub taken_bytes: usize,
}

/// A crowd. It is gone when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    is_over: Arc<AtomicBool>,
    turns: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
    driver: Option<JoinHandle<()>>,
}

impl Crowd {
    /// So many clients. One that the server closes comes again at its next turn.
    pub fn of(clients: usize, address: SocketAddr, part: Part) -> Self {
        raise_own_limit(clients);
        let (is_over, turns, opened) =
            <(Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let stop = Arc::clone(&is_over);
        let counts = (Arc::clone(&turns), Arc::clone(&opened));
        let driver = std::thread::spawn(move || {
            let mut crowd: Vec<Option<TcpStream>> = (0..clients).map(|_| None).collect();
            while !stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let groups = clients.div_ceil(AT_ONCE) as u32;
                for (group, members) in (1..).zip(crowd.chunks_mut(AT_ONCE)) {
                    for client in members {
                        if !client.as_mut().is_some_and(|client| part.goes_on(client)) {
                            *client = part.open(address, &counts.1);
                        }
                    }
                    let pause = (TURN * group / groups).saturating_sub(began.elapsed());
                    // The pace of the crowd; nothing waits for it.
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

    /// Waits until every client has been there.
    pub fn wait_until_all_came(&self) {
        let began = Instant::now();
        while self.turns.load(Ordering::Relaxed) == 0 {
            assert!(began.elapsed().as_secs() < 60, "they cannot connect");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connections that its clients have opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(driver) = self.driver.take() {
            let _ = driver.join();
        }
    }
}

impl Part {
    /// Clients that send this and then nothing.
    pub fn silent(opening: &[u8]) -> Self {
        Self {
            opening: opening.to_vec(),
            drip: Vec::new(),
            taken_bytes: 1024,
        }
    }

    /// With this at each turn.
    #[must_use]
    pub fn dripping(self, drip: &[u8]) -> Self {
        Self {
            drip: drip.to_vec(),
            ..self
        }
    }

    fn open(&self, address: SocketAddr, opened: &AtomicUsize) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(address).ok()?;
        opened.fetch_add(1, Ordering::Relaxed);
        // Where it is not read, what fits is enough.
        stream.set_write_timeout(Some(OPENING)).ok()?;
        let sent = stream.write_all(&self.opening);
        let is_open = sent.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |()| true);
        stream.set_nonblocking(true).ok()?;
        is_open.then_some(stream)
    }

    /// A client's turn; whether its connection is still there.
    fn goes_on(&self, client: &mut TcpStream) -> bool {
        let sent = client.write_all(&self.drip);
        let mut taken = vec![0; self.taken_bytes];
        match sent.and_then(|()| client.read(&mut taken)) {
            Ok(bytes) => bytes > 0 || self.taken_bytes == 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// We have the other ends of all these connections, and often a limit of 1,024.
pub fn raise_own_limit(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 500;
    if limit.current.is_some_and(|current| current < needed) {
        let current = Some(needed);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).expect("so many files");
    }
}
