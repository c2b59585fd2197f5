//! The attacks of slowhttptest, the tool that others test their servers with: slow heads
//! (Slowloris), slow bodies (R-U-Dead-Yet) and slow reads. More connections than are
//! served at a time, of clients with a good token; a good client is served beside them.

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{alone, fresh, put};
use prefd_tests::bystander::{Bystander, KINDS};
use prefd_tests::crowd::raise_own_limit;
use prefd_tests::process::dying_with_us;
use prefd_tests::{machine, token};

const CONNECTIONS: usize = 1_500;
/// All of them come in half a second, and then they hold on for longer than the good
/// client may be kept waiting.
const PER_SECOND: &str = "3000";
const SECONDS: &str = "6";
/// Less than any timeout of the server, so a wait for one of those is seen; more than
/// what two cores need for the clients of this, too, and the syncs of a slow disk.
const SOON: Duration = Duration::from_secs(1);

/// Runs it in this mode, to this end, and a good client for as long.
fn withstands(mode: &[&str], end: &str) {
    if !machine::has_slowhttptest() {
        return;
    }
    let _turn = alone();
    raise_own_limit(CONNECTIONS);
    let (server, _dir) = fresh(&[]);
    let token = token::of("mallory", "xyz");
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(4_000_000));
    put(&mut server.connect(), "xyz", &token, &large);
    let mut bystander = Bystander::new(server.address);
    // It puts this value into the head as it is.
    let authorized = format!("*/*\r\nAuthorization: Bearer {token}");
    let url = format!("http://{}{}", server.address, common::target("xyz"));
    let mut attack = dying_with_us("slowhttptest")
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
        .expect("it starts");
    let mut worst = [Duration::ZERO; KINDS.len()];
    let mut rounds = 0;
    while attack.try_wait().unwrap().is_none() {
        let waits = bystander.round();
        for (worst, wait) in worst.iter_mut().zip(waits) {
            *worst = wait.max(*worst);
        }
        rounds += 1;
    }
    let said = attack.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(end), "{mode:?}: {said}");
    for line in said
        .lines()
        .filter(|line| line.contains("service available"))
    {
        assert!(line.contains("YES"), "{mode:?}: {said}");
    }
    assert!(rounds > 0, "{mode:?}: no round: {said}");
    for (kind, worst) in KINDS.iter().zip(worst) {
        machine::report(&format!(
            "slowhttptest {}: p99 of {kind}: {worst:.1?}",
            mode[0]
        ));
        assert!(worst < SOON, "{mode:?}: {kind}: {worst:?}");
    }
    assert!(!server.has_logged("panicked"));
}

#[test]
fn slow_heads() {
    withstands(&["-H"], "Hit test time limit");
}

/// What it drips is no JSON, so each is refused at its first bytes. Those that go on are
/// in `hostile.rs`.
#[test]
fn slow_bodies() {
    let content = ["-s", "1000000", "-f", "application/json"];
    let mode = [&["-B", "-t", "PUT"][..], &content].concat();
    withstands(&mode, "No open connections left");
}

#[test]
fn slow_reads() {
    let window = ["-w", "10", "-y", "20"];
    let mode = [&["-X", "-n", "1", "-z", "32", "-k", "3"][..], &window].concat();
    withstands(&mode, "Hit test time limit");
}
