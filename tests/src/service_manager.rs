//! A real systemd, as the first process of namespaces of its own, over a root file system
//! in memory that has the machine's `/usr`. It knows the units that it is given and no
//! others.
//!
//! For a test that is isolated already (`machine::is_isolated`): what is mounted here goes
//! with that test's own namespaces.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes systemd longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where distributions have it.
const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// Nodes that any program may want.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What units depend on unless they say otherwise, here without what a machine needs.
const TARGETS: [&str; 4] = ["basic", "boot", "shutdown", "sysinit"];

/// The running systemd. Killed when dropped, and everything that it has started with it.
#[derive(Debug)]
pub struct ServiceManager {
    root: PathBuf,
    child: Child,
    cgroup: PathBuf,
}

/// Whether systemd is there, and what else this takes.
pub fn is_there() -> bool {
    let has_cgroups = fs::read_to_string("/proc/filesystems")
        .is_ok_and(|systems| systems.lines().any(|line| line.ends_with("\tcgroup2")));
    has_cgroups && SYSTEMD.iter().any(|path| Path::new(path).exists())
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// The last part of a path, which in a temporary folder is like no other.
fn name(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str());
    name.expect("a name in UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

/// Makes a root file system in this folder: everything but `/proc`, `/sys` and `/dev`.
pub fn lay_root(root: &Path, program: &Path, program_path: &str) {
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
    // Of its own here already, so that systemd keeps it, and its sockets can be come to.
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
    // The program lies where the machine may have one of its own.
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
    /// Starts it over a root file system that was laid.
    pub fn start(root: &Path) -> Self {
        let systemd = SYSTEMD.iter().find(|path| Path::new(path).exists());
        let systemd = systemd.expect("systemd is there");
        // A control group of its own: mounted here to make it, and again inside, where it
        // is the topmost.
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

    /// Waits until somebody listens on a socket in its file system.
    fn wait_for_socket(&mut self, path: &str) {
        let began = Instant::now();
        while UnixStream::connect(self.root.join(path)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", self.said());
            assert!(began.elapsed() < PATIENCE, "{path}: {}", self.said());
            std::thread::yield_now();
        }
    }

    /// The process, as it is called here.
    fn pid(&self) -> String {
        let processes = fs::read_to_string(self.cgroup.join("init.scope/cgroup.procs"));
        let processes = processes.unwrap();
        processes.lines().next().expect("it runs").to_owned()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.root.join("root/log")).unwrap_or_default()
    }

    /// `systemctl` with these arguments: what it printed.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        // It does not talk to who is in none of its namespaces.
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.pid(), "systemctl"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {said}{}",
            self.said()
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
        remove_groups(&self.cgroup);
    }
}

/// Removes a control group, and those in it, whose processes are gone or about to be.
fn remove_groups(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let began = Instant::now();
    while fs::remove_dir(group).is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy)
        && began.elapsed() < PATIENCE
    {
        std::thread::yield_now();
    }
}
