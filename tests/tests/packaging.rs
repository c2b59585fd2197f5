//! The systemd units and the Containerfile of docs/deploy. `systemd-analyze` checks the units,
//! and a real systemd runs them in their sandbox.

mod common;

use std::fs;
use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::{BINARY, wait_until};
use prefd_tests::http::{Request, Response};
use prefd_tests::service_manager::{self, ServiceManager};
use prefd_tests::{machine, token};

/// Path of the `prefd` binary in the units.
const INSTALLED: &str = "/usr/local/bin/prefd";
const UNITS: [&str; 4] = [
    "prefd.service",
    "prefd.socket",
    "prefd-backup.service",
    "prefd-backup.timer",
];
/// Highest exposure level that `systemd-analyze security` may report, times ten. The levels
/// range from 0 (best) to 100 (worst).
const MAX_EXPOSURE: &str = "--threshold=15";
/// How long the test waits for a response.
const PATIENCE: Duration = Duration::from_secs(20);
const ADMIN_TOKEN: &str = "admin-token-of-this-test";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the text of a file in docs/deploy.
fn deployed(name: &str) -> String {
    fs::read_to_string(repository().join("docs/deploy").join(name)).unwrap()
}

fn analyze(arguments: &[&str]) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).env("SYSTEMD_PAGER", "cat");
    command.output().expect("systemd-analyze starts")
}

#[test]
fn units_pass_systemd_analyze_verify() {
    if !machine::has_programs(&["systemd-analyze"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = vec!["verify".to_owned(), "--man=no".to_owned()];
    for unit in UNITS {
        let path = folder.path().join(unit);
        fs::write(&path, deployed(unit).replace(INSTALLED, BINARY)).unwrap();
        arguments.push(path.to_str().unwrap().to_owned());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let verified = analyze(&arguments);
    let report = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success(), "{report}");
    // The output may also report problems of other units of this machine.
    assert!(!report.contains("prefd"), "{report}");
}

#[test]
fn services_stay_below_the_exposure_limit() {
    if !machine::has_programs(&["systemd-analyze"]) {
        return;
    }
    for unit in ["prefd.service", "prefd-backup.service"] {
        let path = repository().join("docs/deploy").join(unit);
        let path = path.to_str().unwrap();
        let analysis = analyze(&["security", "--offline=true", MAX_EXPOSURE, path]);
        let report = String::from_utf8_lossy(&analysis.stdout);
        assert!(analysis.status.success(), "{report}");
        let level = report.lines().find(|line| line.contains("exposure level"));
        machine::report(level.expect("the report has an exposure level"));
    }
}

#[test]
fn containerfile_names_existing_files_and_settings() {
    let text = deployed("Containerfile").replace("\\\n", " ");
    let words = |instruction: &str| {
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(instruction));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let mut copied = 0;
    for copy in words("COPY ") {
        let (_, sources) = copy.split_last().unwrap();
        if sources.iter().all(|word| !word.starts_with("--")) {
            for source in sources {
                assert!(repository().join(source).exists(), "{source}");
                copied += 1;
            }
        }
    }
    assert!(copied >= 6, "{copied}");
    // Every variable must be a setting, with a valid value.
    let variables: Vec<_> = words("ENV ").concat();
    let variables: Vec<_> = variables.iter().filter_map(|v| v.split_once('=')).collect();
    assert!(variables.iter().any(|(name, _)| *name == "PREFD_LISTEN"));
    let show = Command::new(BINARY)
        .args(["config", "show"])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let shown = String::from_utf8(show.stdout).unwrap();
    for (name, value) in variables {
        let line = shown
            .lines()
            .find(|line| line.ends_with(&format!("# {name}")));
        assert!(
            line.is_some_and(|line| line.contains(value)),
            "{name}: {shown}"
        );
    }
}

/// Creates the root of a machine on which the units of docs/deploy are installed as
/// docs/operations.md describes.
fn install(root: &Path) {
    service_manager::create_root(root, Path::new(BINARY), INSTALLED);
    let etc = |name: &str, text: &str, mode: u32| {
        let path = root.join("etc").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let accounts = "root:x:0:0::/root:/bin/sh\n\
                    prefd:x:900:900::/var/lib/prefd:/usr/sbin/nologin\n";
    etc("passwd", accounts, 0o644);
    etc("group", "root:x:0:\nprefd:x:900:\nwww-data:x:33:\n", 0o644);
    let settings = "jwt-hs256-secret-file = \"/etc/prefd/jwt-secret\"\n";
    etc("prefd/prefd.toml", settings, 0o644);
    etc("prefd/jwt-secret", token::SECRET, 0o644);
    etc("prefd/admin-token", ADMIN_TOKEN, 0o600);
    for unit in UNITS {
        etc(&format!("systemd/system/{unit}"), &deployed(unit), 0o644);
    }
    // The test runs without a journal, so the service writes its log to a file.
    let log =
        "[Service]\nStandardOutput=append:/run/prefd.log\nStandardError=append:/run/prefd.log\n";
    etc("systemd/system/prefd.service.d/log.conf", log, 0o644);
}

/// Returns the /proc directory of the `prefd` process that systemd has started.
fn main_process() -> PathBuf {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut processes = processes.map(|entry| entry.path()).filter(|path| {
        let name = fs::read_to_string(path.join("comm"));
        name.is_ok_and(|name| name == "prefd\n")
    });
    processes.next().expect("systemd has started prefd")
}

/// Checks that the kernel enforces the restrictions of the unit.
fn check_sandbox(process: &Path) {
    let status = fs::read_to_string(process.join("status")).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("expected {name} in {status}"))
            .trim()
    };
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("Seccomp:"), "2");
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(value(set), 16), Ok(0), "{set}");
    }
    assert!(value("Uid:").starts_with("900\t"), "{status}");
    let mounts = fs::read_to_string(process.join("mounts")).unwrap();
    let options = |at: &str| {
        let mut mounts = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let mount = mounts.rfind(|mount| mount[1] == at);
        mount.unwrap_or_else(|| panic!("expected {at} among the mounts {mounts:?}"))[3].to_owned()
    };
    assert!(options("/").starts_with("ro"), "{mounts}");
    assert!(options("/var/lib/prefd").starts_with("rw"), "{mounts}");
}

