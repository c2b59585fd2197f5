//! Blobs: one file for each large document, which its extents lie in.
//!
//! ```text
//! 0  28B  file header (see `format/file_header.rs`), magic "PREFDBLB"; the id field holds
//!         the low half of the blob's id, which is its file name
//! 28 the body as it is sent, whose values the extents are
//! ```
//!
//! A blob is written once and never changed. It is on stable storage before the
//! frame that names it is queued, and its name goes when no current frame names it:
//! a reader that has it open reads on.

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
use crate::platform::fs::{File, Fs};
use crate::platform::wakeup::Wakeup;
use crate::storage::io::{open_stored, read_at, remove_if_present};
use crate::storage::pins::PinRegistry;

/// Blobs; their layout is that of version 1.
const KIND: FileKind = FileKind {
    magic: *b"PREFDBLB",
    written: FormatVersion::V1,
};
/// Bytes before the body.
pub(crate) const HEADER_BYTES: u64 = 28;
/// A buffer of this capacity is mapped on its own and unmapped when it is freed, and
/// what of it is not used takes no memory. A smaller one can stay with the allocator,
/// in the arena of each thread that ever had one: glibc keeps what is below 32 MiB
/// (mallopt(3), `M_MMAP_THRESHOLD`).
const MAPPED_BYTES: usize = 33 * 1024 * 1024;
/// Writes are gathered up to this many bytes, and large ones cut: what was just copied
/// here is still near the processor when the system copies it.
const WRITE_BUFFER_BYTES: usize = 128 * 1024;

/// A value is synced while it is judged from this size on: to judge it takes longer than
/// to start a thread, by far.
const SYNC_DURING_BYTES: usize = 1024 * 1024;

/// The blob files of a store.
pub(crate) struct BlobStore {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    store: StoreId,
    next: AtomicU64,
    /// Which namespaces have blobs, and which. Only these: most have none.
    named: Mutex<HashMap<NamespaceHash, Vec<BlobId>>>,
    /// How many those are. Where there are none, committing threads need not hand the lock
    /// to each other. Who names is who asks, one at a time (`committer/turns.rs`).
    named_count: AtomicUsize,
    /// Of blobs, since the start.
    syncs: AtomicU64,
    /// Files that are to go.
    obsolete: Mutex<Vec<BlobId>>,
    /// Rung when there are any.
    wakeup: Arc<Wakeup>,
}

