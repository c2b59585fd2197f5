//! A simulated disk. It keeps the contents that the engine sees, and the contents that would
//! remain after a power cut.
//!
//! A write is durable after a sync of its file. A file name is durable after a sync of its
//! directory. [`SimDisk::crash`] discards all unsynced changes, or keeps a random part of them,
//! because a real disk may write unsynced data at any time. Any operation can fail, and the disk
//! can be full.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::Random;

mod fs;

/// The kind of a disk operation, for fault injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOperation {
    /// Opening a file for reading or writing.
    Open,
    /// Creating a file.
    Create,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// `fdatasync` of a file.
    Sync,
    /// Truncating or extending a file.
    SetLen,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
    /// `fsync` of a directory.
    SyncDir,
    /// Listing or creating a directory, or reading the length of a file.
    Other,
}

/// Called before each operation. Returns the error with which the operation fails, or `None`.
pub type Fault = Box<dyn FnMut(DiskOperation, &Path) -> Option<io::ErrorKind> + Send>;

/// A disk in memory. Clones share the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    inodes: Vec<Inode>,
    /// File names that processes see.
    names: HashMap<PathBuf, usize>,
    /// File names that certainly remain after a power cut.
    durable_names: HashMap<PathBuf, usize>,
    /// The directories that were created, each with its number. Directories are always durable.
    directories: HashMap<PathBuf, u64>,
    fault: Option<Fault>,
    /// Number of operations until the power is cut.
    power: u64,
    /// Maximum total size of all files.
    capacity_bytes: u64,
    /// Maximum number of files.
    max_files: usize,
    /// Number of syncs by path.
    syncs: HashMap<PathBuf, u64>,
}

#[derive(Default, Clone)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Changes after the last sync.
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => image.resize(*len, 0),
        }
    }
}

/// What a crash does to unsynced changes.
#[derive(Debug, Clone, Copy)]
pub enum Unsynced {
    /// All unsynced changes are lost.
    Lost,
    /// All unsynced changes are kept, as when only the process is killed.
    Kept,
    /// Each change is kept or lost at random. A write may also be torn between sectors.
    Some {
        /// Seed of the random choice.
        seed: u64,
    },
}

const SECTOR_BYTES: usize = 512;

impl Default for SimDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            inodes: Vec::new(),
            names: HashMap::new(),
            durable_names: HashMap::new(),
            directories: HashMap::new(),
            fault: None,
            power: u64::MAX,
            capacity_bytes: u64::MAX,
            max_files: usize::MAX,
            syncs: HashMap::new(),
        })))
    }
}

impl SimDisk {
    /// Creates an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `fault` before every operation.
    pub fn set_fault(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Fails every read of a file, like a bad sector.
    pub fn fail_reads(&self, file: PathBuf) {
        self.set_fault(Box::new(move |operation, path| {
            (operation == DiskOperation::Read && path == file).then_some(io::ErrorKind::Other)
        }));
    }

    /// Stops injecting faults.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Cuts the power during the operation with the given number. That operation and all later ones
    /// fail. If that operation is a write, half of it is done.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().power = operations;
    }

    /// Sets the maximum total size of all files.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Sets the maximum number of files, as if the disk had no further inodes.
    pub fn set_max_files(&self, files: usize) {
        self.state().max_files = files;
    }

    /// Total size of all files.
    pub fn used_bytes(&self) -> u64 {
        let state = self.state();
        state
            .names
            .values()
            .map(|inode| state.inodes[*inode].live.len() as u64)
            .sum()
    }

    /// Number of syncs of files whose path ends with `suffix`.
    pub fn syncs(&self, suffix: &str) -> u64 {
        let state = self.state();
        let ends = |path: &PathBuf| path.to_string_lossy().ends_with(suffix);
        state
            .syncs
            .iter()
            .filter(|(path, _)| ends(path))
            .map(|(_, count)| count)
            .sum()
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.state().names.keys().cloned().collect();
        files.sort();
        files
    }

