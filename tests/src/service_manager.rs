//! Runs a real systemd as the first process of new namespaces.
//!
//! Its root file system is in memory, with the machine's `/usr` mounted read-only. systemd knows
//! only the units that the test installs.
//!
//! The calling test must run in its own namespaces (`machine::ensure_isolated`), so that the
//! kernel removes all mounts when the test exits.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for every operation of systemd.
const PATIENCE: Duration = Duration::from_secs(60);
/// Paths of systemd in different distributions.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// Device nodes that programs commonly need.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Targets that units depend on by default. Here they are empty, without the units that a real
/// machine starts.
const TARGETS: [&str; 4] = ["basic", "boot", "shutdown", "sysinit"];

/// A running systemd. Dropping it kills systemd and every process that systemd started.
#[derive(Debug)]
pub struct ServiceManager {
    root: PathBuf,
    child: Child,
    cgroup: PathBuf,
}

/// Returns true if systemd is installed and the kernel supports cgroup2.
pub fn is_available() -> bool {
    let has_cgroups = fs::read_to_string("/proc/filesystems")
        .is_ok_and(|systems| systems.lines().any(|line| line.ends_with("\tcgroup2")));
    has_cgroups && SYSTEMD.iter().any(|path| Path::new(path).exists())
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
}

/// The last component of a path. For a temporary directory, this is a unique name.
fn name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.expect("the path ends in a UTF-8 name")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

/// Creates a root file system in a directory, without the contents of `/proc`, `/sys` and `/dev`.
/// `program` is mounted at `program_path`.
pub fn create_root(root: &Path, program: &Path, program_path: &str) {
    run(
        "mount",
        &["-t", "tmpfs", "-o", "mode=755", "tmpfs", text(root)],
    );
    for folder in [
        "dev", "etc", "home", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "var",
    ] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    fs::create_dir(root.join("var/tmp")).unwrap();
    fs::create_dir_all(root.join("etc/systemd/system")).unwrap();
    // systemd keeps an existing mount on /run, so the sockets of systemd in it are reachable from
    // outside of its namespaces.
    run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "-o",
            "mode=755",
            "tmpfs",
            text(&root.join("run")),
        ],
    );
    let usr = root.join("usr");
    run("mount", &["--bind", "/usr", text(&usr)]);
    run("mount", &["-o", "remount,bind,ro", text(&usr)]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let (there, here) = (Path::new("/").join(name), root.join(name));
        if let Ok(target) = fs::read_link(&there) {
            symlink(target, &here).unwrap();
        } else if there.is_dir() {
            fs::create_dir(&here).unwrap();
            run("mount", &["--bind", text(&there), text(&here)]);
        }
    }
    // /usr/local is replaced, because the machine may have its own program at the same path.
    let place = root.join(program_path.trim_start_matches('/'));
    let local = root.join("usr/local");
    run(
        "mount",
        &["-t", "tmpfs", "-o", "mode=755", "tmpfs", text(&local)],
    );
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    fs::write(&place, "").unwrap();
    run("mount", &["--bind", text(program), text(&place)]);
    let _ = fs::copy("/etc/ld.so.cache", root.join("etc/ld.so.cache"));
    fs::write(
        root.join("etc/nsswitch.conf"),
        "passwd: files\ngroup: files\n",
    )
    .unwrap();
    fs::write(root.join("etc/machine-id"), format!("{:032x}\n", 7)).unwrap();
    for target in TARGETS {
        let unit = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        let path = root.join(format!("etc/systemd/system/{target}.target"));
        fs::write(path, unit).unwrap();
    }
}

impl ServiceManager {
    /// Starts systemd on a root file system that [`create_root`] has prepared.
    pub fn start(root: &Path) -> Self {
        let systemd = SYSTEMD.iter().find(|path| Path::new(path).exists());
        let systemd = systemd.expect("systemd is installed");
        // systemd gets its own cgroup. It is created through this mount. The second mount, inside
        // of the cgroup namespace, shows it as the root.
        let groups = root.join("sys");
        run("mount", &["-t", "cgroup2", "cgroup2", text(&groups)]);
        let cgroup = groups.join(format!("prefd-test{}", name(root)));
        fs::create_dir(&cgroup).unwrap();
        let devices =
            DEVICES.map(|name| format!("touch dev/{name}; mount --bind /dev/{name} dev/{name}\n"));
        let script = format!(
            "echo $$ > {cgroup}/cgroup.procs\n\
             exec unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup \
             --propagation private sh -euc '\n\
             cd {root}\n\
             mount -t proc proc proc\n\
             mount --bind -o ro proc/sys proc/sys\n\
             mount -o remount,bind,ro proc/sys\n\
             umount sys\n\
             mount -t sysfs -o ro sysfs sys\n\
             mount -t cgroup2 cgroup2 sys/fs/cgroup\n\
             mount -t tmpfs -o mode=755 tmpfs dev\n\
             {devices}\
             mkdir dev/shm dev/pts\n\
             mount -t tmpfs tmpfs dev/shm\n\
             mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts\n\
             ln -s pts/ptmx dev/ptmx\n\
             pivot_root . mnt\n\
             umount -l /mnt\n\
             mount --make-rshared /\n\
             exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
             SYSTEMD_UNIT_PATH=/etc/systemd/system {systemd} --system --unit=boot.target \
             --log-target=console --show-status=0'\n",
            cgroup = cgroup.display(),
            root = root.display(),
            devices = devices.concat(),
        );
        let log = fs::File::create(root.join("root/log")).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-euc", &script])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("setpriv starts");
        let mut manager = Self {
            root: root.to_owned(),
            child,
            cgroup,
        };
        manager.wait_for_socket("run/systemd/private");
        manager
    }

    /// Waits until systemd accepts connections on a socket in its file system.
    fn wait_for_socket(&mut self, path: &str) {
        let began = Instant::now();
        while UnixStream::connect(self.root.join(path)).is_err() {
            let exited = self.child.try_wait().unwrap();
            assert_eq!(exited, None, "systemd exited: {}", self.log());
            assert!(
                began.elapsed() < PATIENCE,
                "systemd does not listen on {path}: {}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    /// The process id of systemd in the namespace of the test.
    fn pid(&self) -> String {
        let processes = fs::read_to_string(self.cgroup.join("init.scope/cgroup.procs"));
        let processes = processes.unwrap();
        processes
            .lines()
            .next()
            .expect("systemd is running")
            .to_owned()
    }

    /// The log of systemd up to now.
    pub fn log(&self) -> String {
        fs::read_to_string(self.root.join("root/log")).unwrap_or_default()
    }

    /// Runs `systemctl` with the given arguments, and returns its output.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        // systemd rejects clients from other namespaces, so systemctl runs inside of them.
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.pid(), "systemctl"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "systemctl {arguments:?} failed: {stderr}{}",
            self.log()
        );
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// Removes a cgroup and its child cgroups. Their processes have exited or are about to exit.
fn remove_cgroups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    let began = Instant::now();
    while fs::remove_dir(group).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
        && began.elapsed() < PATIENCE
    {
        std::thread::yield_now();
    }
}
