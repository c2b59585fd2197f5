//! Many more connections than file descriptors: idle connections wait, and writes always get the
//! file descriptors that they need.

mod common;

use std::net::TcpStream;

use common::{BINARY, get, put};
use prefd_tests::http::Request;
use prefd_tests::server::Launch;
use prefd_tests::token;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The shell command that limits the server to 68 file descriptors.
const LIMIT: &str = "ulimit -n 68";
/// The number of connections that the server accepts under that limit. The writers use all of
/// them.
const WRITERS: usize = 8;
const IDLE: usize = 1_000;
const ROUNDS: usize = 60;

/// Raises this process's limit of file descriptors, which is often 1,024. The test has the
/// client's side of all connections open.
fn raise_own_fd_limit() {
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

/// The document of one round. Every third document is large, so that it is stored in a blob.
fn document(writer: usize, round: usize) -> String {
    let bytes = if round.is_multiple_of(3) {
        400_000
    } else {
        9_000
    };
    format!("{{\"{writer}\":{round},\"pad\":\"{}\"}}", "p".repeat(bytes))
}

#[test]
fn thousand_idle_connections_do_not_make_writes_fail() {
    raise_own_fd_limit();
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
    // When connections close and free their file descriptors, waiting connections are served.
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
fn too_few_file_descriptors_prevent_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let ended = Launch::new(BINARY, dir.path())
        .after_shell("ulimit -n 30")
        .run();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.err.contains("(ulimit -n) is 30,"), "{}", ended.err);
}

#[test]
fn soft_file_descriptor_limit_is_raised_at_the_start() {
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
