//! Far more connections than file descriptors: idle clients wait, and never take the
//! descriptor that a write needs.

mod common;

use std::net::TcpStream;

use common::{BINARY, get, put};
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What `ulimit -n` allows in these tests.
const LIMIT: &str = "ulimit -n 64";
/// As many as are served at a time under that limit: no place is left.
const WRITERS: usize = 8;
const IDLE: usize = 1_000;
const ROUNDS: usize = 60;

/// We have the other ends of all these connections, and often a limit of 1,024.
fn raise_our_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let needed = 2 * IDLE as u64;
    if limit.current.is_some_and(|current| current < needed) {
        let current = Some(needed);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    }
}

fn user(writer: usize) -> String {
    format!("user-{writer}")
}

fn client(round: usize) -> String {
    format!("client-{}", round % 20)
}

/// Every third one is large, and goes to a file of its own.
fn document(writer: usize, round: usize) -> String {
    let bytes = if round.is_multiple_of(3) {
        400_000
    } else {
        9_000
    };
    format!("{{\"{writer}\":{round},\"pad\":\"{}\"}}", "p".repeat(bytes))
}

#[test]
fn a_thousand_idle_connections_take_nothing_from_those_that_write() {
    raise_our_own_limit();
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::new(BINARY, dir.path())
        .with(&["--segment-bytes", "65536", "--head-timeout", "10m"])
        .with(&["--document-cache-bytes", "0"])
        .after_shell(LIMIT);
    let server = launch.start();
    server.wait_for_log(&format!("connections={WRITERS} wanted=1024"));
    let mut writers: Vec<_> = (0..WRITERS).map(|_| server.connect()).collect();
    for (writer, connection) in writers.iter_mut().enumerate() {
        put(
            connection,
            "first",
            &token::of(&user(writer), "first"),
            "{}",
        );
    }
    let idle: Vec<_> = (0..IDLE)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    std::thread::scope(|scope| {
        for (writer, connection) in writers.iter_mut().enumerate() {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let client = client(round);
                    let token = token::of(&user(writer), &client);
                    put(connection, &client, &token, &document(writer, round));
                    let found = get(connection, &client, &token);
                    assert!(found == document(writer, round), "{writer} {round}");
                }
            });
        }
    });
    // As descriptors come back, those who wait are served.
    drop((idle, writers));
    let token = token::of(&user(0), "first");
    assert_eq!(get(&mut server.connect(), "first", &token), "{}");
    server.kill();
    let server = launch.start();
    let mut connection = server.connect();
    for writer in 0..WRITERS {
        for round in ROUNDS - 20..ROUNDS {
            let client = client(round);
            let request = Request::of("GET", &client, &token::of(&user(writer), &client));
            let found = connection.request(&request);
            assert!(found.text() == document(writer, round), "{writer} {round}");
        }
    }
}

#[test]
fn too_few_descriptors_to_serve_anyone_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .after_shell("ulimit -n 30")
        .run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("(ulimit -n) is 30,"), "{}", ended.err);
}

#[test]
fn a_limit_that_may_be_raised_is_raised() {
    let dir = tempfile::tempdir().unwrap();
    let server = Launch::new(BINARY, dir.path())
        .with(&["--max-connections", "100"])
        .after_shell("ulimit -Hn 1000; ulimit -Sn 64")
        .start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let open = limits.lines().find(|l| l.starts_with("Max open files"));
    let soft: u64 = open
        .unwrap()
        .split_whitespace()
        .nth(3)
        .unwrap()
        .parse()
        .unwrap();
    assert!(soft > 300 && soft <= 1_000, "{soft}");
}
