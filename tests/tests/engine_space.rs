//! The size of `log/` for many small documents.

use std::fs;
use std::path::Path;

use prefd_engine::{Config, Durability, Engine, WriteOptions};

const DOCUMENTS: u64 = 100_000;
const BYTES: usize = 300;
/// Maximum size of `log/` without the reserve, in bytes per byte of a document.
const MAX_RATIO: f64 = 1.38;

/// A document of exactly [`BYTES`] bytes with three members.
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

/// The store only grows: every write adds a document, one write in 500 is synced, and the
/// store is closed at the end.
#[test]
fn log_of_small_documents_stays_below_the_maximum_ratio() {
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
    println!("log bytes per document of {BYTES} bytes: {each:.1}, ratio {ratio:.3}");
    assert!(ratio <= MAX_RATIO, "ratio {ratio:.3} exceeds {MAX_RATIO}");

    // A sample of the documents can be read after a reopen.
    let engine = Engine::open(config).unwrap();
    for number in (0..DOCUMENTS).step_by(997) {
        let user = format!("user-{:012}", number * 7919 % DOCUMENTS);
        let namespace = engine.namespace(&user, "preferences-app").unwrap();
        let found = namespace.get().unwrap().unwrap().read().unwrap();
        assert_eq!(found, document(number).into_bytes());
    }
}
