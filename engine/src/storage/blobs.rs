//! Blobs: the body of each large document is stored in a separate file. Each value of the document
//! is an extent of the blob file.
//!
//! ```text
//!  0 28B  file header (see `format/file_header.rs`), magic "PREFDBLB"; the id field holds
//!         the low 32 bits of the blob id, and the file name holds the complete blob id
//! 28      the body of the document, as a response sends it; the body contains the extents
//! ```
//!
//! A blob is written once and never changed. A blob is on stable storage before a frame that
//! refers to it is written. A blob's file is removed when neither a current frame nor a snapshot
//! needs the blob. A reader that has a removed file open can still read the complete file.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::format::file_header::{self, FileKind, FormatVersion, StoreId};
use crate::model::error::{Error, Result};
use crate::model::ids::BlobId;
use crate::model::names::NamespaceHash;
use crate::platform::aligned::AlignedBuffer;
use crate::platform::fs::{File, FileId, Fs};
use crate::platform::wakeup::Wakeup;
use crate::storage::commit_leader::CommitLeader;
use crate::storage::io::{
    check_path, list_if_present, open_stored, read_at, remove_if_present, stable_id,
};
use crate::storage::pins::PinRegistry;

/// The file kind of blobs, whose layout has not changed since version 1.
const KIND: FileKind = FileKind {
    magic: *b"PREFDBLB",
    written: FormatVersion::V1,
};
/// Length of the file header, and offset of the body.
pub(crate) const HEADER_BYTES: u64 = 28;
/// Minimum capacity of a buffer for reading a value back. glibc allocates each buffer of more than
/// 32 MiB with mmap(2). Unused pages of such a buffer occupy no memory, and the buffer is unmapped
/// when it is freed. The memory of a smaller buffer can remain allocated in a thread's arena after
/// the buffer is freed (mallopt(3), `M_MMAP_THRESHOLD`).
const MIN_MAPPED_BYTES: usize = 33 * 1024 * 1024;
/// Size of the write buffer, and of the pieces that larger writes are split into. The buffer is
/// small enough that its bytes are still in the processor's cache when the system copies them to
/// the page cache.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// Minimum size in bytes of a value that is synced while it is validated. For a smaller value,
/// starting a thread would take longer than the validation, so nothing would be gained.
const MIN_CONCURRENT_SYNC_BYTES: usize = 1024 * 1024;

/// Number of referenced blobs whose origin is checked when a store is opened. If a directory was
/// replaced by that of another store, no blob belongs to this store, so a few are sufficient.
const CHECKED_REFERENCES: usize = 16;

/// The blob files of a store.
pub(crate) struct BlobStore {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store: StoreId,
    next_id: AtomicU64,
    /// The blobs to which the newest frame of each namespace refers. A namespace without blobs is
    /// not listed.
    references: Mutex<HashMap<NamespaceHash, Vec<BlobId>>>,
    /// Number of namespaces in `references`. While the number is 0, the commit leader does not need
    /// to lock the map. Only the [`CommitLeader`] changes `references`, so the number cannot change
    /// while the commit leader uses it.
    document_count: AtomicUsize,
    /// Number of blob syncs since the store was opened.
    syncs: AtomicU64,
    /// Obsolete blobs, whose files can be removed if no snapshot has pinned the blobs.
    obsolete: Mutex<Vec<BlobId>>,
    /// When a blob becomes obsolete, this signal wakes the thread that removes files.
    wakeup: Arc<Wakeup>,
    /// True if no blob can be created.
    is_read_only: bool,
}

