//! A good client: what it asks for while others attack, and how long it waits for that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::{Client, Request, Response};
use crate::token;

/// Requests of each kind in a round.
const SMALL: usize = 150;
const LARGE: usize = 5;
/// Beyond what stays in memory, so it goes to a file and comes from one.
const LARGE_BYTES: usize = 1024 * 1024;
/// Not a single request may take as long: less than any timeout of the server, more than
/// a second until a connection is tried again that the system had no room for.
const LONGEST: Duration = Duration::from_secs(3);
const NAMESPACE: &str = "bystander";

/// How long the good client has waited in a round: the 99th percentile of each kind,
/// of [`KINDS`].
pub type Waits = [Duration; KINDS.len()];

/// A small GET, a small PUT, a small GET on a connection that is made for it, and a large
/// PUT with a large GET.
pub const KINDS: [&str; 4] = ["get", "put", "connect and get", "large put and get"];

/// A good client, with a connection that it keeps all the time.
#[derive(Debug)]
pub struct Bystander {
    address: SocketAddr,
    connection: Client,
    token: String,
    large: String,
    count: usize,
}

impl Bystander {
    /// Connects.
    pub fn new(address: SocketAddr) -> Self {
        let mut bystander = Self {
            address,
            connection: Client::connect(address),
            token: token::of("bystander", NAMESPACE),
            large: format!("{{\"large\":\"{}\"}}", "x".repeat(LARGE_BYTES)),
            count: 0,
        };
        // What comes first takes longer.
        bystander.round();
        bystander
    }

    /// A round of requests, of which every single one must be served, and soon.
    pub fn round(&mut self) -> Waits {
        let mut waits: [Vec<Duration>; KINDS.len()] = Default::default();
        for _ in 0..SMALL {
            self.count += 1;
            let small = format!("{{\"count\":{}}}", self.count);
            let address = self.address;
            waits[1].push(timed(|| self.put(&small)));
            waits[0].push(timed(|| self.get(&small)));
            waits[2].push(timed(|| {
                let mut connection = Client::connect(address);
                std::mem::swap(&mut connection, &mut self.connection);
                self.get(&small);
                // The old one is kept.
                std::mem::swap(&mut connection, &mut self.connection);
            }));
        }
        let large = self.large.clone();
        for _ in 0..LARGE {
            waits[3].push(timed(|| {
                self.put(&large);
                self.get(&large);
            }));
        }
        waits.map(p99)
    }

    /// As every client does (RFC 9110 section 9.2.2): on a machine that lets this thread
    /// wait for long, its connection can be among those that are closed, and what may be
    /// repeated is asked again on another.
    fn request(&mut self, request: &Request) -> Response {
        if let Ok(response) = self.connection.try_request(request) {
            return response;
        }
        self.connection = Client::connect(self.address);
        self.connection.request(request)
    }

    fn put(&mut self, document: &str) {
        let request = Request::of("PUT", NAMESPACE, &self.token).body(document);
        let response = self.request(&request);
        assert_eq!(response.status, 204, "{response:?}");
    }

    fn get(&mut self, document: &str) {
        let request = Request::of("GET", NAMESPACE, &self.token);
        let response = self.request(&request);
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text() == document, "another document");
    }
}

/// The best of several rounds, kind by kind: the machine does other things, too.
pub fn best(rounds: &[Waits]) -> Waits {
    std::array::from_fn(|kind| {
        rounds
            .iter()
            .map(|waits| waits[kind])
            .min()
            .expect("a round")
    })
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    let waited = began.elapsed();
    assert!(waited < LONGEST, "it was served after {waited:?}");
    waited
}

fn p99(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    let rank = (waits.len() * 99).div_ceil(100);
    waits[rank - 1]
}
