//! The state of a directory: everything about its files that a command could change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Everything about a file or a directory that a write, a new file or a change of permissions
/// changes. The time of the last access is not included, because reads may change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryState {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Seconds and nanoseconds. A process cannot set this time.
    changed: (i64, i64),
    /// `None` for a directory.
    bytes: Option<Vec<u8>>,
}

/// Returns the state of a directory, and of all files and directories in it, by path.
pub fn directory_state(dir: &Path) -> BTreeMap<PathBuf, EntryState> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let bytes = metadata.is_file().then(|| fs::read(&path).unwrap());
        if metadata.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            waiting.extend(entries.map(|entry| entry.unwrap().path()));
        }
        let state = EntryState {
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            bytes,
        };
        found.insert(path, state);
    }
    found
}

/// Asserts that a directory is in the same state as before, and names the entries that differ.
pub fn assert_unchanged(dir: &Path, before: &BTreeMap<PathBuf, EntryState>, context: &str) {
    let after = directory_state(dir);
    let paths = before.keys().chain(after.keys());
    let changed: Vec<_> = paths
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{context}: changed: {changed:?}");
}
