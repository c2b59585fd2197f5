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
    /// `None` while it is asked on.
    connection: Option<Client>,
    token: String,
    large: String,
    count: usize,
    /// How often the connection that it keeps was made anew in this round.
    made_anew: usize,
}

impl Bystander {
    /// Connects.
    pub fn new(address: SocketAddr) -> Self {
        let mut bystander = Self {
            address,
            connection: Some(Client::connect(address)),
            token: token::of("bystander", NAMESPACE),
            large: format!("{{\"large\":\"{}\"}}", "x".repeat(LARGE_BYTES)),
            count: 0,
            made_anew: 0,
        };
        // What comes first takes longer.
        bystander.round();
        bystander
    }

    /// A round of requests, of which every single one must be served, and soon.
    pub fn round(&mut self) -> Waits {
        self.made_anew = 0;
        let mut waits: [Vec<Duration>; KINDS.len()] = Default::default();
        for _ in 0..SMALL {
            self.count += 1;
            let small = format!("{{\"count\":{}}}", self.count);
            let address = self.address;
            waits[1].push(timed(|| self.puts(&small)));
            waits[0].push(timed(|| self.gets(&small)));
            waits[2].push(timed(|| {
                let mut connection = Client::connect(address);
                let (response, _) = self.ask_on(&mut connection, &self.get());
                check(&response, &small);
            }));
        }
        let large = self.large.clone();
        for _ in 0..LARGE {
            waits[3].push(timed(|| {
                self.puts(&large);
                self.gets(&large);
            }));
        }
        assert!(
            self.made_anew <= 1,
            "its connection was closed {} times",
            self.made_anew
        );
        waits.map(p99)
    }

    /// As every client does (RFC 9110 section 9.2.2): on a machine that lets this thread
    /// wait for long, its connection can be among those that are closed, and what may be
    /// repeated is asked again on another. Whether that was so.
    fn ask_on(&self, connection: &mut Client, request: &Request) -> (Response, bool) {
        if let Ok(response) = connection.try_request(request) {
            return (response, false);
        }
        *connection = Client::connect(self.address);
        (connection.request(request), true)
    }

    /// On the connection that it keeps.
    fn ask(&mut self, request: &Request) -> Response {
        let mut connection = self.connection.take().expect("it is kept");
        let (response, is_anew) = self.ask_on(&mut connection, request);
        self.connection = Some(connection);
        self.made_anew += usize::from(is_anew);
        response
    }

    fn puts(&mut self, document: &str) {
        let request = Request::of("PUT", NAMESPACE, &self.token).body(document);
        let response = self.ask(&request);
        assert_eq!(response.status, 204, "{response:?}");
    }

    fn get(&self) -> Request {
        Request::of("GET", NAMESPACE, &self.token)
    }

    fn gets(&mut self, document: &str) {
        check(&self.ask(&self.get()), document);
    }
}

fn check(response: &Response, document: &str) {
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.text() == document, "another document");
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