#[test]
fn installed_units_run_prefd_in_a_sandbox_under_systemd() {
    if !machine::has_service_manager()
        || !machine::ensure_isolated("installed_units_run_prefd_in_a_sandbox_under_systemd", &[])
    {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    install(root);
    let manager = ServiceManager::start(root);
    let log = || fs::read_to_string(root.join("run/prefd.log")).unwrap_or_default();
    let try_request = |request: &Request| {
        // systemd listens on the socket, so a connection is never refused.
        let mut stream = UnixStream::connect(root.join("run/prefd.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&request.bytes())?;
        Response::read(&mut BufReader::new(stream), false)
    };
    let send = |request: &Request| {
        try_request(request).unwrap_or_else(|error| {
            let service = manager.systemctl(&["show", "prefd.service"]);
            panic!("{error}: {} {service}", log())
        })
    };
    let property = |name: &str| manager.systemctl(&["show", "-P", name, "prefd.service"]);

    // The first connection makes systemd start the service.
    manager.systemctl(&["start", "prefd.socket"]);
    let token = token::of("alice", "xyz");
    let get = Request::of("GET", "xyz", &token);
    let large = format!("{{\"large\":\"{}\"}}", "x".repeat(3_000_000));
    for body in ["{\"small\":1}", &large] {
        let put = send(&Request::of("PUT", "xyz", &token).body(body));
        assert_eq!(put.status, 204, "{put:?} {}", log());
        assert_eq!(send(&get).text(), body);
    }
    assert_eq!(
        property("ActiveState"),
        "active",
        "expected the service to have reported that it is ready"
    );
    let process = main_process();
    check_sandbox(&process);
    let data = fs::metadata(root.join("var/lib/prefd")).unwrap();
    assert_eq!(data.permissions().mode() & 0o7777, 0o700);

    // `ProtectProc=invisible` must not hide the files that the process metrics need.
    let pid = process.file_name().unwrap().to_str().unwrap();
    let metrics = Command::new("nsenter")
        .args(["--net", "--target", pid, "curl", "--silent", "--header"])
        .arg(format!("Authorization: Bearer {ADMIN_TOKEN}"))
        .arg("http://127.0.0.1:8081/metrics")
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    for name in [
        "open_fds",
        "max_fds",
        "start_time_seconds",
        "resident_memory_bytes",
    ] {
        assert!(
            metrics.contains(&format!("\nprocess_{name} ")),
            "{name}: {metrics}"
        );
    }
    assert!(
        metrics.contains("\nprefd_http_connections_max 1024\n"),
        "{metrics}"
    );

    manager.systemctl(&["reload", "prefd.service"]);
    // The reload may return before the log line is written.
    wait_until("the reload to be logged", || {
        log().contains("reload completed what=\"log\"")
    });
    manager.systemctl(&["start", "prefd-backup.service"]);
    let backups = fs::read_dir(root.join("var/lib/private/prefd-backup")).unwrap();
    assert_eq!(backups.count(), 1);

    // During a restart, new connections wait at the socket. A request fails only if the old
    // process accepted its connection, and was stopped before it read the request. This can
    // happen to at most one request of a client that sends its requests one by one.
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| manager.systemctl(&["restart", "prefd.service"]));
        let (mut responses, mut dropped) = (0, 0);
        while responses == 0 || !restart.is_finished() {
            match try_request(&get) {
                Ok(response) => {
                    assert_eq!(response.text(), large);
                    responses += 1;
                }
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "{}", log());
                    dropped += 1;
                }
            }
            assert!(dropped <= 1, "{}", log());
        }
    });
    assert_eq!(send(&get).text(), large);
    manager.systemctl(&["stop", "prefd.socket", "prefd.service"]);
    assert_eq!(property("Result"), "success");
    assert_eq!(property("ExecMainStatus"), "0");
    assert_eq!(property("NRestarts"), "0");
}
