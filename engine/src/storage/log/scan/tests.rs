use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::platform::fs::{Disk, FileId};
use crate::storage::log::scan::*;
use crate::{Config, Engine, WriteOptions};

/// A file whose first reported length is too high, as if the file had been truncated after the
/// first call of `len`.
struct TruncatingFile {
    file: Arc<dyn File>,
    is_asked: AtomicBool,
}

impl File for TruncatingFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        let was_asked = self.is_asked.swap(true, Ordering::Relaxed);
        Ok(self.file.len()? + if was_asked { 0 } else { 4096 })
    }

    fn id(&self) -> io::Result<FileId> {
        self.file.id()
    }
}

struct TruncatingFs;

impl Fs for TruncatingFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(TruncatingFile {
            file: Disk.open(path)?,
            is_asked: AtomicBool::new(false),
        }))
    }

    fn open_for_write(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Disk.open_for_write(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Disk.create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(path)
    }

    fn id(&self, path: &Path) -> io::Result<FileId> {
        Disk.id(path)
    }
}

#[test]
fn segment_sealed_during_a_scan_is_scanned_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::open(Config::new(dir.path())).unwrap();
    let namespace = engine.namespace("u", "c").unwrap();
    namespace.write(b"{}", WriteOptions::default()).unwrap();
    engine.close().unwrap();
    let log = dir.path().join("log");
    let manifest = crate::storage::log::manifest_file::read(&Disk, &log)
        .unwrap()
        .unwrap();
    let of = (manifest.segments[0].id, manifest.store, &manifest.hash_key);
    let scanned = scan(&TruncatingFs, &log, of, None).unwrap();
    assert_eq!(scanned.items.len(), 1);
}
