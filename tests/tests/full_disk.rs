//! A full file system. A put that does not fit gets 507 and leaves nothing behind. Reads and
//! deletes succeed. Puts succeed again once space is free.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::BINARY;
use prefd_tests::api_error::ExpectedError;
use prefd_tests::crash_model::{CrashModel, Name, check};
use prefd_tests::http::{Client, Request};
use prefd_tests::loop_mount::{Format, LoopMount};
use prefd_tests::machine::ensure_isolated;
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;

const FILE_SYSTEMS: [&str; 1] = ["ext4"];
const DISK_BYTES: u64 = 64 << 20;
/// Larger than the unused part of any file's last block, and small enough for the log: the
/// document is not stored in a blob.
const SMALL_BYTES: usize = 20_000;
const LARGE_BYTES: usize = 1_000_000;

/// A small file system with a data directory and a ballast file. The ballast fills the disk.
struct Disk {
    mount: LoopMount,
    ballast: PathBuf,
    _dir: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        Self::with(Format::Ext4)
    }

    fn with(format: Format) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        let mount = LoopMount::make(format, &image, DISK_BYTES, &dir.path().join("disk"));
        // The mount keeps the removed image alive, so a killed test leaves nothing behind.
        fs::remove_file(image).unwrap();
        Self {
            ballast: mount.path.join("ballast"),
            mount,
            _dir: dir,
        }
    }

    fn data_dir(&self) -> PathBuf {
        self.mount.path.join("data")
    }

    fn launch(&self) -> Launch {
        Launch::new(BINARY, &self.data_dir())
    }

    /// Fills the remaining space.
    fn fill(&self) {
        let mut file = fs::File::create(&self.ballast).unwrap();
        for piece in [1 << 20, 1024] {
            let bytes = vec![1_u8; piece];
            while file.write_all(&bytes).is_ok() {}
            // With delayed allocation, blocks are allocated only when data is written back.
            let _ = file.sync_data();
        }
    }

    /// Fills the space that has become free since the last call, and does not release any.
    fn fill_again(&self, number: usize) {
        fs::rename(
            &self.ballast,
            self.mount.path.join(format!("ballast-{number}")),
        )
        .unwrap();
        self.fill();
    }

    /// Creates empty files until no inode is free. The files are numbered from `first` on. Returns
    /// the number of files.
    fn use_up_inodes(&self, first: usize) -> usize {
        let names = first..;
        let file = |number: &usize| self.mount.path.join(format!("inode-{number}"));
        names
            .take_while(|number| fs::File::create_new(file(number)).is_ok())
            .count()
    }

    fn free_inodes(&self, files: usize) {
        for number in 0..files {
            fs::remove_file(self.mount.path.join(format!("inode-{number}"))).unwrap();
        }
    }

    fn remove_reserve(&self) {
        for file in fs::read_dir(self.data_dir().join("log")).unwrap() {
            let file = file.unwrap();
            if file.file_name().to_string_lossy().starts_with("reserve") {
                fs::remove_file(file.path()).unwrap();
            }
        }
    }

    fn free_space(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

fn name(client: &str) -> Name {
    ("user".to_owned(), client.to_owned())
}

/// Sends a PUT, and expects a refusal because the disk is full. Uses a new connection, because
/// the server closes a connection after an upload that it did not read completely.
fn expect_refused_put(server: &Server, client: &str, bytes: usize) {
    let body = format!("{{\"refused\":\"{}\"}}", "r".repeat(bytes));
    let request = Request::of("PUT", client, &token::of("user", client)).body(body);
    let response = server.connect().request(&request);
    ExpectedError::code("insufficient-storage").check(&response, client);
}

/// Writes until a put gets 507.
fn write_until_full(model: &CrashModel, connection: &mut Client) {
    for number in 0_u32.. {
        let name = name(&format!("client-{}", number % 10));
        if model.write(connection, &name, false).unwrap() == 507 {
            return;
        }
    }
}

/// Puts documents of about `bytes` bytes until one gets 507. A document of more than 256 KiB needs
/// an inode for its blob. A user whom the tests do not use otherwise owns the documents.
fn put_until_full(server: &Server, bytes: usize) {
    let body = format!("{{\"a\":\"{}\"}}", "l".repeat(bytes));
    for number in 0_u32.. {
        let client = format!("client-{number}");
        let request = Request::of("PUT", &client, &token::of("other", &client));
        let response = server.connect().request(&request.body(body.clone()));
        if response.status == 507 {
            return;
        }
        assert_eq!(response.status, 204, "{response:?}");
    }
}

/// Opens the store, and checks that every namespace holds an allowed document.
fn check_store(dir: &Path, model: &CrashModel, context: &str) {
    let found = check(dir, &model.allowed(), context);
    model.settle(found);
}

#[test]
fn full_disk_refuses_puts_and_serves_all_other_requests() {
    if !ensure_isolated(
        "full_disk_refuses_puts_and_serves_all_other_requests",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    let server = disk.launch().start();
    let mut connection = server.connect();
    let model = CrashModel::default();
    for number in 0..20 {
        let name = name(&format!("client-{}", number % 10));
        assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
    }
    disk.fill();
    write_until_full(&model, &mut connection);
    for client in ["client-1", "client-new"] {
        expect_refused_put(&server, client, SMALL_BYTES);
        expect_refused_put(&server, client, LARGE_BYTES);
    }
    model.check_reads(&mut connection, "while full");
    // Space is reserved for deletes.
    for client in ["client-2", "client-3"] {
        let status = model.write(&mut connection, &name(client), true).unwrap();
        assert_eq!(status, 204, "expected the delete to succeed on a full disk");
    }
    model.check_reads(&mut connection, "after deletes");
    server.kill();
    check_store(&disk.data_dir(), &model, "opened while full");
    let server = disk.launch().start();
    let mut connection = server.connect();
    model.check_reads(&mut connection, "served while full");
    // The restart freed the space that the killed server had preallocated in its segment.
    write_until_full(&model, &mut connection);
    expect_refused_put(&server, "client-new", SMALL_BYTES);
    disk.free_space();
    for client in ["client-1", "client-2", "client-new"] {
        let status = model.write(&mut connection, &name(client), false).unwrap();
        assert_eq!(
            status, 204,
            "expected the put to succeed after space was freed"
        );
    }
    model.check_reads(&mut connection, "after space was freed");
    assert!(server.stop().success());
    check_store(&disk.data_dir(), &model, "closed after space was freed");
}

/// Starts a server, writes ten documents several times, and kills the server.
fn write_until_killed(disk: &Disk) -> CrashModel {
    let server = disk.launch().start();
    let model = CrashModel::default();
    let mut connection = server.connect();
    for number in 0..200 {
        let name = name(&format!("client-{}", number % 10));
        assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
    }
    server.kill();
    model
}

#[test]
fn store_of_a_killed_server_is_served_on_a_full_disk() {
    if !ensure_isolated(
        "store_of_a_killed_server_is_served_on_a_full_disk",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    let model = write_until_killed(&disk);
    // The next start has to rewrite the tail of the log and to rebuild the catalogue.
    disk.fill();
    let server = disk.launch().start();
    model.check_reads(&mut server.connect(), "started while full");
    server.kill();
    check_store(&disk.data_dir(), &model, "opened while full");
}

#[test]
fn first_start_on_a_full_disk_fails_and_names_the_data_dir() {
    if !ensure_isolated(
        "first_start_on_a_full_disk_fails_and_names_the_data_dir",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    disk.fill();
    let ended = disk.launch().run();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    let data_dir = disk.data_dir();
    assert!(ended.err.contains(data_dir.to_str().unwrap()), "{ended:?}");
    disk.free_space();
    let server = disk.launch().start();
    common::put(
        &mut server.connect(),
        "client",
        &token::of("user", "client"),
        "{}",
    );
    assert!(server.stop().success());
}

#[test]
fn server_starts_again_and_again_while_the_disk_is_full() {
    if !ensure_isolated(
        "server_starts_again_and_again_while_the_disk_is_full",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    let model = write_until_killed(&disk);
    disk.fill();
    for start in 0..8 {
        let context = format!("start {start}");
        let server = disk.launch().start();
        let mut connection = server.connect();
        model.check_reads(&mut connection, &context);
        put_until_full(&server, SMALL_BYTES);
        // Half of the time, the space of the reserve exists, and deletes succeed.
        if start < 4 {
            let status = model
                .write(&mut connection, &name("client-1"), true)
                .unwrap();
            assert_eq!(status, 204, "{context}");
        }
        model.check_reads(&mut connection, &context);
        if start % 2 == 0 {
            server.kill();
        } else {
            let _ = server.stop();
        }
        if start >= 3 {
            disk.remove_reserve();
        }
        disk.fill_again(start);
    }
    disk.free_space();
    fs::remove_file(disk.mount.path.join("ballast-0")).unwrap();
    let server = disk.launch().start();
    let mut connection = server.connect();
    let status = model
        .write(&mut connection, &name("client-new"), false)
        .unwrap();
    assert_eq!(status, 204);
    model.check_reads(&mut connection, "after space was freed");
    assert!(server.stop().success());
    check_store(&disk.data_dir(), &model, "closed after space was freed");
}

/// Number of inodes of a small file system. ext4 uses 11 of them itself.
const INODES: u32 = 64;

#[test]
fn server_without_free_inodes_starts_and_serves_reads() {
    if !ensure_isolated(
        "server_without_free_inodes_starts_and_serves_reads",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    for is_killed in [true, false] {
        for has_reserve in [true, false] {
            let context = format!("killed: {is_killed}, reserve: {has_reserve}");
            let disk = Disk::with(Format::Ext4Inodes(INODES));
            let server = disk.launch().start();
            let model = CrashModel::default();
            let mut connection = server.connect();
            for number in 0..20 {
                let name = name(&format!("client-{}", number % 10));
                assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
            }
            let files = disk.use_up_inodes(0);
            if is_killed {
                server.kill();
            } else {
                let _ = server.stop();
            }
            if !has_reserve {
                disk.remove_reserve();
            }
            let more = disk.use_up_inodes(files);
            for start in 0..3 {
                let context = format!("{context}, start {start}");
                let server = disk.launch().start();
                let mut connection = server.connect();
                model.check_reads(&mut connection, &context);
                put_until_full(&server, LARGE_BYTES);
                // Kills use up the reserved inodes, so only the first start must accept a delete.
                if has_reserve && start == 0 {
                    let name = name(&format!("client-{start}"));
                    let status = model.write(&mut connection, &name, true).unwrap();
                    assert_eq!(status, 204, "{context}");
                }
                model.check_reads(&mut connection, &context);
                server.kill();
            }
            disk.free_inodes(files + more);
            let server = disk.launch().start();
            let mut connection = server.connect();
            let status = model.write(&mut connection, &name("new"), false).unwrap();
            assert_eq!(status, 204, "{context}");
            model.check_reads(&mut connection, &context);
            assert!(server.stop().success(), "{context}");
            check_store(&disk.data_dir(), &model, &context);
        }
    }
}
