//! A well-behaved client that measures its response times while hostile clients attack.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::http::{Client, Request, Response};
use crate::machine::report;
use crate::token;

/// Small requests of each kind in a round.
const SMALL: usize = 150;
/// Large PUTs and GETs in a round.
const LARGE: usize = 5;
/// Size of the large document, which is stored in a blob.
const LARGE_BYTES: usize = 1024 * 1024;
/// No request may last this long. The limit is shorter than the timeouts of the server for its
/// clients. If an attack uses all connections, the first new connection usually waits 1 to 2 seconds,
/// until connections of the attack are past the period of grace in which the server keeps them. On a
/// busy machine, the wait is longer, because the server first has to work on the requests of the
/// attack.
const MAX_LATENCY: Duration = Duration::from_secs(8);
/// Maximum ratio of the response times with and without an attack.
const MAX_RATIO: u32 = 3;
/// Response times up to this limit never fail a test. Response times of a fraction of a millisecond
/// can triple because of the scheduler alone. The limit is below every timeout of the server, so a
/// response that waits for a timeout fails the test.
const NOISE: Duration = Duration::from_millis(50);
/// Number of rounds with and without an attack.
const ROUNDS: usize = 3;
/// Number of rounds with an attack after which a slowdown is certain.
const MAX_ROUNDS: usize = 12;
/// The client id of the probe's token, and its namespace.
pub const NAMESPACE: &str = "probe";

/// The 99th percentiles of the response times in a round, one for each of [`KINDS`].
pub type Latencies = [Duration; KINDS.len()];

/// Kinds of requests: a small GET, a small PUT, a small GET on a new connection, and a large PUT
/// followed by a large GET.
pub const KINDS: [&str; 4] = ["get", "put", "connect and get", "large put and get"];

/// A well-behaved client with one kept connection.
#[derive(Debug)]
pub struct LatencyProbe {
    address: SocketAddr,
    /// The kept connection. `None` while a request is in progress.
    connection: Option<Client>,
    token: String,
    large: String,
    count: usize,
    /// Number of reconnects of the kept connection in this round.
    reconnects: usize,
}

impl LatencyProbe {
    /// Connects with a token of [`token::SECRET`], and runs one round to warm up.
    pub fn new(address: SocketAddr) -> Self {
        Self::with_token(address, &token::of("probe", NAMESPACE))
    }

    /// Connects with a token of the client [`NAMESPACE`], and runs one round to warm up.
    pub fn with_token(address: SocketAddr, token: &str) -> Self {
        let mut probe = Self {
            address,
            connection: Some(Client::connect(address)),
            token: token.to_owned(),
            large: format!("{{\"large\":\"{}\"}}", "x".repeat(LARGE_BYTES)),
            count: 0,
            reconnects: 0,
        };
        // The first requests are slower.
        probe.round();
        probe
    }

    /// Sends a round of requests. Panics if a request fails or lasts too long.
    pub fn round(&mut self) -> Latencies {
        self.reconnects = 0;
        let mut latencies: [Vec<Duration>; KINDS.len()] = Default::default();
        for _ in 0..SMALL {
            self.count += 1;
            let small = format!("{{\"count\":{}}}", self.count);
            let address = self.address;
            latencies[1].push(timed(|| self.put(&small)));
            latencies[0].push(timed(|| self.check_get(&small)));
            latencies[2].push(timed(|| {
                let mut connection = Client::connect(address);
                let (response, _) = self.send_on(&mut connection, &self.get_request());
                check(&response, &small);
            }));
        }
        let large = self.large.clone();
        for _ in 0..LARGE {
            latencies[3].push(timed(|| {
                self.put(&large);
                self.check_get(&large);
            }));
        }
        assert!(
            self.reconnects <= 1,
            "the kept connection was closed {} times, expected at most once",
            self.reconnects
        );
        latencies.map(p99)
    }

    /// Sends a request. If the connection breaks, repeats the request on a new connection, as
    /// RFC 9110 section 9.2.2 allows for idempotent requests. Returns the response, and whether
    /// the client has reconnected.
    ///
    /// On a busy machine this thread can be slow itself, and the server may then close the
    /// connection.
    fn send_on(&self, connection: &mut Client, request: &Request) -> (Response, bool) {
        if let Ok(response) = connection.try_request(request) {
            return (response, false);
        }
        *connection = Client::connect(self.address);
        (connection.request(request), true)
    }

