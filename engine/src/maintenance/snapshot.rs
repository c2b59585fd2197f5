//! A snapshot is a consistent view of the files of an open store at one point in time.
//!
//! Creating a snapshot writes nothing to disk, so a snapshot can be created on a full disk, and
//! after an error has stopped all writes. Between two batches, the committer records the list of
//! segments, the length of the active segment, and the blobs that current frames refer to. The
//! recorded parts of these files never change afterwards: only the active segment grows, and new
//! frames are appended after its recorded length. The summary of the active segment, and a manifest
//! that lists this segment as sealed, are built in memory. Pins (`storage/pins.rs`) prevent the
//! removal of the snapshot's files.

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
use crate::platform::fs::File;
use crate::storage::io::{open_stored, stored_len};
use crate::storage::log::LogImage;
use crate::storage::log::directory::LogDirectory;
use crate::storage::pins::Pin;

/// A consistent copy of an open store, for backups.
///
/// A snapshot is a list of files. To make a copy of the store, write the files to an empty
/// directory and sync them. The directory can then be opened with [`crate::Engine::open`]. The copy
/// has the state of the store at a single point in time during the call of
/// [`crate::Engine::snapshot`]. The copy contains every write that was acknowledged before the
/// call, and no write that started after the call returned.
///
/// The files may be written in any order. [`Self::files`] returns the manifest as the last file. If
/// the manifest is written last, an interrupted copy has no manifest, so it cannot be opened by
/// mistake. The snapshot does not include the catalogue, which is built when the copy is opened for
/// the first time.
///
/// The copy has the same store id as the original. Each open of a store begins with a revision that
/// depends on the time and on random bits, so that the copy and the original do not use the same
/// revision for different documents.
///
/// # Lifetime
/// While a snapshot exists and the engine is open, the snapshot's files stay on disk, even if their
/// data is compacted, replaced or erased. After the snapshot is dropped, the compaction thread
/// removes those of its files that are obsolete. If [`crate::Config::background_compaction`] is
/// false, the next call of [`crate::Engine::compact`], [`crate::Engine::erase`] or
/// [`crate::Engine::close`] removes these files. Closing the engine invalidates the snapshot: later
/// reads of its files fail with [`Error::Closed`].
///
/// # Memory
/// A snapshot uses about 200 bytes for each file, and the memory of one segment's summary (up to 7
/// MiB).
///
/// # Examples
/// ```
/// use prefd_engine::{Config, Engine, WriteOptions};
/// # let dir = tempfile::tempdir().unwrap();
/// # let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
/// let engine = Engine::open(Config::new(&data))?;
/// let namespace = engine.namespace("alice", "editor")?;
/// namespace.write(b"{\"theme\":\"dark\"}", WriteOptions::default())?;
///
/// let snapshot = engine.snapshot()?;
/// for file in snapshot.files() {
///     let target = copy.join(file.path());
///     std::fs::create_dir_all(target.parent().unwrap())?;
///     let mut target = std::fs::File::create(target)?;
///     std::io::copy(&mut snapshot.open(file)?, &mut target)?;
///     target.sync_all()?;
/// }
///
/// let copy = Engine::open(Config::new(&copy))?;
/// assert_eq!(copy.documents(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot {
    directory: LogDirectory,
    pin: Arc<Pin>,
    revision: Option<Revision>,
    documents: u64,
    damaged_frames: u64,
    /// The damage of truncated files, and of files that were omitted from `files`.
    damage: Vec<Damage>,
    files: Vec<SnapshotFile>,
}

/// A file of a [`Snapshot`]. Call [`Snapshot::open`] to read the file.
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
    /// The summary of a sealed segment, which is built from the frames each time it is opened. The
    /// summaries of several segments could use too much memory.
    Summary(SegmentId, SealedSegment),
}

