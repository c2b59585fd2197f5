//! Copies of a store that are created from its snapshots.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use prefd_engine::{Config, Engine, Snapshot, Verification, verify};

/// Reads the files of a snapshot, by path.
pub fn files(snapshot: &Snapshot) -> BTreeMap<String, Vec<u8>> {
    let read = |file| {
        let mut bytes = Vec::new();
        let mut reader = snapshot.open(file).unwrap();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, file.bytes(), "{}", file.path());
        (file.path().to_owned(), bytes)
    };
    snapshot.files().iter().map(read).collect()
}

/// Creates a directory with the given files.
pub fn write_dir(files: &BTreeMap<String, Vec<u8>>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

/// Runs `verify` on a data directory.
pub fn verify_dir(dir: &Path) -> Verification {
    verify(&Config::new(dir), &mut |_| {}).unwrap()
}

/// Writes a snapshot to a directory, expects `verify` to find no problems, and opens the copy.
pub fn open_copy(snapshot: &Snapshot) -> (tempfile::TempDir, Engine) {
    let dir = write_dir(&files(snapshot));
    let found = verify_dir(dir.path());
    assert_eq!(found.problems, []);
    assert_eq!((found.torn_bytes, found.unnamed_blobs), (0, 0));
    assert_eq!(found.documents, snapshot.documents());
    let engine = Engine::open(Config::new(dir.path())).unwrap();
    assert_eq!(engine.documents(), snapshot.documents());
    (dir, engine)
}
