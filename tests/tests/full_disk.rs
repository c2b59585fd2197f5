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
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        let mount = LoopMount::make(Format::Ext4, &image, DISK_BYTES, &dir.path().join("disk"));
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

#[test]
fn store_of_a_killed_server_is_served_on_a_full_disk() {
    if !ensure_isolated(
        "store_of_a_killed_server_is_served_on_a_full_disk",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    let server = disk.launch().start();
    let model = CrashModel::default();
    let mut connection = server.connect();
    for number in 0..200 {
        let name = name(&format!("client-{}", number % 10));
        assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
    }
    server.kill();
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