impl BlobStore {
    /// `named`: the blobs that current frames name. Files that none names are
    /// obsolete, if `sweep` says that the names are all known; they are of an
    /// earlier life, since nothing of this one has been written yet.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        store: StoreId,
        named: HashMap<NamespaceHash, Vec<BlobId>>,
        sweep: bool,
        wakeup: Arc<Wakeup>,
    ) -> Result<Arc<Self>> {
        fs.create_dir(dir)
            .map_err(|error| Error::io("create", dir, error))?;
        let mut present: Vec<BlobId> = fs
            .list(dir)
            .map_err(|error| Error::io("list", dir, error))?
            .iter()
            .filter_map(|path| parse_id(path))
            .collect();
        let mut live: Vec<BlobId> = named.values().flatten().copied().collect();
        live.sort_unstable();
        let highest = present
            .iter()
            .chain(&live)
            .max()
            .copied()
            .map_or(0, BlobId::get);
        present.retain(|id| sweep && live.binary_search(id).is_err());
        Ok(Arc::new(Self {
            fs,
            dir: dir.to_owned(),
            store,
            next: AtomicU64::new(highest.saturating_add(1)),
            named_count: AtomicUsize::new(named.len()),
            named: Mutex::new(named),
            syncs: AtomicU64::new(0),
            obsolete: Mutex::new(present),
            wakeup,
        }))
    }

    pub(crate) fn path(&self, id: BlobId) -> PathBuf {
        self.dir.join(format!("{id}.blob"))
    }

    /// Opens a blob for reading, its header checked.
    pub(crate) fn open_blob(&self, id: BlobId) -> Result<Arc<dyn File>> {
        let path = self.path(id);
        let file = open_stored(&*self.fs, &path)?;
        let len = usize::try_from(HEADER_BYTES).unwrap_or_default();
        let header = read_at(&*file, || path.clone(), 0, len)?;
        file_header::check_header(&path, &header, KIND, low_half(id), self.store)?;
        Ok(file)
    }

    /// A new blob, open for writing.
    pub(crate) fn create(self: &Arc<Self>) -> Result<BlobWriter> {
        let id = BlobId::new(self.next.fetch_add(1, Ordering::Relaxed));
        let path = self.path(id);
        let file = self
            .fs
            .create(&path)
            .map_err(|error| Error::io("create", &path, error))?;
        let mut writer = BlobWriter {
            draft: UncommittedBlob {
                blobs: Arc::clone(self),
                id,
                kept: false,
            },
            path,
            file,
            written: 0,
            gathered: AlignedBuffer::with_capacity(WRITE_BUFFER_BYTES),
        };
        writer.gathered.begin(0);
        writer.write(&file_header::encode_header(KIND, low_half(id), self.store))?;
        Ok(writer)
    }

    /// A namespace's newest frame names `blobs` (none, mostly); those that only its
    /// last one named are obsolete. To be called once that newest
    /// frame is on stable storage.
    pub(crate) fn name(&self, hash: NamespaceHash, blobs: &[BlobId]) {
        if !self.concerns(hash, blobs) {
            return;
        }
        let mut named = self.named();
        let before = if blobs.is_empty() {
            named.remove(&hash)
        } else {
            named.insert(hash, blobs.to_vec())
        };
        self.named_count.store(named.len(), Ordering::Relaxed);
        drop(named);
        for id in before.into_iter().flatten() {
            if !blobs.contains(&id) {
                self.remove(id);
            }
        }
    }

    /// Whether [`Self::name`] would change anything now.
    pub(crate) fn concerns(&self, hash: NamespaceHash, blobs: &[BlobId]) -> bool {
        if !blobs.is_empty() {
            return true;
        }
        self.named_count.load(Ordering::Relaxed) > 0 && {
            let named = self.named();
            named.contains_key(&hash)
        }
    }

    /// Has a blob that nothing names removed by the next sweep: unlinking a large file
    /// takes milliseconds that no writer should wait for.
    fn remove(&self, id: BlobId) {
        self.obsolete().push(id);
        self.wakeup.notify();
    }

    fn named(&self) -> MutexGuard<'_, HashMap<NamespaceHash, Vec<BlobId>>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn obsolete(&self) -> MutexGuard<'_, Vec<BlobId>> {
        self.obsolete.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that are to go.
    pub(crate) fn obsolete_count(&self) -> u64 {
        self.obsolete().len() as u64
    }

    /// Removes what is to go, unless a snapshot holds it. What cannot be removed now is by
    /// a later sweep, or at the next open; the error tells why.
    pub(crate) fn purge(&self, pins: &PinRegistry) -> Result<()> {
        // A pin on any of these was made before it was obsolete.
        let obsolete = std::mem::take(&mut *self.obsolete());
        let mut outcome = Ok(());
        for id in obsolete {
            let removed = if pins.holds_blob(id) {
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

    /// Files that are to go.
    pub(crate) fn obsolete_ids(&self) -> Vec<BlobId> {
        self.obsolete().clone()
    }

    /// Puts on stable storage that files are gone.
    pub(crate) fn sync_names(&self) -> Result<()> {
        self.fs
            .sync_dir(&self.dir)
            .map_err(|error| Error::io("sync", &self.dir, error))
    }

    /// The blobs that current frames name, in the order of their ids, once `later` is
    /// named too.
    pub(crate) fn named_with(&self, later: &[(NamespaceHash, Vec<BlobId>)]) -> Vec<BlobId> {
        let named = self.named();
        let mut blobs: Vec<BlobId> = if later.is_empty() {
            named.values().flatten().copied().collect()
        } else {
            let later: HashMap<_, _> = later.iter().map(|(hash, blobs)| (hash, blobs)).collect();
            let earlier = named.iter().filter(|(hash, _)| !later.contains_key(hash));
            let earlier = earlier.flat_map(|(_, blobs)| blobs);
            earlier
                .chain(later.values().copied().flatten())
                .copied()
                .collect()
        };
        drop(named);
        blobs.sort_unstable();
        blobs
    }

    fn sync(&self, file: &dyn File) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync()
    }

    /// Syncs of blobs since the start.
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Documents that lie in blobs, and the blobs that they lie in.
    pub(crate) fn count(&self) -> (u64, u64) {
        let named = self.named();
        let blobs: usize = named.values().map(Vec::len).sum();
        (named.len() as u64, blobs as u64)
    }
}

fn parse_id(path: &Path) -> Option<BlobId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".blob")?;
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok().map(BlobId::new))?
}

