//! A simulated disk: what the engine sees, and beside it what a power cut would
//! leave.
//!
//! A write is durable once its file was synced, a name once its directory was. A
//! [`SimDisk::crash`] throws away the rest, or keeps a part of it that a seed picks:
//! a disk may have written anything that it was not yet asked to keep. Any operation
//! can be made to fail, and the disk can be full.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::random::Random;

mod seam;

/// Which operations a fault is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Opening for reading or writing.
    Open,
    /// Creating a file.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// `fdatasync`.
    Sync,
    /// Cutting or extending.
    SetLen,
    /// Renaming.
    Rename,
    /// Removing a name.
    Remove,
    /// `fsync` of a directory.
    SyncDir,
    /// Listing and making directories, and asking for lengths.
    Other,
}

/// Decides on each operation on a path: `Some` is the error that it fails with.
pub type Fault = Box<dyn FnMut(Operation, &Path) -> Option<io::ErrorKind> + Send>;

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

struct State {
    inodes: Vec<Inode>,
    /// What a process sees.
    names: HashMap<PathBuf, usize>,
    /// What a power cut leaves, at least.
    durable_names: HashMap<PathBuf, usize>,
    fault: Option<Fault>,
    /// Operations until the power is cut.
    power: u64,
    /// Bytes of all files that fit.
    capacity_bytes: u64,
    /// Syncs of files, by path, since the start.
    syncs: HashMap<PathBuf, u64>,
}

#[derive(Default, Clone)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Since the last sync.
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

/// What becomes of that which was not synced.
#[derive(Debug, Clone, Copy)]
pub enum Unsynced {
    /// All of it is lost.
    Lost,
    /// All of it is there: the process was killed, the machine was not.
    Kept,
    /// Each write and each name is there, or not, or a write is torn at a sector.
    Some {
        /// Picks which.
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
            fault: None,
            power: u64::MAX,
            capacity_bytes: u64::MAX,
            syncs: HashMap::new(),
        })))
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks `fault` before every operation from now on.
    pub fn set_fault(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Fails every read of one file from now on, as a bad sector would.
    pub fn fail_reads(&self, file: PathBuf) {
        self.set_fault(Box::new(move |operation, path| {
            (operation == Operation::Read && path == file).then_some(io::ErrorKind::Other)
        }));
    }

    /// Ends all faults.
    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// Cuts the power after so many operations: what comes then fails, and a write that
    /// was under way may have done a part of its work.
    pub fn cut_power_after(&self, operations: u64) {
        self.state().power = operations;
    }

    /// Makes room for this many bytes in all files together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes in all files together.
    pub fn used_bytes(&self) -> u64 {
        let state = self.state();
        state
            .names
            .values()
            .map(|inode| state.inodes[*inode].live.len() as u64)
            .sum()
    }

    /// How often files were synced whose path ends with `suffix`.
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

    /// The files that there are, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self.state().names.keys().cloned().collect();
        files.sort();
        files
    }

    /// A file's bytes as a process sees them.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].live.clone()
    }

    /// Replaces a file's bytes behind everybody's back, durably.
    ///
    /// # Panics
    /// Where there is no such file.
    pub fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.names[path];
        state.inodes[inode] = Inode {
            live: bytes.clone(),
            durable: bytes,
            unsynced: Vec::new(),
        };
    }

    /// Puts a file there behind everybody's back, durably, in the place of one of that
    /// name.
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

    /// Removes a file behind everybody's back, durably.
    pub fn lose(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Moves what is below one directory to below another: a copied disk is mounted
    /// elsewhere.
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

    /// An independent disk with what is on this one.
    pub fn copy(&self) -> Self {
        let state = self.state();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            fault: None,
            power: u64::MAX,
            capacity_bytes: u64::MAX,
            syncs: HashMap::new(),
        })))
    }

    /// The disk as the next boot finds it. Whoever holds this one open goes on with
    /// a disk that nobody will see again.
    pub fn crash(&self, unsynced: Unsynced) -> Self {
        let after = self.copy();
        {
            let mut state = after.state();
            match unsynced {
                // Only in memory as before, so a later crash can still lose it.
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

/// The parts of a write that lie in different sectors, with their offsets.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    std::iter::once((offset, head))
        .chain(rest.map(move |(index, sector)| (offset + first + index * SECTOR_BYTES, sector)))
}

impl State {
    /// Makes the live image what is durable and, of the rest, what `keeps` says.
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
                        // Torn: a disk writes sectors, in any order.
                        Change::Write { offset, bytes } if keeps("tear") => {
                            for (offset, sector) in sectors(*offset, bytes) {
                                if keeps("sector") {
                                    let bytes = sector.to_vec();
                                    Change::Write { offset, bytes }.apply(&mut image);
                                }
                            }
                        }
                        whole => whole.apply(&mut image),
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

    fn decide(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
        if !self.has_power() {
            return Err(io::Error::other("the power is cut"));
        }
        self.power -= 1;
        if !self.has_power() {
            return Err(io::Error::other("the power is cut now"));
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