    /// The contents of a file as processes see them.
    ///
    /// # Panics
    /// Panics if the file does not exist.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].live.clone()
    }

    /// Replaces the contents of a file durably, without an operation. Open handles see the new
    /// contents.
    ///
    /// # Panics
    /// Panics if the file does not exist.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode] = Inode {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        };
    }

    /// Creates a file durably, without an operation. Replaces an existing file with the same name.
    pub fn place(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        state.inodes.push(Inode {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        });
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }

    /// Removes a file durably, without an operation.
    pub fn lose(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Moves all files from one directory to another, as if a copied disk were mounted elsewhere.
    pub fn rebase(&self, from: &Path, to: &Path) {
        let mut state = self.state();
        let moved = |names: &HashMap<PathBuf, usize>| {
            names
                .iter()
                .map(|(name, inode)| {
                    let name = name
                        .strip_prefix(from)
                        .map_or(name.clone(), |rest| to.join(rest));
                    (name, *inode)
                })
                .collect()
        };
        state.names = moved(&state.names);
        state.durable_names = moved(&state.durable_names);
    }

    /// Creates an independent disk with the same contents.
    pub fn copy(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            directories: state.directories.clone(),
            fault: None,
            power: u64::MAX,
            capacity_bytes: u64::MAX,
            max_files: usize::MAX,
            syncs: HashMap::new(),
        })))
    }

    /// Returns a new disk with the contents that the next boot finds. This disk is unchanged, so an
    /// engine that still has it open has no effect on the new disk.
    pub fn crash(&self, unsynced: Unsynced) -> Self {
        let after = self.copy();
        {
            let mut state = after.state();
            match unsynced {
                // The changes stay unsynced, so a later crash can still lose them.
                Unsynced::Kept => return self.copy(),
                Unsynced::Lost => state.settle(&mut |_| false),
                Unsynced::Some { seed } => {
                    let mut random = Random::new(seed);
                    state.settle(&mut |_| random.below(2) == 0);
                }
            }
            let live = state.names.clone();
            state.durable_names = live;
            for inode in &mut state.inodes {
                inode.durable = inode.live.clone();
                inode.unsynced.clear();
            }
        }
        after
    }
}

/// Splits a write at sector boundaries. Returns the parts with their offsets.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    std::iter::once((offset, head))
        .chain(rest.map(move |(index, sector)| (offset + first + index * SECTOR_BYTES, sector)))
}

impl State {
    /// Replaces the live state by the durable state plus those unsynced changes for which `keeps`
    /// returns true.
    fn settle(&mut self, keeps: &mut dyn FnMut(&str) -> bool) {
        let mut live: Vec<_> = self.names.iter().map(|(p, i)| (p.clone(), *i)).collect();
        live.sort();
        let mut names = self.durable_names.clone();
        let mut gone: Vec<_> = names
            .keys()
            .filter(|path| !self.names.contains_key(*path))
            .cloned()
            .collect();
        gone.sort();
        for path in gone {
            if keeps("removal") {
                names.remove(&path);
            }
        }
        for (path, inode) in live {
            if names.get(&path) != Some(&inode) && keeps("name") {
                names.insert(path, inode);
            }
        }
        self.names = names;
        for inode in &mut self.inodes {
            let mut image = inode.durable.clone();
            for change in &inode.unsynced {
                if keeps("change") {
                    match change {
                        // A torn write: a disk writes the sectors in any order.
                        Change::Write { offset, bytes } if keeps("tear") => {
                            for (offset, sector) in sectors(*offset, bytes) {
                                if keeps("sector") {
                                    let bytes = sector.to_vec();
                                    Change::Write { offset, bytes }.apply(&mut image);
                                }
                            }
                        }
                        change => change.apply(&mut image),
                    }
                }
            }
            inode.live = image;
        }
    }

    fn change(&mut self, inode: usize, change: Change) {
        let inode = &mut self.inodes[inode];
        change.apply(&mut inode.live);
        inode.unsynced.push(change);
    }

    fn has_power(&self) -> bool {
        self.power > 0
    }

    fn decide(&mut self, operation: DiskOperation, path: &Path) -> io::Result<()> {
        if !self.has_power() {
            return Err(io::Error::other("the power is off"));
        }
        self.power -= 1;
        if !self.has_power() {
            return Err(io::Error::other("the power is cut during this operation"));
        }
        let kind = self.fault.as_mut().and_then(|fault| fault(operation, path));
        kind.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