impl BlobStore {
    /// Creates the blob directory if it does not exist, and lists the blob files in the directory.
    ///
    /// `references` lists the blobs of each namespace that has blobs. If `may_purge` is set, all
    /// blob files that are not in `references` become obsolete. Do not set `may_purge` if a damaged
    /// frame may be current, because `references` may then be incomplete.
    ///
    /// # Errors
    /// The errors of [`Self::check_origin`]; [`Error::StorageFull`], [`Error::Io`].
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store: StoreId,
        references: HashMap<NamespaceHash, Vec<BlobId>>,
        may_purge: bool,
        wakeup: Arc<Wakeup>,
    ) -> Result<Arc<Self>> {
        fs.create_dir(dir)
            .map_err(|error| Error::io("create", dir, error))?;
        let files = fs
            .list(dir)
            .map_err(|error| Error::io("list", dir, error))?;
        let mut blobs = Self::new(fs, dir, store, references, &files, wakeup);
        if !may_purge {
            blobs.obsolete = Mutex::default();
        }
        blobs.check_origin()?;
        Ok(Arc::new(blobs))
    }

    /// Lists the blob files in `dir` like [`Self::open`], but for reading only. A missing directory
    /// is treated as empty. All blob files that are not in `references` count as obsolete, but no
    /// file can be removed or created.
    pub(crate) fn open_read_only(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store: StoreId,
        references: HashMap<NamespaceHash, Vec<BlobId>>,
    ) -> Result<Arc<Self>> {
        let files = list_if_present(&*fs, dir)?;
        let wakeup = Arc::<Wakeup>::default();
        let mut blobs = Self::new(fs, dir, store, references, &files, wakeup);
        blobs.is_read_only = true;
        Ok(Arc::new(blobs))
    }

    /// `files` contains the paths of the files in `dir`.
    fn new(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store: StoreId,
        references: HashMap<NamespaceHash, Vec<BlobId>>,
        files: &[PathBuf],
        wakeup: Arc<Wakeup>,
    ) -> Self {
        let mut present: Vec<BlobId> = files.iter().filter_map(|path| parse_id(path)).collect();
        let mut live: Vec<BlobId> = references.values().flatten().copied().collect();
        live.sort_unstable();
        let highest = present
            .iter()
            .chain(&live)
            .max()
            .copied()
            .map_or(0, BlobId::get);
        present.retain(|id| live.binary_search(id).is_err());
        Self {
            fs,
            dir: dir.to_owned(),
            store,
            next_id: AtomicU64::new(highest.saturating_add(1)),
            document_count: AtomicUsize::new(references.len()),
            references: Mutex::new(references),
            syncs: AtomicU64::new(0),
            obsolete: Mutex::new(present),
            wakeup,
            is_read_only: false,
        }
    }

    /// Checks that the obsolete blobs and a sample of the other blobs belong to this store. A blob
    /// of another store is not left over from a crash: `log/` or `blobs/` was replaced by a
    /// directory of another store. The blob must not be removed, because a document of the other
    /// store may need it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the path of the first blob of another store.
    pub(crate) fn check_origin(&self) -> Result<()> {
        let mut checked = self.obsolete_ids();
        let references = self.references();
        checked.extend(references.values().flatten().take(CHECKED_REFERENCES));
        drop(references);
        for id in checked {
            let path = self.path(id);
            let len = usize::try_from(HEADER_BYTES).unwrap_or_default();
            let header = open_stored(&*self.fs, &path)
                .and_then(|file| read_at(&*file, || path.clone(), 0, len));
            // A blob that a crash has left can be shorter than a header.
            let store = header
                .ok()
                .and_then(|header| file_header::store_of(&header, KIND));
            if store.is_some_and(|store| store != self.store) {
                let what = "the blob belongs to another store than log/: move the original log/ or \
                            blobs/ back";
                return Err(Error::corrupt(&path, 0, what));
            }
        }
        Ok(())
    }

    /// The path of a blob's file.
    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(format!("{id}.blob"))
    }

    /// Opens a blob for reading and checks its header.
    ///
    /// # Errors
    /// - The errors of [`open_stored`] and [`read_at`].
    /// - [`Error::Corrupt`]: the header is damaged or belongs to another file.
    /// - [`Error::UnsupportedFormat`]: the blob was written by a newer version of prefd.
    pub(crate) fn open_blob(&self, id: BlobId) -> Result<Arc<dyn File>> {
        let path = self.path(id);
        let file = open_stored(&*self.fs, &path)?;
        let len = usize::try_from(HEADER_BYTES).unwrap_or_default();
        let header = read_at(&*file, || path.clone(), 0, len)?;
        file_header::check_header(&path, &header, KIND, low_half(id), self.store)?;
        Ok(file)
    }

    /// Creates a blob file, and adds the file header to the write buffer.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if the store is open for reading only; [`Error::StorageFull`],
    /// [`Error::Io`].
    pub(crate) fn create(self: &Arc<Self>) -> Result<BlobWriter> {
        if self.is_read_only {
            return Err(Error::ReadOnly {
                path: self.dir.parent().unwrap_or(&self.dir).to_owned(),
            });
        }
        let id = BlobId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        let path = self.path(id);
        let file = self
            .fs
            .create(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        let mut writer = BlobWriter {
            uncommitted: UncommittedBlob {
                blobs: Arc::clone(self),
                id,
                is_kept: false,
            },
            file_id: stable_id(&*self.fs, &path, &*file),
            path,
            file,
            written: 0,
            buffer: AlignedBuffer::with_capacity(WRITE_BUFFER_BYTES),
        };
        writer.buffer.restart_at(0);
        writer.write(&file_header::encode_header(KIND, low_half(id), self.store))?;
        Ok(writer)
    }

    /// Records that the newest frame of a namespace refers to `blobs`. For most frames, `blobs` is
    /// empty. If the previous frame of the namespace referred to other blobs, these blobs become
    /// obsolete. Call this function only after the newest frame is on stable storage.
    pub(crate) fn set_references(
        &self,
        leader: &CommitLeader,
        hash: NamespaceHash,
        blobs: &[BlobId],
    ) {
        if !self.would_change(leader, hash, blobs) {
            return;
        }
        let mut references = self.references();
        let before = if blobs.is_empty() {
            references.remove(&hash)
        } else {
            references.insert(hash, blobs.to_vec())
        };
        self.document_count
            .store(references.len(), Ordering::Relaxed);
        drop(references);
        for id in before.into_iter().flatten() {
            if !blobs.contains(&id) {
                self.remove(id);
            }
        }
    }

    /// Returns true if [`Self::set_references`] with the same arguments may change the references.
    pub(crate) fn would_change(
        &self,
        _leader: &CommitLeader,
        hash: NamespaceHash,
        blobs: &[BlobId],
    ) -> bool {
        if !blobs.is_empty() {
            return true;
        }
        self.document_count.load(Ordering::Relaxed) > 0 && {
            let references = self.references();
            references.contains_key(&hash)
        }
    }

    /// Marks a blob as obsolete. A later [`Self::purge`] removes the file. Unlinking a large file
    /// can take milliseconds, so a writer should not have to wait for the removal.
    fn remove(&self, id: BlobId) {
        self.obsolete().push(id);
        self.wakeup.notify();
    }

    fn references(&self) -> MutexGuard<'_, HashMap<NamespaceHash, Vec<BlobId>>> {
        self.references
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn obsolete(&self) -> MutexGuard<'_, Vec<BlobId>> {
        self.obsolete.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of obsolete blobs whose files still exist.
    pub(crate) fn obsolete_count(&self) -> u64 {
        self.obsolete().len() as u64
    }

    /// Removes the files of obsolete blobs, except those that a snapshot has pinned. If the removal
    /// of a file fails, the next purge tries again. If several removals fail, the first error is
    /// returned.
    pub(crate) fn purge(&self, pins: &PinRegistry) -> Result<()> {
        // A blob that is already obsolete cannot be pinned later, because a new pin includes only
        // blobs that current frames refer to.
        let obsolete = std::mem::take(&mut *self.obsolete());
        let mut outcome = Ok(());
        for id in obsolete {
            let removed = if pins.is_blob_pinned(id) {
                Ok(false)
            } else {
                remove_if_present(&*self.fs, &self.path(id)).map(|()| true)
            };
            if !matches!(removed, Ok(true)) {
                self.obsolete().push(id);
            }
            outcome = outcome.and(removed.map(drop));
        }
        outcome
    }

    /// The obsolete blobs whose files still exist.
    pub(crate) fn obsolete_ids(&self) -> Vec<BlobId> {
        self.obsolete().clone()
    }

    /// Syncs the blob directory, so that the creation and removal of blob files survive a crash.
    pub(crate) fn sync_dir_entries(&self) -> Result<()> {
        self.fs
            .sync_dir(&self.dir)
            .map_err(|error| Error::io("sync", &self.dir, error))
    }

    /// Returns the blobs that current frames refer to, sorted by id. For a namespace that is listed
    /// in `later`, the references in `later` take precedence over the recorded references.
    pub(crate) fn referenced_ids_with(
        &self,
        later: &[(NamespaceHash, Vec<BlobId>)],
    ) -> Vec<BlobId> {
        let references = self.references();
        let mut blobs: Vec<BlobId> = if later.is_empty() {
            references.values().flatten().copied().collect()
        } else {
            let later: HashMap<_, _> = later.iter().map(|(hash, blobs)| (hash, blobs)).collect();
            let earlier = references
                .iter()
                .filter(|(hash, _)| !later.contains_key(hash));
            let earlier = earlier.flat_map(|(_, blobs)| blobs);
            earlier
                .chain(later.values().copied().flatten())
                .copied()
                .collect()
        };
        drop(references);
        blobs.sort_unstable();
        blobs
    }

    fn sync(&self, file: &dyn File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync()
    }

    /// Number of blob syncs since the store was opened.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Returns the number of documents that are stored in blobs, and the number of their blobs.
    pub(crate) fn count(&self) -> (u64, u64) {
        let references = self.references();
        let blobs: usize = references.values().map(Vec::len).sum();
        (references.len() as u64, blobs as u64)
    }
}

