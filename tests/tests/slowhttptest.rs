//! The attacks of the tool slowhttptest: slow heads (Slowloris), slow bodies (R-U-Dead-Yet) and
//! slow reads. Each attack opens more connections than the server allows, with a valid token. A
//! well-behaved client must get its responses within a second.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{alone, fresh, put};
use prefd_tests::hostile_clients::raise_fd_limit;
use prefd_tests::latency_probe::{KINDS, LatencyProbe};
use prefd_tests::process::killed_with_parent;
use prefd_tests::{machine, token};

const CONNECTIONS: usize = 1_500;
/// Connections that slowhttptest opens per second. It opens all of them in half a second.
const PER_SECOND: &str = "3000";
/// Duration of an attack. It is longer than [`MAX_P99`], so that a client that waits for the
/// end of the attack fails the test.
const SECONDS: &str = "6";
/// Highest allowed 99th percentile of the response times. It is below every timeout of the
/// server, so a response that waits for a timeout fails the test. It leaves room for the
/// attacking clients on the same two cores, and for the syncs of a slow disk.
const MAX_P99: Duration = Duration::from_secs(1);

/// Runs slowhttptest in the given mode together with a well-behaved client, and checks the
/// response times. `end` is slowhttptest's reason for its end.
fn check_attack(mode: &[&str], end: &str) {
    if !machine::has_slowhttptest() {
        return;
    }
    let _turn = alone();
    raise_fd_limit(CONNECTIONS);
    let (server, _dir) = fresh(&[]);
    let token = token::of("mallory", "xyz");
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(4_000_000));
    put(&mut server.connect(), "xyz", &token, &large);
    let mut probe = LatencyProbe::new(server.address);
    // slowhttptest copies this value of `Accept` into the head, so it can contain a header.
    let authorized = format!("*/*\r\nAuthorization: Bearer {token}");
    let url = format!("http://{}{}", server.address, common::target("xyz"));
    let mut attack = killed_with_parent("slowhttptest")
        .args(mode)
        .args([
            "-c",
            &CONNECTIONS.to_string(),
            "-r",
            PER_SECOND,
            "-l",
            SECONDS,
        ])
        .args(["-i", "1", "-p", "3", "-m", &authorized, "-u", &url])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("slowhttptest starts");
    let mut worst = [Duration::ZERO; KINDS.len()];
    let mut rounds = 0;
    while attack.try_wait().unwrap().is_none() {
        let waits = probe.round();
        for (worst, wait) in worst.iter_mut().zip(waits) {
            *worst = wait.max(*worst);
        }
        rounds += 1;
    }
    let output = attack.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains(end), "{mode:?}: {report}");
    for line in report
        .lines()
        .filter(|line| line.contains("service available"))
    {
        assert!(line.contains("YES"), "{mode:?}: {report}");
    }
    assert!(
        rounds > 0,
        "{mode:?}: expected at least one round of requests: {report}"
    );
    for (kind, worst) in KINDS.iter().zip(worst) {
        machine::report(&format!(
            "slowhttptest {}: p99 of {kind}: {worst:.1?}",
            mode[0]
        ));
        assert!(worst < MAX_P99, "{mode:?}: {kind}: {worst:?}");
    }
    assert!(!server.has_logged("panicked"));
}

#[test]
fn slow_heads_do_not_delay_a_well_behaved_client() {
    check_attack(&["-H"], "Hit test time limit");
}

/// The bodies of slowhttptest are not JSON, so the server refuses each body at its first
/// bytes. `hostile_clients.rs` tests slow bodies that the server does not refuse.
#[test]
fn slow_bodies_do_not_delay_a_well_behaved_client() {
    let content = ["-s", "1000000", "-f", "application/json"];
    let mode = [&["-B", "-t", "PUT"][..], &content].concat();
    check_attack(&mode, "No open connections left");
}

#[test]
fn slow_reads_do_not_delay_a_well_behaved_client() {
    let window = ["-w", "10", "-y", "20"];
    let mode = [&["-X", "-n", "1", "-z", "32", "-k", "3"][..], &window].concat();
    check_attack(&mode, "Hit test time limit");
}
