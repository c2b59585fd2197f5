//! Checks for tools and privileges that not every machine has.
//!
//! A test that lacks a tool or a privilege prints to standard error that it is skipped. With
//! `PREFD_TEST_REQUIRE_ALL=1` the test fails instead. `.ci/run` sets this variable on machines
//! that have everything.

use std::ffi::OsStr;
use std::io::{Write, stderr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{browser, oidc_provider, schemathesis, service_manager};

const REQUIRE_ALL: &str = "PREFD_TEST_REQUIRE_ALL";
/// Set when a test runs again in its own namespaces.
const ISOLATED: &str = "PREFD_TEST_ISOLATED";
const ROOT: &str = "0";

/// Prints that a test is skipped, bypassing the output capture of the test harness.
///
/// # Panics
/// Panics if `PREFD_TEST_REQUIRE_ALL=1` is set.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    assert!(
        std::env::var(REQUIRE_ALL).as_deref() != Ok("1"),
        "{test} must not be skipped because {REQUIRE_ALL}=1 is set: {reason}"
    );
    let _ = writeln!(stderr(), "SKIPPED {test}: {reason}");
}

/// Prints a measurement, bypassing the output capture of the test harness.
pub fn report(figure: &str) {
    let _ = writeln!(stderr(), "{figure}");
}

fn succeeds(program: impl AsRef<OsStr>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Returns true if strace is installed and may trace. Otherwise reports the test as skipped.
pub fn has_strace() -> bool {
    let has = succeeds("strace", &["-f", "-o", "/dev/null", "true"]);
    if !has {
        skip("strace is not installed, or lacks the permission to trace");
    }
    has
}

/// Returns true if the test runs as root. Otherwise reports the test as skipped.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    let is_root = id.is_ok_and(|id| id.stdout.trim_ascii() == ROOT.as_bytes());
    if !is_root {
        skip("the test needs root");
    }
    is_root
}

/// Returns true if a test can start a process in its own process namespace. Otherwise reports the
/// test as skipped.
pub fn has_process_namespaces() -> bool {
    let has = succeeds("unshare", &["--pid", "--fork", "true"]);
    if !has {
        skip("the test needs the permission to create a process namespace");
    }
    has
}

/// Returns true if systemd-socket-activate is installed. Otherwise reports the test as skipped.
pub fn has_socket_activation() -> bool {
    let has = succeeds("systemd-socket-activate", &["--version"]);
    if !has {
        skip("systemd-socket-activate is not installed");
    }
    has
}

/// Returns true if slowhttptest is installed. Otherwise reports the test as skipped.
pub fn has_slowhttptest() -> bool {
    let has = succeeds("sh", &["-c", "command -v slowhttptest"]);
    if !has {
        skip("slowhttptest is not installed");
    }
    has
}

/// The search path for programs. Proxies are often installed in `sbin` directories, which are not
/// on every user's path.
pub fn program_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// Returns true if all of the programs are installed. Otherwise reports the test as skipped.
pub fn has_programs(programs: &[&str]) -> bool {
    let path = program_path();
    let is_there = |program: &str| {
        let mut folders = path.split(':');
        folders.any(|folder| Path::new(folder).join(program).is_file())
    };
    let missing = programs.iter().find(|program| !is_there(program));
    if let Some(missing) = missing {
        skip(&format!("{missing} is not installed"));
    }
    missing.is_none()
}

/// Returns true if a test can run systemd in its own namespaces. Otherwise reports the test as
/// skipped.
pub fn has_service_manager() -> bool {
    let has = service_manager::is_available();
    if !has {
        skip("systemd is not installed, or the kernel has no cgroup2");
    }
    has && has_programs(&["systemctl", "pivot_root", "nsenter", "curl"])
}

/// Returns true if oidc-provider is installed. Otherwise reports the test as skipped.
pub fn has_oidc_provider() -> bool {
    let module = oidc_provider::folder().join("node_modules/oidc-provider/package.json");
    let has = succeeds("node", &["--version"]) && module.is_file();
    if !has {
        skip("oidc-provider is not installed: npm ci --prefix tests/issuer");
    }
    has
}

/// Returns true if Chromium is installed. Otherwise reports the test as skipped.
pub fn has_browser() -> bool {
    let has = succeeds(browser::PROGRAM, &["--version"]);
    if !has {
        skip("chromium is not installed");
    }
    has
}

/// Returns true if schemathesis is installed. Otherwise reports the test as skipped.
pub fn has_schemathesis() -> bool {
    let has = succeeds(schemathesis::program("schemathesis"), &["--version"]);
    if !has {
        skip(
            "schemathesis is not installed: python3 -m venv tests/schemathesis/venv && \
             tests/schemathesis/venv/bin/pip install -r tests/schemathesis/requirements.txt",
        );
    }
    has
}

/// Returns true if the machine can create and mount a kind of file system.
fn has_file_system(name: &str) -> bool {
    let makes = format!("command -v mkfs.{name}");
    let mounts = format!("grep -qw {name} /proc/filesystems || modprobe -q {name}");
    succeeds("sh", &["-c", &makes]) && succeeds("sh", &["-c", &mounts])
}

/// Runs the calling test again in its own mount and process namespaces, as root.
///
/// The kernel removes all mounts and processes of the test when it exits, even if it is killed.
///
/// `test` is the name of the calling test. A test must return at once if this function returns
/// false:
///
/// - In the second run, which is isolated, the function returns true.
/// - In the first run, the function starts the second run, waits until it has passed, and returns
///   false.
/// - If the machine does not allow isolation, or cannot create and mount one of `file_systems`,
///   the function reports the test as skipped, and returns false.
///
/// # Panics
/// Panics if the second run fails.
pub fn ensure_isolated(test: &str, file_systems: &[&str]) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    if let Some(missing) = file_systems.iter().find(|name| !has_file_system(name)) {
        skip(&format!(
            "this machine cannot create or mount {missing} file systems"
        ));
        return false;
    }
    // The child is killed if the thread that waits for it exits.
    let wrapper = ["--pdeathsig", "KILL", "unshare", "--fork", "--kill-child"];
    let namespaces = [
        "--pid",
        "--mount",
        "--mount-proc",
        "--propagation",
        "private",
    ];
    let isolated = [&wrapper[..], &namespaces].concat();
    let is_root = Command::new("id").arg("-u").output();
    let is_root = is_root.is_ok_and(|id| id.stdout.trim_ascii() == ROOT.as_bytes());
    let may_mount = [&isolated[..], &["sh", "-c", "losetup --find"]].concat();
    if !is_root || !succeeds("setpriv", &may_mount) {
        skip("the test needs root with permission to mount, and loop devices");
        return false;
    }
    let isolated = Command::new("setpriv")
        .args(isolated)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ISOLATED, "1")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&isolated.stdout);
    // With a wrong test name, the test harness runs nothing and succeeds.
    assert!(
        isolated.status.success() && output.contains("1 passed"),
        "{test} failed in its own namespaces: {}: {output}",
        isolated.status
    );
    false
}
