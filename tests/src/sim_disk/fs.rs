//! The engine's file system interface, implemented by the simulated disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prefd_engine::fs::{File, FileId, Fs};

use super::{Change, DiskOperation, Inode, SimDisk, State};

struct SimFile {
    disk: SimDisk,
    inode: usize,
    path: PathBuf,
}

impl SimFile {
    fn with<T>(
        &self,
        operation: DiskOperation,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.state();
        state.decide(operation, &self.path)?;
        act(&mut state)
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.with(DiskOperation::Read, |state| {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            let live = &state.inodes[self.inode].live;
            let bytes = start
                .checked_add(buffer.len())
                .and_then(|end| live.get(start..end))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let used = self.disk.used_bytes();
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let mut state = self.disk.state();
        let has_power = state.has_power();
        let decided = state.decide(DiskOperation::Write, &self.path);
        let grown = (offset + bytes.len()).saturating_sub(state.inodes[self.inode].live.len());
        let room = usize::try_from(state.capacity_bytes - used.min(state.capacity_bytes))
            .unwrap_or(usize::MAX);
        // A full disk stores the bytes that still fit. A write that fails for another reason
        // stores half of its bytes.
        let (written, outcome) = match decided {
            Err(error) if has_power => (bytes.len() / 2, Err(error)),
            Err(error) => (0, Err(error)),
            Ok(()) if grown > room => {
                let fits = bytes.len() - (grown - room);
                (fits, Err(io::ErrorKind::StorageFull.into()))
            }
            Ok(()) => (bytes.len(), Ok(())),
        };
        let bytes = bytes[..written].to_vec();
        state.change(self.inode, Change::Write { offset, bytes });
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        self.with(DiskOperation::Sync, |state| {
            *state.syncs.entry(self.path.clone()).or_default() += 1;
            let inode = &mut state.inodes[self.inode];
            inode.durable = inode.live.clone();
            inode.unsynced.clear();
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(DiskOperation::SetLen, |state| {
            let len = usize::try_from(len).map_err(io::Error::other)?;
            state.change(self.inode, Change::SetLen(len));
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(DiskOperation::Other, |state| {
            Ok(state.inodes[self.inode].live.len() as u64)
        })
    }

    fn id(&self) -> io::Result<FileId> {
        Ok(file_id(self.inode))
    }
}

/// Device number of all files.
const FILES: u64 = 1;
/// Device number of all directories. Directories have no inodes on the simulated disk.
const DIRECTORIES: u64 = 2;

fn file_id(inode: usize) -> FileId {
    FileId {
        device: FILES,
        inode: inode as u64,
    }
}

impl SimDisk {
    fn file(&self, inode: usize, path: &Path) -> Arc<dyn File> {
        Arc::new(SimFile {
            disk: self.clone(),
            inode,
            path: path.to_owned(),
        })
    }

    fn open_as(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.decide(DiskOperation::Open, path)?;
        let inode = state.inode(path)?;
        Ok(self.file(inode, path))
    }
}

impl Fs for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open_as(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut state = self.state();
        state.decide(DiskOperation::Create, path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.names.len() >= state.max_files {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.names.insert(path.to_owned(), inode);
        Ok(self.file(inode, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.decide(DiskOperation::Rename, from)?;
        let inode = state.inode(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.decide(DiskOperation::Remove, path)?;
        state.inode(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.decide(DiskOperation::Other, path)?;
        let number = state.directories.len() as u64;
        state.directories.entry(path.to_owned()).or_insert(number);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.decide(DiskOperation::SyncDir, path)?;
        let inside = |name: &PathBuf| name.parent() == Some(path);
        state.durable_names.retain(|name, _| !inside(name));
        let live: Vec<_> = state
            .names
            .iter()
            .filter(|(name, _)| inside(name))
            .map(|(name, inode)| (name.clone(), *inode))
            .collect();
        state.durable_names.extend(live);
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state();
        state.decide(DiskOperation::Other, path)?;
        Ok(state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path))
            .cloned()
            .collect())
    }

    // Looking up an identity is not an operation that can fail, because the tests count the
    // operations that change or read the disk.
    fn id(&self, path: &Path) -> io::Result<FileId> {
        let state = self.state();
        if let Some(number) = state.directories.get(path) {
            return Ok(FileId {
                device: DIRECTORIES,
                inode: *number,
            });
        }
        state.inode(path).map(file_id)
    }
}
