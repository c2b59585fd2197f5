//! Snapshots: the files of the store as they stand at one moment, while it is written.
//!
//! Nothing is written for one, so that it can be had on a full disk and once writing has
//! stopped: who commits says, between two batches, which segments there are, how far the
//! one that is being written has come, and which blobs are named. Of these files only the
//! last grows, and behind what the snapshot has of it. Its summary, and the manifest in
//! which it is sealed, are made in memory. `pins.rs` has the files stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;

use crate::commit::core::Core;
use crate::commit::job::SnapshotPoint;
use crate::format::manifest::{Manifest, SealedSegment};
use crate::format::{file_header, summary};
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::model::revision::Revision;
use crate::platform::fs::{File, Fs};
use crate::storage::io::{open_stored, stored_len};
use crate::storage::log::LogImage;
use crate::storage::pins::Pin;

/// Everything that was acknowledged at one moment, held so that it can be read at leisure.
///
/// Its files, written to an empty directory in any order and synced, are a data directory
/// that [`crate::Engine::open`] opens: with every write that was acknowledged before
/// [`crate::Engine::snapshot`] was called, with none that was begun after it returned, and
/// with the state of one moment in between. The catalogue is not a part of it, and is built
/// when the copy is opened first. The manifest comes last, so that a copy that was cut
/// short is none. The copy is the same store, by its id, and goes on with revisions a
/// trillion ahead, so that they are none that the original has given out meanwhile.
///
/// While it lives, what it holds stays on the disk, compacted, replaced and erased or not;
/// it goes once the last snapshot of it is dropped ([`crate::Config::background_compaction`]
/// says by whom). Closing the engine ends it: what is read from it then fails. It takes
/// some 200 bytes of memory for each file, and a summary of one segment, up to 7 MiB.
pub struct Snapshot {
    fs: Arc<dyn Fs>,
    pin: Arc<Pin>,
    revision: Option<Revision>,
    documents: u64,
    damaged_frames: u64,
    /// Files that could not be opened, and are left out.
    damage: Vec<Damage>,
    files: Vec<SnapshotFile>,
}

/// A file of a [`Snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    path: String,
    bytes: u64,
    content: SnapshotContent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum SnapshotContent {
    Disk(PathBuf),
    Memory(Bytes),
}

impl SnapshotFile {
    /// Its path in the data directory, with slashes: `log/manifest`, `log/00000001.seg`,
    /// `log/00000001.sum`, `blobs/0000000000000001.blob`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its length. A snapshot has exactly these bytes of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Snapshot {
    /// Takes one. Blocks until who commits has come to the end of a batch, and then for a
    /// look at each file.
    pub(crate) fn take(core: &Core) -> Result<Self> {
        let SnapshotPoint {
            image: LogImage { manifest, unsealed },
            blobs,
            documents,
            damaged_frames,
            pin,
        } = core.queue.snapshot_point()?;
        let (log, store) = (&core.directory.dir, manifest.store);
        let sealed: Vec<(SegmentId, SealedSegment)> = manifest
            .segments
            .iter()
            .filter_map(|record| Some((record.id, record.sealed?)))
            .collect();
        let newest = sealed.iter().map(|(_, sealed)| sealed.last_revision).max();
        let mut snapshot = Self {
            fs: Arc::clone(&core.directory.fs),
            pin: Arc::new(pin),
            revision: newest.map(Revision::new),
            documents,
            damaged_frames,
            damage: Vec::new(),
            files: Vec::new(),
        };
        for (id, SealedSegment { bytes, .. }) in sealed {
            snapshot.add("log", file_header::path(log, id), bytes)?;
            let path = summary::entry::path(log, id);
            match &unsealed {
                Some((unsealed, summary)) if *unsealed == id => {
                    snapshot.add_made("log", &path, summary::encode(summary, id, store, bytes));
                }
                _ => snapshot.add("log", path, u64::MAX)?,
            }
        }
        for id in blobs {
            snapshot.add("blobs", core.write_context.blobs.path(id), u64::MAX)?;
        }
        let path = Manifest::path(log);
        snapshot.add_made("log", &path, manifest.encode(&path)?);
        // Until here a close may have removed what was looked for.
        snapshot.pin.check()?;
        Ok(snapshot)
    }

    /// Adds up to `max_bytes` of a file, as many as there are. A file that is too short or
    /// missing is so in the copy, and one that the disk does not open is left out.
    fn add(&mut self, folder: &str, path: PathBuf, max_bytes: u64) -> Result<()> {
        let file = open_stored(&*self.fs, &path);
        let len = match file.and_then(|file| stored_len(&*file, &path)) {
            Ok(len) => len,
            Err(Error::Corrupt { .. }) => return Ok(()),
            Err(error) => {
                self.damage.push(Damage::from_error(&error).ok_or(error)?);
                return Ok(());
            }
        };
        self.files.push(SnapshotFile {
            path: within(folder, &path),
            bytes: len.min(max_bytes),
            content: SnapshotContent::Disk(path),
        });
        Ok(())
    }