impl SnapshotFile {
    /// Returns the path of the file relative to the data directory, with slashes as separators.
    /// Examples are `log/manifest`, `log/00000001.seg`, `log/00000001.sum` and
    /// `blobs/0000000000000001.blob`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the length of the file in the snapshot, in bytes. The file on disk may be longer.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Snapshot {
    /// Implements [`crate::Engine::snapshot`].
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
            directory: core.directory.clone(),
            pin: Arc::new(pin),
            revision: newest.map(Revision::new),
            documents,
            damaged_frames,
            damage: Vec::new(),
            files: Vec::new(),
        };
        for (id, segment) in sealed {
            let bytes = segment.bytes;
            snapshot.add("log", file_header::segment_path(log, id), Some(bytes))?;
            let path = summary::entry::summary_path(log, id);
            match &unsealed {
                Some((unsealed, summary)) if *unsealed == id => {
                    snapshot.add_from_memory(
                        "log",
                        &path,
                        summary::encode(summary, id, store, bytes),
                    );
                }
                _ => snapshot.add_summary("log", path, id, segment)?,
            }
        }
        for id in blobs {
            snapshot.add("blobs", core.write_context.blobs.path(id), None)?;
        }
        let path = Manifest::path(log);
        snapshot.add_from_memory("log", &path, manifest.encode(&path)?);
        // If the engine was closed during this call, files of the snapshot may have been removed.
        // In this case, the check of the pin returns an error.
        snapshot.pin.check()?;
        Ok(snapshot)
    }

    /// Adds the first `bytes` bytes of a file, or the complete file if `bytes` is `None`. If the
    /// file is missing or cannot be opened, the file is omitted from the snapshot. If the file is
    /// too short, all its bytes are added. In all these cases, the damage is added to
    /// `self.damage`.
    fn add(&mut self, folder: &str, path: PathBuf, bytes: Option<u64>) -> Result<()> {
        let file = open_stored(&*self.directory.fs, &path);
        let len = match file.and_then(|file| stored_len(&*file, &path)) {
            Ok(len) => len,
            Err(error) => {
                self.damage.push(unavailable_file(error)?);
                return Ok(());
            }
        };
        if bytes.is_some_and(|bytes| len < bytes) {
            let damage = Damage::new(&path, len, "the file is truncated");
            self.damage.push(damage);
        }
        self.files.push(SnapshotFile {
            path: relative_path(folder, &path),
            bytes: len.min(bytes.unwrap_or(u64::MAX)),
            content: SnapshotContent::Disk(path),
        });
        Ok(())
    }

    /// Adds the summary of a sealed segment. If the store is open for reading only, a summary that
    /// recovery would have written is built from the frames. A missing summary is not damage,
    /// because the summary is derived from the segment.
    fn add_summary(
        &mut self,
        folder: &str,
        path: PathBuf,
        id: SegmentId,
        sealed: SealedSegment,
    ) -> Result<()> {
        if self.directory.ignores_summary(id)
            && let Ok(bytes) = encoded_summary(&self.directory, id, sealed)
        {
            self.files.push(SnapshotFile {
                path: relative_path(folder, &path),
                bytes: bytes.len() as u64,
                content: SnapshotContent::Summary(id, sealed),
            });
            return Ok(());
        }
        match open_stored(&*self.directory.fs, &path) {
            Err(Error::Corrupt { .. }) => Ok(()),
            _ => self.add(folder, path, None),
        }
    }

    fn add_from_memory(&mut self, folder: &str, path: &Path, bytes: Vec<u8>) {
        self.files.push(SnapshotFile {
            path: relative_path(folder, path),
            bytes: bytes.len() as u64,
            content: SnapshotContent::Memory(bytes.into()),
        });
    }

    /// Returns the newest revision in the snapshot, or `None` if the snapshot has no frames. The
    /// snapshot contains the effects of all writes up to the newest revision, and no effects of
    /// later writes.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Returns the number of documents in the snapshot.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Returns the number of damaged frames in the snapshot that may be current
    /// ([`crate::SpaceUsage::damaged_frames`]). A copy of the store contains the same damaged
    /// frames.
    pub fn damaged_frames(&self) -> u64 {
        self.damaged_frames
    }

    /// Returns the damage of files that are truncated, and of files that were omitted from the
    /// snapshot because they are missing or cannot be opened.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Returns the sum of the lengths of all files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(SnapshotFile::bytes).sum()
    }

    /// Returns the files of the snapshot, with the manifest as the last file.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.files
    }

    /// Opens a file of this snapshot for reading. Blocks on the disk. The reader of a file on disk
    /// uses one file descriptor until it is dropped.
    ///
    /// # Errors
    /// - [`Error::Closed`]: the engine is closed.
    /// - [`Error::Corrupt`], [`Error::Unreadable`]: the file has been removed or damaged since the
    ///   snapshot was taken.
    /// - [`Error::Io`]: the file cannot be opened.
    pub fn open(&self, file: &SnapshotFile) -> Result<SnapshotReader> {
        self.pin.check()?;
        let source = match &file.content {
            SnapshotContent::Memory(bytes) => SnapshotSource::Memory(bytes.clone()),
            SnapshotContent::Summary(id, sealed) => {
                let bytes = encoded_summary(&self.directory, *id, *sealed)?;
                SnapshotSource::Memory(bytes.into())
            }
            SnapshotContent::Disk(path) => match open_stored(&*self.directory.fs, path) {
                Ok(file) => SnapshotSource::Disk {
                    file,
                    path: path.clone(),
                },
                Err(error) => {
                    // The file may be missing because the engine was closed after the first check.
                    // In this case, the second check returns `Closed`, which explains the failure
                    // better than `error`.
                    self.pin.check()?;
                    return Err(error);
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

/// A reader of one file of a [`Snapshot`]. While a reader exists and the engine is open, all files
/// of the snapshot stay on disk, even after the snapshot is dropped.
///
/// The reader returns exactly [`SnapshotFile::bytes`] bytes, or fails. Reads may block on disk I/O,
/// except reads of files that the snapshot builds in memory. After the engine is closed, reads fail
/// with an [`io::Error`] that contains [`Error::Closed`].
///
/// A block of 4 KiB that cannot be read is replaced by zeros, so that the rest of the file can be
/// copied. The zeros are not mistaken for data, because all data has checksums. The copy is thus
/// damaged in the same places as the original. [`Self::damage`] reports the first replaced block.
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

/// Length of a block, in bytes. If a read fails, the same range is read again block by block. Disks
/// and file systems usually fail in units of this size.
const SALVAGE_BLOCK_BYTES: usize = 4096;

impl SnapshotReader {
    /// Returns the damage of the first block that could not be read and was replaced by zeros.
    /// Returns `None` if no block has been replaced so far.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Fills `buffer` from the file, block by block. A block that cannot be read is filled with
    /// zeros.
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

/// Builds the summary file of a sealed segment from the frames of the segment.
fn encoded_summary(
    directory: &LogDirectory,
    id: SegmentId,
    sealed: SealedSegment,
) -> Result<Vec<u8>> {
    let SealedSegment {
        bytes,
        last_revision,
    } = sealed;
    let summary = directory.summary_from_frames(id, bytes, last_revision)?;
    Ok(summary::encode(&summary, id, directory.store, bytes))
}

/// The error numbers that Linux returns if the process or the machine has no free file descriptor
/// or no free memory: `ENOMEM`, `ENFILE` and `EMFILE`. These errors say nothing about the file.
const RESOURCE_ERRNOS: [i32; 3] = [12, 23, 24];

/// Converts the error of a file that cannot be opened to a damage, so that the other files can be
/// copied.
///
/// # Errors
/// Returns `error` if its cause is not the file.
fn unavailable_file(error: Error) -> Result<Damage> {
    if let Some(damage) = Damage::from_error(&error) {
        return Ok(damage);
    }
    match &error {
        Error::Io { op, path, source } => match source.raw_os_error() {
            Some(errno) if RESOURCE_ERRNOS.contains(&errno) => Err(error),
            _ => Ok(Damage::new(
                path,
                0,
                format!("cannot {op} the file: {source}"),
            )),
        },
        _ => Err(error),
    }
}

/// Returns the path of a file relative to the data directory. `folder` is the name of the directory
/// that contains the file.
fn relative_path(folder: &str, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    format!("{folder}/{}", name.to_string_lossy())
}
