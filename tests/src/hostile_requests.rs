//! Hostile clients that repeat a request that costs much work, until the attack is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::http::{Client, Request};

/// Pause of a client after each response. Without the pause, the work for the clients would use up
/// the processors of a small machine, and so delay other clients of any server.
const PAUSE: Duration = Duration::from_millis(200);

/// A running attack. Ends when this is dropped.
#[derive(Debug)]
pub struct HostileRequests {
    is_over: Arc<AtomicBool>,
    responses: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl HostileRequests {
    /// Starts an attack: each of the clients repeats the request on one connection, and expects
    /// the given status.
    pub fn start(clients: usize, address: SocketAddr, request: &Request, status: u16) -> Self {
        let (is_over, responses) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let clients = (0..clients).map(|_| {
            let (is_over, responses) = (Arc::clone(&is_over), Arc::clone(&responses));
            let request = request.clone();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                while !is_over.load(Ordering::Relaxed) {
                    let response = client.request(&request);
                    assert_eq!(response.status, status, "{response:?}");
                    responses.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            })
        });
        Self {
            clients: clients.collect(),
            is_over,
            responses,
        }
    }

    /// Waits until the server has sent `count` responses to the hostile clients.
    ///
    /// # Panics
    /// Panics if a client has failed, or if the responses do not arrive within a minute.
    pub fn wait_for_responses(&self, count: usize) {
        let began = Instant::now();
        while self.responses() < count {
            assert!(
                !self.clients.iter().any(JoinHandle::is_finished),
                "a hostile client failed"
            );
            assert!(
                began.elapsed().as_secs() < 60,
                "the server did not send {count} responses within 60 s"
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Number of responses that the clients have received so far.
    pub fn responses(&self) -> usize {
        self.responses.load(Ordering::Relaxed)
    }
}

impl Drop for HostileRequests {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let ended = client.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "a hostile client failed"
            );
        }
    }
}