/// Parses the blob id in a file name. Returns `None` if the file name is not that of a blob.
fn parse_id(path: &Path) -> Option<BlobId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".blob")?;
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok().map(BlobId::new))?
}

fn low_half(id: BlobId) -> u32 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "only the low half is needed"
    )]
    let low = id.get() as u32;
    low
}

/// A blob that no committed frame refers to yet. Dropping this value makes the blob obsolete,
/// unless [`Self::keep`] was called.
pub(crate) struct UncommittedBlob {
    blobs: Arc<BlobStore>,
    id: BlobId,
    is_kept: bool,
}

impl UncommittedBlob {
    /// Keeps the blob after this value is dropped. Call this function before a frame that refers to
    /// the blob is written.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Reverts [`Self::keep`]. Call this function only if it is certain that no frame on the disk
    /// refers to the blob.
    pub(crate) fn unkeep(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for UncommittedBlob {
    fn drop(&mut self) {
        if !self.is_kept {
            self.blobs.remove(self.id);
        }
    }
}

/// Writes a blob sequentially.
pub(crate) struct BlobWriter {
    uncommitted: UncommittedBlob,
    path: PathBuf,
    file: Arc<dyn File>,
    file_id: Option<FileId>,
    /// Number of bytes written to the file, without the bytes in the buffer.
    written: u64,
    buffer: AlignedBuffer,
}

impl BlobWriter {
    /// Returns the file offset of the next byte that [`Self::write`] appends.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    pub(crate) fn id(&self) -> BlobId {
        self.uncommitted.id
    }

    /// Appends bytes to the blob. The bytes are on stable storage only after [`Self::finish`] has
    /// returned.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let room = WRITE_BUFFER_BYTES - self.buffer.len();
            let Some((now, later)) = bytes.split_at_checked(room) else {
                self.buffer.tail_mut().extend_from_slice(bytes);
                return Ok(());
            };
            self.buffer.tail_mut().extend_from_slice(now);
            self.flush()?;
            bytes = later;
        }
    }

    /// Writes the buffer to the file. Does not sync.
    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(self.buffer.bytes(), self.written)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.restart_at(self.written);
        Ok(())
    }

    /// Reads a range of the written bytes into memory. `offset` is counted from the start of the
    /// file.
    pub(crate) fn read_back(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        self.flush()?;
        let len = usize::try_from(bytes)
            .map_err(|_| Error::io("read", &self.path, io::ErrorKind::OutOfMemory.into()))?;
        let mut buffer = Vec::with_capacity(len.max(MIN_MAPPED_BYTES));
        buffer.resize(len, 0);
        self.file
            .read_exact_at(&mut buffer, offset)
            .map_err(|error| Error::io("read", &self.path, error))?;
        Ok(buffer)
    }

    /// Runs `work`, which processes a value of `bytes` bytes that was just written. If the value is
    /// large, another thread syncs the file at the same time, so that the sync in [`Self::finish`]
    /// has fewer bytes to write.
    pub(crate) fn sync_during<T>(&mut self, bytes: usize, work: impl FnOnce() -> T) -> Result<T> {
        if bytes < MIN_CONCURRENT_SYNC_BYTES {
            return Ok(work());
        }
        self.flush()?;
        let file = &self.file;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("prefd-sync".to_owned());
            let blobs = &self.uncommitted.blobs;
            let sync = thread.spawn_scoped(scope, || blobs.sync(&**file));
            let done = work();
            // If the thread could not be started or has panicked, `finish` still syncs the bytes.
            match sync.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(Err(error))) => Err(Error::io("sync", &self.path, error)),
                Ok(Ok(Ok(())) | Err(_)) | Err(_) => Ok(done),
            }
        })
    }

    /// Syncs the blob and its directory. When this function returns without an error, the blob is
    /// on stable storage.
    pub(crate) fn finish(mut self) -> Result<UncommittedBlob> {
        self.flush()?;
        self.uncommitted
            .blobs
            .sync(&*self.file)
            .map_err(|error| Error::io("sync", &self.path, error))?;
        self.uncommitted.blobs.sync_dir_entries()?;
        // The blob is on stable storage only if the next open can find it.
        check_path(&*self.uncommitted.blobs.fs, &self.path, self.file_id)
            .map_err(|error| Error::io("find", &self.path, error))?;
        Ok(self.uncommitted)
    }
}
