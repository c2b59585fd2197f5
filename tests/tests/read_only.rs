//! `prefd verify`, `stats`, `export --data-dir` and `backup --data-dir` change nothing in a data
//! directory, so they also work on a file system that is mounted read-only, and with the permission
//! to read only. Commands that need to write say what they cannot write, and why.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{BINARY, put};
use prefd_tests::directory_state::{assert_unchanged, directory_state};
use prefd_tests::http::Request;
use prefd_tests::loop_mount::run;
use prefd_tests::machine::ensure_isolated;
use prefd_tests::server::{CommandOutput, Launch, prefd, prefd_with};
use prefd_tests::token;
use rustix::process::geteuid;
use serde_json::Value;

/// A user and a group without rights (`nobody` and `nogroup` on Debian).
const NOBODY: u32 = 65534;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// How the server that wrote a data directory ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Killed,
}

const ENDS: [End; 2] = [End::Closed, End::Killed];

/// Writes documents to a data directory: small ones, a large one, replaced and deleted ones.
fn create_store(dir: &Path, end: End) {
    let server = Launch::new(BINARY, dir).start();
    let mut connection = server.connect();
    for round in 0..2 {
        for user in ["alice", "bob"] {
            for client in ["desktop", "phone", "web"] {
                let document = format!("{{\"round\":{round},\"pad\":\"{}\"}}", "p".repeat(500));
                put(&mut connection, client, &token::of(user, client), &document);
            }
        }
    }
    let large = format!("{{\"large\":\"{}\"}}", "l".repeat(300_000));
    put(
        &mut connection,
        "large",
        &token::of("carol", "large"),
        &large,
    );
    let delete = Request::of("DELETE", "web", &token::of("bob", "web"));
    assert_eq!(connection.request(&delete).status, 204);
    drop(connection);
    match end {
        End::Closed => assert!(server.stop().success()),
        End::Killed => server.kill(),
    }
}

/// The results of all commands that only read a data directory.
#[derive(Debug, PartialEq, Eq)]
struct Results {
    verified: Value,
    stats: Value,
    export: String,
    /// The files in the backup, by path, without the description that contains the time.
    backup: BTreeMap<String, Vec<u8>>,
}

/// A way to run `prefd` on a data directory. The other files of the commands are in `folder`.
struct Runner<'a> {
    data: &'a Path,
    folder: &'a Path,
    /// A program and arguments that come before the binary.
    wrapper: &'a [&'a str],
    binary: &'a str,
}

impl<'a> Runner<'a> {
    /// Creates a runner that runs `prefd` itself.
    fn new(data: &'a Path, folder: &'a Path) -> Self {
        Self {
            data,
            folder,
            wrapper: &[],
            binary: BINARY,
        }
    }

    fn run(&self, arguments: &[&str]) -> CommandOutput {
        let all = [
            self.wrapper,
            &[self.binary],
            arguments,
            &["--data-dir", text(self.data)],
        ]
        .concat();
        prefd(all[0], &all[1..])
    }

    /// Runs a command, and expects success. Returns its output.
    fn out(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments);
        assert_eq!(
            ended.status.code(),
            Some(0),
            "{arguments:?}: {:.2000}",
            ended.err
        );
        ended.out
    }

    /// Runs every command that only reads. Calls `check` after each command.
    fn read(&self, check: impl Fn(&str)) -> Results {
        let file = self.folder.join("backup.tar");
        let json = |command| serde_json::from_str(&self.out(&[command, "--json"])).unwrap();
        let verified = json("verify");
        check("verify");
        let stats = json("stats");
        check("stats");
        let export = self.out(&["export"]);
        check("export");
        self.out(&["backup", "--to", text(&file)]);
        check("backup");
        let unpacked = self.folder.join("unpacked");
        fs::create_dir(&unpacked).unwrap();
        let tar = ["-xf", text(&file), "-C", text(&unpacked)];
        run(Command::new("tar").args(tar));
        let backup = store_files(&unpacked);
        fs::remove_dir_all(unpacked).unwrap();
        fs::remove_file(file).unwrap();
        Results {
            verified,
            stats,
            export,
            backup,
        }
    }

    /// Expects a command to fail with a message that contains all `words`.
    fn expect_failure(&self, arguments: &[&str], words: &[&str]) {
        let ended = self.run(arguments);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {ended:?}");
        for word in words {
            assert!(
                ended.err.contains(word),
                "{arguments:?}: {word}: {}",
                ended.err
            );
        }
    }
}