    /// Sends a request on the kept connection.
    fn send(&mut self, request: &Request) -> Response {
        let mut connection = self
            .connection
            .take()
            .expect("no other request is in progress");
        let (response, is_new) = self.send_on(&mut connection, request);
        self.connection = Some(connection);
        self.reconnects += usize::from(is_new);
        response
    }

    /// Runs `ROUNDS` rounds without an attack.
    pub fn rounds(&mut self) -> Vec<Latencies> {
        (0..ROUNDS).map(|_| self.round()).collect()
    }

    /// Runs rounds during an attack, and checks that the attack does not slow down the well-behaved
    /// client. `quiet` contains the response times without the attack.
    ///
    /// If the response times are too long, more rounds follow. Other processes can slow down some
    /// rounds, but an attack that slows down the client does so in each round.
    ///
    /// # Panics
    /// Panics if a response time is over `MAX_RATIO` times the response time without the attack,
    /// and over `NOISE`, in each of `MAX_ROUNDS` rounds.
    pub fn check_slowdown(&mut self, attack: &str, quiet: &[Latencies]) {
        let mut attacked = self.rounds();
        while attacked.len() < MAX_ROUNDS && slowdown(quiet, &attacked).is_some() {
            attacked.push(self.round());
        }
        for (kind, (quiet, attacked)) in KINDS.iter().zip(best(quiet).iter().zip(best(&attacked))) {
            report(&format!(
                "{attack}: p99 of {kind}: {attacked:.1?}, without the attack {quiet:.1?}"
            ));
        }
        if let Some(Slowdown {
            kind,
            quiet,
            attacked,
            bound,
        }) = slowdown(quiet, &attacked)
        {
            panic!(
                "{attack}: expected a p99 of {kind} of at most {bound:?}, got {attacked:?}; \
                 without the attack: {quiet:?}"
            );
        }
    }

    fn put(&mut self, document: &str) {
        let request = Request::of("PUT", NAMESPACE, &self.token).body(document);
        let response = self.send(&request);
        assert_eq!(response.status, 204, "{response:?}");
    }

    fn get_request(&self) -> Request {
        Request::of("GET", NAMESPACE, &self.token)
    }

    fn check_get(&mut self, document: &str) {
        check(&self.send(&self.get_request()), document);
    }
}

fn check(response: &Response, document: &str) {
    assert_eq!(response.status, 200, "{response:?}");
    assert!(
        response.text() == document,
        "the GET returned a different document than the last PUT stored"
    );
}

/// The lowest value of each kind over several rounds, to exclude noise from other processes.
fn best(rounds: &[Latencies]) -> Latencies {
    std::array::from_fn(|kind| {
        rounds
            .iter()
            .map(|latencies| latencies[kind])
            .min()
            .expect("at least one round")
    })
}

/// A kind of request that an attack slows down too much.
struct Slowdown {
    kind: &'static str,
    quiet: Duration,
    attacked: Duration,
    bound: Duration,
}

/// Returns the first kind of request whose response time is over `MAX_RATIO` times the response
/// time without the attack, and over `NOISE`.
fn slowdown(quiet: &[Latencies], attacked: &[Latencies]) -> Option<Slowdown> {
    let times = best(quiet).into_iter().zip(best(attacked));
    let mut compared = KINDS
        .into_iter()
        .zip(times)
        .map(|(kind, (quiet, attacked))| Slowdown {
            kind,
            quiet,
            attacked,
            bound: (quiet * MAX_RATIO).max(NOISE),
        });
    compared.find(|slowdown| slowdown.attacked > slowdown.bound)
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    let waited = began.elapsed();
    assert!(
        waited < MAX_LATENCY,
        "the request lasted {waited:?}, the limit is {MAX_LATENCY:?}"
    );
    waited
}

fn p99(mut latencies: Vec<Duration>) -> Duration {
    latencies.sort_unstable();
    let rank = (latencies.len() * 99).div_ceil(100);
    latencies[rank - 1]
}