    fn add_made(&mut self, folder: &str, path: &Path, bytes: Vec<u8>) {
        self.files.push(SnapshotFile {
            path: within(folder, path),
            bytes: bytes.len() as u64,
            content: SnapshotContent::Memory(bytes.into()),
        });
    }

    /// The newest revision in it; `None` where nothing is. Of what was acknowledged up to
    /// this revision it has everything that was not replaced by then, and of what came
    /// later nothing.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Documents in it, exactly.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Frames in it that are known to be damaged: the copy has them as they are
    /// ([`crate::SpaceUsage::damaged_frames`]).
    pub fn damaged_frames(&self) -> u64 {
        self.damaged_frames
    }

    /// Files that the disk did not open, and that the copy lacks.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(SnapshotFile::bytes).sum()
    }

    /// Its files. The manifest comes last.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// Opens one of its files for reading from its start. Blocks on the disk. One
    /// descriptor, until the reader is dropped.
    ///
    /// # Errors
    /// [`Error::Closed`] where the engine is; [`Error::Io`].
    pub fn open(&self, file: &SnapshotFile) -> Result<SnapshotReader> {
        self.pin.check()?;
        let source = match &file.content {
            SnapshotContent::Memory(bytes) => SnapshotSource::Memory(bytes.clone()),
            SnapshotContent::Disk(path) => match self.fs.open(path) {
                Ok(file) => SnapshotSource::Disk {
                    file,
                    path: path.clone(),
                },
                Err(error) => {
                    // A close may have come in between.
                    self.pin.check()?;
                    return Err(Error::io("open", path, error));
                }
            },
        };
        Ok(SnapshotReader {
            pin: Arc::clone(&self.pin),
            source,
            offset: 0,
            bytes: file.bytes,
            damage: None,
        })
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision())
            .field("documents", &self.documents())
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// The bytes of one file of a [`Snapshot`], which it keeps on the disk.
///
/// It yields exactly [`SnapshotFile::bytes`] bytes, or fails: with the error of the system,
/// or with [`Error::Closed`] inside once the engine is closed. Each read blocks on the disk.
///
/// If the disk does not return a part of the file, zeros take its place, in blocks of 4 KiB,
/// so that the rest can be saved. Zeros never pass for stored bytes, because everything is
/// checksummed: the copy is damaged there, as the original is. [`Self::damage`] tells.
pub struct SnapshotReader {
    pin: Arc<Pin>,
    source: SnapshotSource,
    offset: u64,
    bytes: u64,
    damage: Option<Damage>,
}

enum SnapshotSource {
    Disk { file: Arc<dyn File>, path: PathBuf },
    Memory(Bytes),
}

/// What is read again on its own after a failed read: the size in which disks and file
/// systems fail.
const SALVAGE_BLOCK_BYTES: usize = 4096;

impl SnapshotReader {
    /// The first place of the file that could not be read and came as zeros; `None` if there
    /// was none so far.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Reads block by block what could not be read at once.
    fn salvage(&mut self, file: &dyn File, path: &Path, buffer: &mut [u8]) -> io::Result<()> {
        let mut offset = self.offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let in_block = usize::try_from(offset % SALVAGE_BLOCK_BYTES as u64).unwrap_or_default();
            let len = (SALVAGE_BLOCK_BYTES - in_block).min(rest.len());
            let (block, later) = rest.split_at_mut(len);
            if let Err(error) = file.read_exact_at(block, offset) {
                if error.kind() == io::ErrorKind::UnexpectedEof {
                    return Err(error);
                }
                block.fill(0);
                let what = format!("a read failed: {error}");
                self.damage
                    .get_or_insert_with(|| Damage::new(path, offset, what));
            }
            offset += len as u64;
            rest = later;
        }
        Ok(())
    }
}

impl io::Read for SnapshotReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.pin.check().map_err(io::Error::other)?;
        let left = usize::try_from(self.bytes - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..wanted).filter(|_| wanted > 0) else {
            return Ok(0);
        };
        match &self.source {
            SnapshotSource::Disk { file, path } => match file.read_exact_at(buffer, self.offset) {
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                    let (file, path) = (Arc::clone(file), path.clone());
                    self.salvage(&*file, &path, buffer)?;
                }
                read => read?,
            },
            SnapshotSource::Memory(bytes) => {
                let start = usize::try_from(self.offset).map_err(io::Error::other)?;
                let from = bytes.get(start..start + wanted);
                buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        self.offset += wanted as u64;
        Ok(wanted)
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("offset", &self.offset)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The path of a file in the data directory.
fn within(folder: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{folder}/{}", name.to_string_lossy())
}