fn store_files(unpacked: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["log", "blobs"] {
        for file in fs::read_dir(unpacked.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = format!("{folder}/{}", text(Path::new(path.file_name().unwrap())));
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// Expects the results of a store of [`create_store`].
fn check_results(results: &Results, end: End, context: &str) {
    assert_eq!(results.verified["clean"], true, "{context}");
    assert_eq!(results.verified["documents"], 6, "{context}");
    let catalogue = match end {
        End::Closed => "agrees",
        End::Killed => "to be rebuilt",
    };
    assert_eq!(results.verified["catalogue"], catalogue, "{context}");
    assert_eq!(results.stats["documents"], 6, "{context}");
    let names: Vec<(String, String)> = results
        .export
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(!line["document"].is_null());
            let name = |key: &str| line[key].as_str().unwrap().to_owned();
            (name("user"), name("client"))
        })
        .collect();
    let expected = [
        ("alice", "desktop"),
        ("alice", "phone"),
        ("alice", "web"),
        ("bob", "desktop"),
        ("bob", "phone"),
        ("carol", "large"),
    ];
    let expected = expected.map(|(user, client)| (user.to_owned(), client.to_owned()));
    assert_eq!(names, expected, "{context}");
}

/// Copies a data directory, including owners, permissions and times.
fn copy_dir(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", text(from), text(to)]));
}

#[test]
fn reading_commands_change_nothing_in_a_data_directory() {
    for end in ENDS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        create_store(&data, end);
        let runner = Runner::new(&data, folder.path());
        let before = directory_state(&data);
        let check = |command: &str| {
            assert_unchanged(&data, &before, &format!("{end:?}: {command}"));
        };
        check_results(&runner.read(check), end, &format!("{end:?}"));
        // A copy without blobs, catalogue and lock file gets none of them.
        for missing in ["blobs", "catalogue", "lock"] {
            let _ = fs::remove_dir_all(data.join(missing));
            let _ = fs::remove_file(data.join(missing));
        }
        let before = directory_state(&data);
        for arguments in [
            &["verify"][..],
            &["stats"],
            &["export"],
            &["backup", "--to", "-"],
        ] {
            let ended = runner.run(arguments);
            assert!(ended.status.code().is_some(), "{ended:?}");
            assert_unchanged(&data, &before, &format!("{end:?}: {arguments:?}"));
        }
    }
}

#[test]
fn export_and_backup_equal_those_of_a_writable_open() {
    for end in ENDS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        create_store(&data, end);
        let runner = Runner::new(&data, folder.path());
        let results = runner.read(|_| ());
        // The backup of a store that was not closed is restored, because the server that opens the
        // store seals it in other files than the backup.
        let restored = folder.path().join("restored");
        let file = folder.path().join("before.tar");
        runner.out(&["backup", "--to", text(&file)]);
        let restore = [
            "restore",
            "--from",
            text(&file),
            "--data-dir",
            text(&restored),
        ];
        let ended = prefd(BINARY, &restore);
        assert!(ended.status.success(), "{ended:?}");
        let server = Launch::new(BINARY, &data).with_default_admin().start();
        let admin = format!("http://{}", server.admin_address());
        let online = prefd(BINARY, &["export", "--admin", &admin]);
        assert_eq!(online.out, results.export, "{end:?}");
        assert!(server.stop().success());
        let of_restored = prefd(BINARY, &["export", "--data-dir", text(&restored)]);
        assert_eq!(of_restored.out, results.export, "{end:?}");
        if end == End::Closed {
            // The server has written nothing, so its snapshot has the same files.
            assert!(runner.read(|_| ()).backup == results.backup);
        }
    }
}

