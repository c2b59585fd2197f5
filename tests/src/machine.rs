//! What a test needs of the machine besides a file system and a loopback: tools and
//! privileges that are not everywhere.
//!
//! A test that lacks one says on standard error that it is skipped. Where
//! `PREFD_TEST_REQUIRE_ALL=1` it fails instead: `.ci/run` sets that where it has seen
//! that the machine has everything.

use std::ffi::OsStr;
use std::io::{Write, stderr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{browser, oidc_provider, schemathesis, service_manager};

const REQUIRE_ALL: &str = "PREFD_TEST_REQUIRE_ALL";
/// Set for a test that was started again in namespaces of its own.
const ISOLATED: &str = "PREFD_TEST_ISOLATED";
const ROOT: &str = "0";

/// Says past the capture of passing tests' output that a test is skipped.
///
/// # Panics
/// Where everything is required.
fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    assert!(
        std::env::var(REQUIRE_ALL).as_deref() != Ok("1"),
        "{test}: {reason}, and {REQUIRE_ALL} is set"
    );
    let _ = writeln!(stderr(), "SKIPPED {test}: {reason}");
}

/// Reports a figure past the capture of passing tests' output.
pub fn report(figure: &str) {
    let _ = writeln!(stderr(), "{figure}");
}

fn succeeds(program: impl AsRef<OsStr>, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether strace is there and may trace; where not, the test is skipped.
pub fn has_strace() -> bool {
    let has = succeeds("strace", &["-f", "-o", "/dev/null", "true"]);
    if !has {
        skip("strace is not installed, or may not trace");
    }
    has
}

/// Whether systemd's own tool can hand a socket over; where not, the test is skipped.
pub fn has_socket_activation() -> bool {
    let has = succeeds("systemd-socket-activate", &["--version"]);
    if !has {
        skip("systemd-socket-activate is not installed");
    }
    has
}

/// Whether slowhttptest is there; where not, the test is skipped.
pub fn has_slowhttptest() -> bool {
    let has = succeeds("sh", &["-c", "command -v slowhttptest"]);
    if !has {
        skip("slowhttptest is not installed");
    }
    has
}

/// Where to look for programs: a proxy may be where only root's shell looks.
pub fn program_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// Whether all of these programs are there; where not, the test is skipped.
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

/// Whether there is a systemd that a test can have as the first process of namespaces;
/// where not, the test is skipped.
pub fn has_service_manager() -> bool {
    let has = service_manager::is_there();
    if !has {
        skip("systemd is not installed, or the kernel has no cgroup2");
    }
    has && has_programs(&["systemctl", "pivot_root", "nsenter", "curl"])
}

/// Whether the real identity provider is there; where not, the test is skipped.
pub fn has_oidc_provider() -> bool {
    let module = oidc_provider::folder().join("node_modules/oidc-provider/package.json");
    let has = succeeds("node", &["--version"]) && module.is_file();
    if !has {
        skip("oidc-provider is not installed: npm ci --prefix tests/issuer");
    }
    has
}

/// Whether there is a browser; where not, the test is skipped.
pub fn has_browser() -> bool {
    let has = succeeds(browser::PROGRAM, &["--version"]);
    if !has {
        skip("chromium is not installed");
    }
    has
}

/// Whether the programs for OpenAPI are there; where not, the test is skipped.
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

/// Whether there is a tool that makes this file system, and the kernel has it.
fn has_file_system(name: &str) -> bool {
    let makes = format!("command -v mkfs.{name}");
    let mounts = format!("grep -qw {name} /proc/filesystems || modprobe -q {name}");
    succeeds("sh", &["-c", &makes]) && succeeds("sh", &["-c", &mounts])
}

/// Whether the calling test, named `test`, is to go on here: it is when it has been
/// started again as root of mount and process namespaces of its own. So whatever it
/// mounts and starts is gone when it ends, however it ends: the kernel sees to that.
///
/// Where it is not, it is started again so, and has passed when this returns, or it is
/// skipped, where the machine does not allow that, or cannot make and mount one of
/// `file_systems`.
///
/// # Panics
/// Where the test that was started fails.
pub fn is_isolated(test: &str, file_systems: &[&str]) -> bool {
    if std::env::var_os(ISOLATED).is_some() {
        return true;
    }
    if let Some(missing) = file_systems.iter().find(|name| !has_file_system(name)) {
        skip(&format!("{missing} cannot be made or mounted"));
        return false;
    }
    // Killed with the thread that waits here.
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
        skip("it takes root that may mount, and loop devices");
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
    let said = String::from_utf8_lossy(&isolated.stdout);
    // None is run where it has another name.
    assert!(
        isolated.status.success() && said.contains("1 passed"),
        "{test}, in namespaces of its own: {}: {said}",
        isolated.status
    );
    false
}
