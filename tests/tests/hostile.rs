//! Crowds of slow clients, and a good one beside them: it is served as if it were alone,
//! memory stays within the budget, and afterwards nothing is left of them.

mod common;

use std::time::{Duration, Instant};

use common::{alone, fresh, put, wait_until};
use prefd_tests::bystander::{Bystander, KINDS, best};
use prefd_tests::crowd::{Crowd, Part};
use prefd_tests::http::Request;
use prefd_tests::machine::report;
use prefd_tests::server::Server;
use prefd_tests::token;

const MIB: u64 = 1024 * 1024;
/// What the server may take beyond what it has before: for each connection what hyper
/// buffers and one piece of a document (160 KiB), the budget for bodies (64 MiB), and
/// what downloads read ahead (32 MiB).
const CONNECTIONS: u64 = 1024;
const BUDGET_BYTES: u64 = CONNECTIONS * 160 * 1024 + 96 * MIB;
/// What the system may hold of an answer: twice what is asked of it, since it counts what
/// it needs besides (socket(7), SO_SNDBUF).
const SEND_BUFFER_BYTES: u64 = 2 * 256 * 1024;
/// Under an attack the good client waits at most so many times as long as alone.
const TIMES: u32 = 3;
/// And below this it never counts as waiting: three times a fraction of a millisecond
/// is what the scheduler does on its own. Far less than any timeout or patience of the
/// server, so a wait for one of those is seen.
const NOISE: Duration = Duration::from_millis(50);
const ROUNDS: usize = 3;

/// Attacks a server with default settings, and holds it to what the head of this file
/// says.
fn withstands(attack: &str, clients: usize, part: impl FnOnce(&Server) -> Part) {
    let _turn = alone();
    let (server, _dir) = fresh(&[]);
    let part = part(&server);
    let mut bystander = Bystander::new(server.address);
    let quiet: Vec<_> = (0..ROUNDS).map(|_| bystander.round()).collect();
    let open = server.open_files().len();
    let before = server.peak_rss_bytes();

    let crowd = Crowd::of(clients, server.address, part);
    crowd.wait_until_all_came();
    let attacked: Vec<_> = (0..ROUNDS).map(|_| bystander.round()).collect();
    let opened = crowd.opened();
    drop(crowd);
    assert!(opened >= clients, "{attack}: {opened} of {clients} came");

    let (quiet, attacked) = (best(&quiet), best(&attacked));
    let grown = server.peak_rss_bytes() - before;
    report(&format!(
        "{attack}: {opened} connections, {} MiB more",
        grown / MIB
    ));
    for (kind, (quiet, attacked)) in KINDS.iter().zip(quiet.into_iter().zip(attacked)) {
        let times = attacked.as_secs_f64() / quiet.as_secs_f64();
        report(&format!(
            "{attack}: p99 of {kind}: {attacked:.1?}, alone {quiet:.1?}: {times:.1} times"
        ));
        let bound = (quiet * TIMES).max(NOISE);
        assert!(
            attacked <= bound,
            "{attack}: {kind}: {attacked:?}, alone {quiet:?}"
        );
    }
    assert!(grown <= BUDGET_BYTES, "{attack}: {} MiB", grown / MIB);

    wait_until("nothing is left open", || server.open_files().len() <= open);
    bystander.round();
    assert!(!server.has_logged("panicked"));
}

/// An upload of a megabyte that has just begun.
fn upload(token: &str) -> Vec<u8> {
    let length = MIB.to_string();
    let request = Request::of("PUT", "xyz", token).header("Content-Length", &length);
    [&request.head()[..], b"{"].concat()
}

#[test]
fn thousands_of_idle_connections() {
    withstands("idle", 5_000, |_| Part::silent(b""));
}

#[test]
fn heads_that_never_end() {
    let begun = b"GET /user/2025-1/preferences/xyz HTTP/1.1\r\nHost: x\r\n";
    withstands("slow heads", 1_500, |_| {
        Part::silent(begun).dripping(b"x: y\r\n")
    });
}

#[test]
fn bodies_that_never_end() {
    let token = token::of("mallory", "xyz");
    withstands("slow bodies", 1_500, |_| {
        Part::silent(&upload(&token)).dripping(b" ")
    });
}

#[test]
fn refused_bodies_that_never_end() {
    withstands("refused bodies", 1_500, |_| {
        Part::silent(&upload("nonsense")).dripping(b" ")
    });
}

#[test]
fn answers_that_are_hardly_taken() {
    let token = token::of("mallory", "xyz");
    withstands("slow readers", 1_500, |server| {
        let document = format!("{{\"large\":\"{}\"}}", "x".repeat(8 * MIB as usize));
        put(&mut server.connect(), "xyz", &token, &document);
        let part = Part::silent(&Request::of("GET", "xyz", &token).bytes());
        Part {
            taken_bytes: 1,
            ..part
        }
    });
}

#[test]
fn what_a_client_does_not_take_is_not_left_to_the_system_either() {
    let (server, _dir) = fresh(&[]);
    let token = token::of("mallory", "xyz");
    let document = format!("{{\"large\":\"{}\"}}", "x".repeat(8 * MIB as usize));
    put(&mut server.connect(), "xyz", &token, &document);
    let mut connection = server.connect();
    let request = Request::of("GET", "xyz", &token);
    connection.send(&request.bytes()).unwrap();
    // Until the server writes no more.
    let mut seen = (0, 0);
    let began = Instant::now();
    while seen.1 < 20 {
        assert!(began.elapsed().as_secs() < 30, "it writes on and on");
        let queued = server.unsent_bytes();
        seen = if queued == seen.0 && queued > 0 {
            (queued, seen.1 + 1)
        } else {
            (queued, 0)
        };
        std::thread::sleep(Duration::from_millis(10));
    }
    report(&format!("not taken: {} KiB", seen.0 / 1024));
    assert!(seen.0 <= SEND_BUFFER_BYTES, "{} KiB", seen.0 / 1024);
    assert!(connection.read_response(false).unwrap().text() == document);
}

#[test]
fn heads_of_ten_thousand_lines() {
    let lines = "x: y\r\n".repeat(10_000);
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
    withstands("many lines", 200, |_| Part::silent(head.as_bytes()));
}

#[test]
fn heads_that_are_too_long() {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(390 * 1024));
    withstands("too long", 800, |_| Part::silent(head.as_bytes()));
}

#[test]
fn heads_that_are_nearly_too_long() {
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nx: {}", "x".repeat(79 * 1024));
    withstands("nearly too long", 1_500, |_| {
        Part::silent(head.as_bytes()).dripping(b"x")
    });
}