#[test]
fn commands_work_with_the_permission_to_read_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = folder.path().join("prefd");
    fs::copy(BINARY, &binary).unwrap();
    // Root can write every file, so root runs the commands as another user.
    let setpriv = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let is_root = geteuid().is_root();
    let wrapper = if is_root { &setpriv[..] } else { &[] };
    for end in ENDS {
        let data = folder.path().join(format!("{end:?}"));
        create_store(&data, end);
        let work = folder.path().join("work");
        fs::create_dir(&work).unwrap();
        if is_root {
            chown(&work, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut paths: Vec<PathBuf> = directory_state(&data).into_keys().collect();
        paths.push(data.clone());
        for path in &paths {
            let mode = if path.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
        let runner = Runner {
            data: &data,
            folder: &work,
            wrapper,
            binary: text(&binary),
        };
        let before = directory_state(&data);
        let results = runner.read(|command| assert_unchanged(&data, &before, command));
        check_results(&results, end, &format!("{end:?}"));
        let words = [text(&data), "Permission denied"];
        runner.expect_failure(&["compact"], &words);
        runner.expect_failure(&["erase", "--user", "alice"], &words);
        for path in paths.iter().filter(|path| path.is_dir()) {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        fs::remove_dir_all(work).unwrap();
    }
}

#[test]
fn catalogue_without_room_for_a_copy_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    create_store(&data, End::Closed);
    let missing = folder.path().join("missing");
    let ended = prefd_with(
        BINARY,
        &["verify", "--json", "--data-dir", text(&data)],
        &[("TMPDIR", text(&missing))],
    );
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let verified: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(verified["catalogue"], "not checked");
    assert_eq!(verified["documents"], 6);
}

#[test]
fn copy_of_the_catalogue_is_removed_after_verify() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    create_store(&data, End::Closed);
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let ended = prefd_with(
        BINARY,
        &["verify", "--data-dir", text(&data)],
        &[("TMPDIR", text(&temporary))],
    );
    assert!(ended.out.contains("agrees"), "{ended:?}");
    assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
}

#[test]
fn commands_work_on_a_read_only_mount() {
    if !ensure_isolated("commands_work_on_a_read_only_mount", &[]) {
        return;
    }
    for end in ENDS {
        let folder = tempfile::tempdir().unwrap();
        let (data, mounted) = (folder.path().join("data"), folder.path().join("mounted"));
        create_store(&data, end);
        fs::create_dir(&mounted).unwrap();
        let writable = folder.path().join("writable");
        copy_dir(&data, &writable);
        run(Command::new("mount").arg("--bind").args([&data, &mounted]));
        run(Command::new("mount").args(["-o", "remount,bind,ro", text(&mounted)]));
        let runner = |data| Runner::new(data, folder.path());
        let reader = runner(&mounted);
        let results = reader.read(|_| ());
        check_results(&results, end, &format!("{end:?}"));
        let expected = runner(&writable).read(|_| ());
        assert_eq!(results.export, expected.export, "{end:?}");
        assert!(results.backup == expected.backup, "{end:?}");
        check_writing_commands(&reader, folder.path());
        run(Command::new("umount").arg(&mounted));
    }
}

/// Expects every command that must write to the read-only directory to name the directory, or a
/// file in it, and the reason.
fn check_writing_commands(reader: &Runner<'_>, folder: &Path) {
    let words = [text(reader.data), "Read-only file system"];
    let lines = folder.join("lines");
    fs::write(&lines, reader.out(&["export"])).unwrap();
    reader.expect_failure(&["import", "--from", text(&lines)], &words);
    reader.expect_failure(&["erase", "--user", "alice"], &words);
    reader.expect_failure(&["compact"], &words);
    let backup = folder.join("restored.tar");
    reader.out(&["backup", "--to", text(&backup)]);
    let empty = reader.data.join("empty");
    let restore = [
        "restore",
        "--from",
        text(&backup),
        "--data-dir",
        text(&empty),
    ];
    for ended in [
        prefd(BINARY, &restore),
        Launch::new(BINARY, &empty).run(),
        Launch::new(BINARY, reader.data)
            .with(&["--dev"])
            .without_key()
            .run(),
    ] {
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        for word in words {
            assert!(ended.err.contains(word), "{word}: {ended:?}");
        }
    }
    fs::remove_file(backup).unwrap();
}
