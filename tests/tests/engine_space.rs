//! What documents take on the disk besides their own bytes.

use std::fs;
use std::path::Path;

use prefd_engine::{Config, Durability, Engine, WriteOptions};

const DOCUMENTS: u64 = 100_000;
const BYTES: usize = 300;
/// Of `log/`, the reserve apart, for each byte of a document.
const MAX_RATIO: f64 = 1.38;

/// Exactly [`BYTES`], with three members.
fn document(number: u64) -> String {
    let begin = format!(
        "{{\"n\":\"{number:016}\",\"items\":[{},{},{}],\"fill\":\"",
        number % 7,
        number % 100,
        number % 1000
    );
    let fill = "f".repeat(BYTES - begin.len() - 2);
    format!("{begin}{fill}\"}}")
}

fn log_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir.join("log")).unwrap();
    files
        .map(Result::unwrap)
        .filter(|file| file.file_name() != "reserve")
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

/// As a store grows that nobody deletes from: some writes between two syncs, and then a
/// close.
#[test]
fn a_small_document_takes_little_besides_its_own_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    config.catalogue = false;
    let engine = Engine::open(config.clone()).unwrap();
    for number in 0..DOCUMENTS {
        let user = format!("user-{:012}", number * 7919 % DOCUMENTS);
        let namespace = engine.namespace(&user, "preferences-app").unwrap();
        let body = document(number);
        assert_eq!(body.len(), BYTES);
        let durability = if number % 500 == 0 {
            Durability::Sync
        } else {
            Durability::Buffered
        };
        let options = WriteOptions {
            durability: Some(durability),
            ..WriteOptions::default()
        };
        namespace.write(body.as_bytes(), options).unwrap();
    }
    engine.close().unwrap();
    let each = log_bytes(dir.path()) as f64 / DOCUMENTS as f64;
    let ratio = each / BYTES as f64;
    println!("{each:.1} bytes for each document of {BYTES}, {ratio:.3} times those");
    assert!(ratio <= MAX_RATIO, "{ratio:.3}");

    // And nothing is missing.
    let engine = Engine::open(config).unwrap();
    for number in (0..DOCUMENTS).step_by(997) {
        let user = format!("user-{:012}", number * 7919 % DOCUMENTS);
        let namespace = engine.namespace(&user, "preferences-app").unwrap();
        let found = namespace.get().unwrap().unwrap().read().unwrap();
        assert_eq!(found, document(number).into_bytes());
    }
}