fn low_half(id: BlobId) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the low half is meant")]
    let low = id.get() as u32;
    low
}

/// A blob that no frame names yet: removed when dropped, unless it was kept.
pub(crate) struct UncommittedBlob {
    blobs: Arc<BlobStore>,
    id: BlobId,
    kept: bool,
}

impl UncommittedBlob {
    /// A frame that names it may be on the disk: it must stay.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// No frame that names it is on the disk after all.
    pub(crate) fn unkeep(&mut self) {
        self.kept = false;
    }
}

impl Drop for UncommittedBlob {
    fn drop(&mut self) {
        if !self.kept {
            self.blobs.remove(self.id);
        }
    }
}

/// Writes a blob from its start to its end.
pub(crate) struct BlobWriter {
    draft: UncommittedBlob,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Bytes handed to the file.
    written: u64,
    gathered: AlignedBuffer,
}

impl BlobWriter {
    /// The offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    pub(crate) fn id(&self) -> BlobId {
        self.draft.id
    }

    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            let room = WRITE_BUFFER_BYTES - self.gathered.len();
            let Some((now, later)) = bytes.split_at_checked(room) else {
                self.gathered.end().extend_from_slice(bytes);
                return Ok(());
            };
            self.gathered.end().extend_from_slice(now);
            self.flush()?;
            bytes = later;
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.file
            .write_all_at(self.gathered.bytes(), self.written)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.written += self.gathered.len() as u64;
        self.gathered.begin(self.written);
        Ok(())
    }

    /// Reads back what was written.
    pub(crate) fn read_back(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>> {
        self.flush()?;
        let len = usize::try_from(bytes)
            .map_err(|_| Error::io("read", &self.path, io::ErrorKind::OutOfMemory.into()))?;
        let mut buffer = Vec::with_capacity(len.max(MAPPED_BYTES));
        buffer.resize(len, 0);
        self.file
            .read_exact_at(&mut buffer, offset)
            .map_err(|error| Error::io("read", &self.path, error))?;
        Ok(buffer)
    }

    /// Does `work` on a value of `bytes` bytes that was written; meanwhile the disk
    /// writes too, so that less is left for the end.
    pub(crate) fn sync_during<T>(&mut self, bytes: usize, work: impl FnOnce() -> T) -> Result<T> {
        if bytes < SYNC_DURING_BYTES {
            return Ok(work());
        }
        self.flush()?;
        let file = &self.file;
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("prefd-sync".to_owned());
            let blobs = &self.draft.blobs;
            let sync = thread.spawn_scoped(scope, || blobs.sync(&**file));
            let done = work();
            // Without a thread, or with one that fails otherwise, it is for the end.
            match sync.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(Err(error))) => Err(Error::io("sync", &self.path, error)),
                Ok(Ok(Ok(())) | Err(_)) | Err(_) => Ok(done),
            }
        })
    }

    /// Puts the blob, and its name, on stable storage.
    pub(crate) fn finish(mut self) -> Result<UncommittedBlob> {
        self.flush()?;
        self.draft
            .blobs
            .sync(&*self.file)
            .map_err(|error| Error::io("sync", &self.path, error))?;
        self.draft.blobs.sync_names()?;
        Ok(self.draft)
    }
}
