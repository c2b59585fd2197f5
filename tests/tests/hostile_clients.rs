//! Many hostile clients at the same time as one well-behaved client. The test limits the response
//! times of the well-behaved client and the memory of the server. After the attack, the server must
//! have no more files open than before.

mod common;

use std::time::{Duration, Instant};

use common::{alone, fresh, metric, put, wait_until};
use prefd_tests::hostile_clients::{ClientScript, HostileClients};
use prefd_tests::hostile_requests::HostileRequests;
use prefd_tests::http::Request;
use prefd_tests::latency_probe::LatencyProbe;
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

/// Runs an attack of slow connections on a server with default settings.
fn check_attack(attack: &str, clients: usize, part: impl FnOnce(&Server) -> ClientScript) {
    let _turn = alone();
    let (server, _dir) = fresh(&[]);
    let part = part(&server);
    check_load(attack, &server, || {
        let hostile_clients = HostileClients::start(clients, server.address, part);
        hostile_clients.wait_until_all_connected();
        let opened = hostile_clients.opened();
        assert!(
            opened >= clients,
            "{attack}: expected {clients} connections, got {opened}"
        );
        hostile_clients
    });
}

/// Runs an attack, and checks the response times of a well-behaved client, the server's memory, and
/// its open files after the attack. `start` starts the attack, which ends when the result of
/// `start` is dropped.
fn check_load<A>(attack: &str, server: &Server, start: impl FnOnce() -> A) {
    check_load_compared(attack, server, || (), start);
}

/// Like [`check_load`], but compares the response times with those during another load, which
/// `start_other` starts. Use this function if ordinary clients can cause a similar load, and the
/// test checks only what the attack adds.
fn check_load_compared<B, A>(
    attack: &str,
    server: &Server,
    start_other: impl FnOnce() -> B,
    start: impl FnOnce() -> A,
) {
    let mut probe = LatencyProbe::new(server.address);
    let other = start_other();
    let quiet = probe.rounds();
    drop(other);
    let open = server.open_files().len();
    let before = server.peak_rss_bytes();

    let running = start();
    probe.check_slowdown(attack, &quiet);
    drop(running);

    let grown = server.peak_rss_bytes() - before;
    report(&format!("{attack}: {} MiB more", grown / MIB));
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
        ClientScript::silent(&Request::of("GET", "xyz", &token).bytes()).reading(1)
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

/// Regression test. The check for duplicate keys compared each key with all earlier keys, and ran
/// on the async worker.
#[test]
fn documents_of_28_000_keys_do_not_delay_other_clients() {
    const KEYS: usize = 28_000;
    /// Three for each async worker of a small machine. If only two clients delayed the workers, the
    /// 99th percentiles would not show it.
    const CLIENTS: usize = 6;
    let _turn = alone();
    let max_keys = KEYS.to_string();
    // The clients never wait for memory, so that the server ends none of their uploads. Each upload
    // acquires memory for 28,000 keys.
    let budget = (256 * MIB).to_string();
    let (server, _dir) = fresh(&[
        "--max-keys",
        &max_keys,
        "--max-body-bytes",
        "2097152",
        "--body-budget-bytes",
        &budget,
    ]);
    let token = token::of("mallory", "xyz");
    let start = |members: String| {
        // The last key is a duplicate of the first, so nothing is written to the disk.
        let document = format!("{{\"1\":0,{members},\"1\":0}}");
        let request = Request::of("PUT", "xyz", &token).body(document);
        let attack = HostileRequests::start(CLIENTS, server.address, &request, 400);
        attack.wait_for_responses(CLIENTS);
        attack
    };
    let members = |separator: &str| {
        let members = (2..KEYS).map(|key| format!("\"{key:x}\"{separator}0"));
        members.collect::<Vec<_>>().join(",")
    };
    // Both documents have the same number of bytes, strings and numbers, apart from the brackets.
    let few_keys = format!("\"2\":[{}]", members(","));
    check_load_compared(
        "many keys",
        &server,
        || start(few_keys),
        || start(members(":")),
    );
}

/// Regression test. Uploads that are slow, but not slow enough to count as stalled, used up the
/// memory for request bodies, and all other uploads of more than 16 KiB got 503.
#[test]
fn slow_uploads_of_one_user_do_not_delay_other_users() {
    const CLIENTS: usize = 100;
    const UPLOAD_BYTES: usize = 100_000_000;
    /// Bytes that each client sends per second, twice as many as needed to make progress.
    const DRIP_BYTES: usize = 32 * 1024;
    let _turn = alone();
    let (server, _dir) = fresh(&["--admin-listen", "127.0.0.1:0"]);
    let token = token::of("mallory", "xyz");
    let length = UPLOAD_BYTES.to_string();
    let request = Request::of("PUT", "xyz", &token).header("Content-Length", &length);
    let drip = "x".repeat(DRIP_BYTES);
    let opening = [&request.head()[..], b"{\"a\":\"", drip.as_bytes()].concat();
    let script = ClientScript::silent(&opening).dripping(drip.as_bytes());
    check_load("slow uploads", &server, || {
        let attack = HostileClients::start(CLIENTS, server.address, script);
        let max_bytes = metric(&server, "prefd_http_bodies_max_bytes");
        wait_until(
            "the attack has used up the memory for request bodies",
            || metric(&server, "prefd_http_bodies_bytes") + MIB > max_bytes,
        );
        attack
    });
}

#[test]
fn nearly_too_long_heads_do_not_delay_other_clients() {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(79 * 1024));
    check_attack("nearly too long", 1_500, |_| {
        ClientScript::silent(head.as_bytes()).dripping(b"x")
    });
}
