//! A file system that is filled to the brim: what does not fit is refused with 507 and
//! is nowhere, everything else goes on, and writing does once there is room.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use common::BINARY;
use prefd_tests::api_error::Expected;
use prefd_tests::crash_model::{Model, Name, check};
use prefd_tests::http::{Client, Request};
use prefd_tests::loop_mount::{Format, LoopMount};
use prefd_tests::machine::is_isolated;
use prefd_tests::server::{Launch, Server};
use prefd_tests::token;

const FILE_SYSTEMS: [&str; 1] = ["ext4"];
const DISK_BYTES: u64 = 64 << 20;
/// More than the slack of a file's last block, and not enough for a file of its own.
const SMALL_BYTES: usize = 20_000;
const LARGE_BYTES: usize = 1_000_000;

/// A small disk, and what fills it beside the store.
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
        // The mount keeps it: should we be killed, nothing is left.
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

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = fs::File::create(&self.ballast).unwrap();
        for piece in [1 << 20, 1024] {
            let bytes = vec![1_u8; piece];
            while file.write_all(&bytes).is_ok() {}
            // So that the blocks are taken, and not only promised.
            let _ = file.sync_data();
        }
    }

    fn make_room(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

fn name(client: &str) -> Name {
    ("user".to_owned(), client.to_owned())
}

/// A PUT that is refused for want of room: on a connection of its own, since an upload
/// that is cut short ends it.
fn refused(server: &Server, client: &str, bytes: usize) {
    let body = format!("{{\"refused\":\"{}\"}}", "r".repeat(bytes));
    let request = Request::of("PUT", client, &token::of("user", client)).body(body);
    let response = server.connect().request(&request);
    Expected::code("insufficient-storage").check(&response, client);
}

/// Writes until there is no room for one more.
fn write_to_the_brim(model: &Model, connection: &mut Client) {
    for number in 0_u32.. {
        let name = name(&format!("client-{}", number % 10));
        if model.write(connection, &name, false).unwrap() == 507 {
            return;
        }
    }
}

/// Opens what is there and finds nothing but what was acknowledged.
fn check_after_a_restart(dir: &Path, model: &Model, context: &str) {
    let found = check(dir, &model.allowed(), context);
    model.settle(found);
}

#[test]
fn on_a_full_disk_puts_are_refused_and_all_else_goes_on() {
    if !is_isolated(
        "on_a_full_disk_puts_are_refused_and_all_else_goes_on",
        &FILE_SYSTEMS,
    ) {
        return;
    }
    let disk = Disk::new();
    let server = disk.launch().start();
    let mut connection = server.connect();
    let model = Model::default();
    for number in 0..20 {
        let name = name(&format!("client-{}", number % 10));
        assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
    }
    disk.fill();
    write_to_the_brim(&model, &mut connection);
    for client in ["client-1", "client-new"] {
        refused(&server, client, SMALL_BYTES);
        refused(&server, client, LARGE_BYTES);
    }
    model.check_reads(&mut connection, "while full");
    // Deletes have room that is kept for them.
    for client in ["client-2", "client-3"] {
        let status = model.write(&mut connection, &name(client), true).unwrap();
        assert_eq!(status, 204, "a delete");
    }
    model.check_reads(&mut connection, "after deletes");
    server.kill();
    check_after_a_restart(&disk.data_dir(), &model, "opened while full");
    let server = disk.launch().start();
    let mut connection = server.connect();
    model.check_reads(&mut connection, "served while full");
    // What the killed one had prepared for its next frames was given back.
    write_to_the_brim(&model, &mut connection);
    refused(&server, "client-new", SMALL_BYTES);
    disk.make_room();
    for client in ["client-1", "client-2", "client-new"] {
        let status = model.write(&mut connection, &name(client), false).unwrap();
        assert_eq!(status, 204, "there is room again");
    }
    model.check_reads(&mut connection, "with room again");
    assert!(server.stop().success());
    check_after_a_restart(&disk.data_dir(), &model, "closed with room");
}

#[test]
fn what_a_kill_leaves_on_a_full_disk_is_served() {
    if !is_isolated("what_a_kill_leaves_on_a_full_disk_is_served", &FILE_SYSTEMS) {
        return;
    }
    let disk = Disk::new();
    let server = disk.launch().start();
    let model = Model::default();
    let mut connection = server.connect();
    for number in 0..200 {
        let name = name(&format!("client-{}", number % 10));
        assert_eq!(model.write(&mut connection, &name, false).unwrap(), 204);
    }
    server.kill();
    // The tail of the log is to be written anew, the catalogue to be built again.
    disk.fill();
    let server = disk.launch().start();
    model.check_reads(&mut server.connect(), "started while full");
    server.kill();
    check_after_a_restart(&disk.data_dir(), &model, "opened while full");
}

#[test]
fn a_store_that_has_no_room_to_begin_says_where() {
    if !is_isolated(
        "a_store_that_has_no_room_to_begin_says_where",
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
    disk.make_room();
    let server = disk.launch().start();
    common::put(
        &mut server.connect(),
        "client",
        &token::of("user", "client"),
        "{}",
    );
    assert!(server.stop().success());
}
