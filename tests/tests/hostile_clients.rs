//! Many hostile clients at the same time as one well-behaved client. The test limits the response
//! times of the well-behaved client and the memory of the server. After the attack, the server must
//! have no more files open than before.

mod common;

use std::time::{Duration, Instant};

use common::{alone, fresh, put, wait_until};
use prefd_tests::hostile_clients::{ClientScript, HostileClients};
use prefd_tests::http::Request;
use prefd_tests::latency_probe::{KINDS, LatencyProbe, best};
use prefd_tests::machine::report;
use prefd_tests::server::Server;
use prefd_tests::token;

const MIB: u64 = 1024 * 1024;
/// The default of `--max-connections`.
const CONNECTIONS: u64 = 1024;
/// Limit for the additional memory of the server during an attack: hyper's buffers and one chunk
/// of a document for each connection (160 KiB), the budget for request bodies (64 MiB), and the
/// data that downloads read ahead (32 MiB).
const BUDGET_BYTES: u64 = CONNECTIONS * 160 * 1024 + 96 * MIB;
/// Limit for the unsent bytes of a response in the kernel. The kernel doubles the requested size
/// of a send buffer, to leave space for its own bookkeeping (socket(7), SO_SNDBUF).
const SEND_BUFFER_BYTES: u64 = 2 * 256 * 1024;
/// Maximum ratio of the well-behaved client's response times with and without the attack.
const MAX_RATIO: u32 = 3;
/// Response times up to this limit never fail the test. Response times of a fraction of a
/// millisecond can triple because of the scheduler alone. The limit is below every timeout of the
/// server, so a response that waits for a timeout fails the test.
const NOISE: Duration = Duration::from_millis(50);
const ROUNDS: usize = 3;

/// Runs an attack on a server with default settings, and checks the response times of a
/// well-behaved client, the server's memory, and its open files after the attack.
fn check_attack(attack: &str, clients: usize, part: impl FnOnce(&Server) -> ClientScript) {
    let _turn = alone();
    let (server, _dir) = fresh(&[]);
    let part = part(&server);
    let mut probe = LatencyProbe::new(server.address);
    let quiet: Vec<_> = (0..ROUNDS).map(|_| probe.round()).collect();
    let open = server.open_files().len();
    let before = server.peak_rss_bytes();

    let hostile_clients = HostileClients::start(clients, server.address, part);
    hostile_clients.wait_until_all_connected();
    let attacked: Vec<_> = (0..ROUNDS).map(|_| probe.round()).collect();
    let opened = hostile_clients.opened();
    drop(hostile_clients);
    assert!(
        opened >= clients,
        "{attack}: expected {clients} connections, got {opened}"
    );

    let (quiet, attacked) = (best(&quiet), best(&attacked));
    let grown = server.peak_rss_bytes() - before;
    report(&format!(
        "{attack}: {opened} connections, {} MiB more",
        grown / MIB
    ));
    for (kind, (quiet, attacked)) in KINDS.iter().zip(quiet.into_iter().zip(attacked)) {
        let ratio = attacked.as_secs_f64() / quiet.as_secs_f64();
        report(&format!(
            "{attack}: p99 of {kind}: {attacked:.1?}, without the attack {quiet:.1?}, ratio {ratio:.1}"
        ));
        let bound = (quiet * MAX_RATIO).max(NOISE);
        assert!(
            attacked <= bound,
            "{attack}: expected a p99 of {kind} of at most {bound:?}, got {attacked:?}; \
             without the attack: {quiet:?}"
        );
    }
    assert!(
        grown <= BUDGET_BYTES,
        "{attack}: expected at most {} MiB of additional memory, got {} MiB",
        BUDGET_BYTES / MIB,
        grown / MIB
    );

    wait_until("the server has closed the files of the attack", || {
        server.open_files().len() <= open
    });
    probe.round();
    assert!(!server.has_logged("panicked"));
}

/// The head and the first byte of an upload of 1 MiB.
fn upload(token: &str) -> Vec<u8> {
    let length = MIB.to_string();
    let request = Request::of("PUT", "xyz", token).header("Content-Length", &length);
    [&request.head()[..], b"{"].concat()
}

#[test]
fn idle_connections_do_not_delay_other_clients() {
    check_attack("idle", 5_000, |_| ClientScript::silent(b""));
}

#[test]
fn endless_request_heads_do_not_delay_other_clients() {
    let begun = b"GET /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n";
    check_attack("slow heads", 1_500, |_| {
        ClientScript::silent(begun).dripping(b"x: y\r\n")
    });
}

#[test]
fn endless_request_bodies_do_not_delay_other_clients() {
    let token = token::of("mallory", "xyz");
    check_attack("slow bodies", 1_500, |_| {
        ClientScript::silent(&upload(&token)).dripping(b" ")
    });
}

#[test]
fn endless_refused_bodies_do_not_delay_other_clients() {
    check_attack("refused bodies", 1_500, |_| {
        ClientScript::silent(&upload("nonsense")).dripping(b" ")
    });
}

#[test]
fn slow_readers_do_not_delay_other_clients() {
    let token = token::of("mallory", "xyz");
    check_attack("slow readers", 1_500, |server| {
        let document = format!("{{\"large\":\"{}\"}}", "x".repeat(8 * MIB as usize));
        put(&mut server.connect(), "xyz", &token, &document);
        let part = ClientScript::silent(&Request::of("GET", "xyz", &token).bytes());
        ClientScript {
            read_bytes: 1,
            ..part
        }
    });
}

#[test]
fn unread_response_does_not_fill_the_send_buffer() {
    let _turn = alone();
    let (server, _dir) = fresh(&[]);
    let token = token::of("mallory", "xyz");
    let document = format!("{{\"large\":\"{}\"}}", "x".repeat(8 * MIB as usize));
    put(&mut server.connect(), "xyz", &token, &document);
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token);
    connection.send(&request.bytes()).unwrap();
    // Wait until the number of unsent bytes is stable, so that the server has stopped writing.
    let mut seen = (0, 0);
    let began = Instant::now();
    while seen.1 < 20 {
        assert!(
            began.elapsed().as_secs() < 30,
            "the server must stop writing while the client does not read"
        );
        let queued = server.unsent_bytes();
        seen = if queued == seen.0 && queued > 0 {
            (queued, seen.1 + 1)
        } else {
            (queued, 0)
        };
        std::thread::sleep(Duration::from_millis(10));
    }
    report(&format!(
        "unsent bytes of an unread response: {} KiB",
        seen.0 / 1024
    ));
    assert!(
        seen.0 <= SEND_BUFFER_BYTES,
        "expected at most {} KiB of unsent bytes, got {} KiB",
        SEND_BUFFER_BYTES / 1024,
        seen.0 / 1024
    );
    assert!(connection.read_response(false).unwrap().text() == document);
}

#[test]
fn heads_of_10_000_lines_do_not_delay_other_clients() {
    let lines = "x: y\r\n".repeat(10_000);
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    check_attack("many lines", 200, |_| ClientScript::silent(head.as_bytes()));
}

#[test]
fn too_long_heads_do_not_delay_other_clients() {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(390 * 1024));
    check_attack("too long", 800, |_| ClientScript::silent(head.as_bytes()));
}

#[test]
fn nearly_too_long_heads_do_not_delay_other_clients() {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(79 * 1024));
    check_attack("nearly too long", 1_500, |_| {
        ClientScript::silent(head.as_bytes()).dripping(b"x")
    });
}
