//! Owners and permissions of the files in a data directory.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use common::{BINARY, get, put};
use prefd_tests::server::{CommandOutput, Launch, prefd};
use prefd_tests::{machine, token};

/// The user and the group of the data directory: a user and a group without rights (`nobody` and
/// `nogroup` on Debian).
const OWNER: u32 = 65534;
/// The permissions of the group and of other users.
const FOREIGN_BITS: u32 = 0o077;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Returns a directory, and all files and directories in it.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn check_owner(dir: &Path, context: &str) {
    for path in tree(dir) {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let owner = (metadata.uid(), metadata.gid());
        assert_eq!(owner, (OWNER, OWNER), "{context}: {}", path.display());
    }
}

/// A folder that every user can open, with an empty data directory of [`OWNER`], files of root
/// that only root can read, and a copy of the binary that every user can run.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let machine = Self { folder };
        fs::copy(BINARY, machine.path("prefd")).unwrap();
        machine.create_owned("data");
        let line = |user: &str, bytes: usize| {
            let value = "x".repeat(bytes);
            format!("{{\"user\":\"{user}\",\"client\":\"c\",\"document\":{{\"a\":\"{value}\"}}}}\n")
        };
        let lines = line("alice", 300_000) + &line("bob", 1) + &line("alice", 400_000);
        fs::create_dir(machine.path("root-only")).unwrap();
        fs::write(machine.path("root-only/lines"), lines).unwrap();
        let private = Permissions::from_mode(0o700);
        fs::set_permissions(machine.path("root-only"), private).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Creates an empty directory of [`OWNER`].
    fn create_owned(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        chown(self.path(name), Some(OWNER), Some(OWNER)).unwrap();
    }

    /// Runs a command as [`OWNER`].
    fn run_as_owner(&self, arguments: &[&str]) -> CommandOutput {
        let [uid, gid] = ["--reuid=65534", "--regid=65534"];
        let binary = self.path("prefd");
        let setpriv = [uid, gid, "--clear-groups", text(&binary)];
        prefd("setpriv", &[&setpriv[..], arguments].concat())
    }
}

/// Runs a command as root, and expects success.
fn run_as_root(arguments: &[&str]) {
    let ended = prefd(BINARY, arguments);
    assert_eq!(ended.status.code(), Some(0), "{arguments:?}: {ended:?}");
}

#[test]
fn offline_commands_of_root_keep_the_owner_of_the_directory() {
    if !machine::is_root() {
        return;
    }
    let machine = Machine::new();
    let data = machine.path("data");
    let data_dir = ["--data-dir", text(&data)];
    let (lines, backup) = (
        machine.path("root-only/lines"),
        machine.path("root-only/backup"),
    );
    let export = machine.path("root-only/export");
    for command in [
        &["import", "--from", text(&lines)][..],
        &["compact"],
        &["verify"],
        &["stats"],
        &["backup", "--to", text(&backup)],
        &["export", "--to", text(&export)],
        &["erase", "--user", "alice"],
        &["import", "--from", text(&export)],
    ] {
        run_as_root(&[command, &data_dir].concat());
        check_owner(&data, command[0]);
    }
    // The new files of root outside the data directory belong to root.
    for file in [&backup, &export] {
        assert_eq!(fs::metadata(file).unwrap().uid(), 0, "{}", file.display());
    }
    let exported = machine.run_as_owner(&[&["export"][..], &data_dir].concat());
    assert_eq!(exported.status.code(), Some(0), "{exported:.2000?}");
    assert_eq!(exported.out.lines().count(), 2);
}

#[test]
fn restore_of_root_keeps_the_owner_of_the_directory() {
    if !machine::is_root() {
        return;
    }
    let machine = Machine::new();
    let (data, lines) = (machine.path("data"), machine.path("root-only/lines"));
    let data_dir = ["--data-dir", text(&data)];
    run_as_root(&[&["import", "--from", text(&lines)][..], &data_dir].concat());
    let backup = machine.path("root-only/backup");
    run_as_root(&[&["backup", "--to", text(&backup)][..], &data_dir].concat());
    machine.create_owned("existing");
    machine.create_owned("parent");
    for target in ["existing", "parent/new"] {
        let target = machine.path(target);
        let restore = ["restore", "--from", text(&backup)];
        run_as_root(&[&restore[..], &["--data-dir", text(&target)]].concat());
        check_owner(&target, "restore");
        let exported = machine.run_as_owner(&["export", "--data-dir", text(&target)]);
        assert_eq!(exported.out.lines().count(), 2, "{:.2000}", exported.err);
    }
}

#[test]
fn server_of_root_refuses_a_directory_of_another_user() {
    if !machine::is_root() {
        return;
    }
    let machine = Machine::new();
    let data = machine.path("data");
    let launch = Launch::new(BINARY, &data);
    let refused = launch.run();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for words in ["belongs to user 65534", "sudo -u '#65534'", text(&data)] {
        assert!(refused.err.contains(words), "{}", refused.err);
    }
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    chown(&data, Some(0), Some(0)).unwrap();
    assert!(launch.start().stop().success());
}

/// Expects that no other user has access to the files and directories of the store.
fn check_private(data_dir: &Path) {
    for path in tree(data_dir).iter().filter(|path| *path != data_dir) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & FOREIGN_BITS, 0, "{mode:o} {}", path.display());
    }
}

#[test]
fn catalogue_is_private_in_an_existing_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).unwrap();
    // With this umask, every user could read the files that a program creates.
    let launch = Launch::new(BINARY, &data_dir).after_shell("umask 022");
    let token = token::of("alice", "xyz");
    let server = launch.start();
    put(&mut server.connect(), "xyz", &token, "{}");
    let catalogue = data_dir.join("catalogue");
    // The catalogue is opened in the background.
    common::wait_until("the catalogue is opened", || {
        catalogue.join("sled/db").exists()
    });
    let mode = fs::metadata(&catalogue).unwrap().permissions().mode();
    assert_eq!(mode & FOREIGN_BITS, 0, "{mode:o}");
    assert!(server.stop().success());
    check_private(&data_dir);
    // A catalogue that an earlier version has created.
    let mut catalogue_files = tree(&catalogue);
    catalogue_files.reverse();
    for path in catalogue_files {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let server = launch.start();
    assert_eq!(get(&mut server.connect(), "xyz", &token), "{}");
    assert!(server.stop().success());
    check_private(&data_dir);
}

#[test]
fn directory_that_everyone_can_write_causes_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    fs::create_dir(&data_dir).unwrap();
    let words = "every user of this machine can change the stored documents";
    for (mode, warns) in [(0o777, true), (0o1777, true), (0o775, false)] {
        fs::set_permissions(&data_dir, Permissions::from_mode(mode)).unwrap();
        let server = Launch::new(BINARY, &data_dir).start();
        let ended = server.stop_with_log();
        assert!(ended.status.success());
        assert_eq!(ended.err.contains(words), warns, "{mode:o}");
    }
    fs::set_permissions(data_dir.join("log"), Permissions::from_mode(0o707)).unwrap();
    let server = Launch::new(BINARY, &data_dir).start();
    server.wait_for_log(words);
    assert!(server.has_logged(text(&data_dir.join("log"))));
}
