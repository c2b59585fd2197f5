//! Seals the previous active segment in place, if the disk has no space for a new segment.
//!
//! Recovery usually copies the frames after the watermark to a new segment, see the parent module.
//! On a full disk, this is impossible. The frames are then written again at their old offsets,
//! which usually needs no space, and synced. The segment is sealed at its last valid frame. If the
//! manifest cannot be written either, the seal exists only in memory, and the next open repeats it.
//!
//! On a read-only file system, nothing is written. A store that is opened with
//! [`crate::Config::read_only`] is never sealed in place, see `recovery/read_only.rs`.

use std::io;
use std::path::Path;

use crate::format::file_header;
use crate::format::manifest::{Manifest, SealedSegment, SegmentRecord};
use crate::format::summary::entry;
use crate::index::loader::RecoveryLoader;
use crate::model::error::{Error, Result};
use crate::model::ids::SegmentId;
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::manifest_file;
use crate::storage::log::scan::{RevisionLimits, SegmentScan};

/// Number of bytes that are read and written again at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Returns true if `error` means that nothing more can be written at the moment, although the files
/// can be read.
pub(super) fn has_no_space(error: &Error) -> bool {
    match error {
        Error::StorageFull { .. } => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::ReadOnlyFilesystem,
        _ => false,
    }
}

/// Treats an error for which [`has_no_space`] returns true as a success. Use this function only for
/// steps that a later open repeats.
pub(super) fn unless_no_space(outcome: Result<()>) -> Result<()> {
    match outcome {
        Err(error) if has_no_space(&error) => Ok(()),
        outcome => outcome,
    }
}

/// Repeats `write` until the disk has enough space, or `free_space` returns false.
fn with_space(write: impl Fn() -> Result<()>, free_space: &dyn Fn() -> bool) -> Result<()> {
    let mut written = write();
    while matches!(written, Err(Error::StorageFull { .. })) && free_space() {
        written = write();
    }
    written
}

impl LogDirectory {
    /// Seals the previous active segment at its last valid frame, and loads its frames.
    pub(super) fn seal_in_place(
        &self,
        manifest: &mut Manifest,
        documents: &mut RecoveryLoader,
        (record, scan): (SegmentRecord, &SegmentScan),
        free_space: &dyn Fn() -> bool,
    ) -> Result<()> {
        let id = record.id;
        let path = file_header::segment_path(&self.dir, id);
        let end = last_valid_byte(scan);
        // A copy-on-write file system needs free space even to overwrite existing bytes.
        let rewrite = || self.rewrite(&path, scan.watermark, end);
        unless_no_space(with_space(rewrite, free_space))?;
        if scan.valid_end() == u64::MAX {
            self.free_preallocated(&path, end);
        }
        let summary = scan.summary(end, RevisionLimits::of_active(manifest));
        let sealed = manifest_sealed_at(manifest, id, scan, end);
        if summary.len() > 0 {
            // A summary that an earlier open has written may describe fewer frames.
            if self.write_summary(id, &summary, end).is_err() {
                let _ = self.fs.remove(&entry::summary_path(&self.dir, id));
            }
        }
        // From now on, an invalid frame in the segment is damage, and never a torn write. This
        // needs to be recorded, even if the reserve must be used.
        let stage = || manifest_file::stage(&sealed, &*self.fs, &self.dir);
        match with_space(stage, free_space) {
            Ok(()) => manifest_file::install(&*self.fs, &self.dir)?,
            Err(error) => unless_no_space(Err(error))?,
        }
        *manifest = sealed;
        documents.load(self, id, summary.entries(), summary.blobs());
        Ok(())
    }

    /// Writes the bytes of a segment from `offset` to `end` again, and syncs the segment. A sync
    /// alone would not be sufficient: if a sync of the previous process has failed, the kernel may
    /// treat the bytes in the page cache as synced, although they are not on stable storage.
    fn rewrite(&self, path: &Path, mut offset: u64, end: u64) -> Result<()> {
        let failed = |op| move |error| Error::io(op, path, error);
        let file = self.fs.open_for_write(path).map_err(failed("open"))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES);
            let chunk = buffer.get_mut(..left.min(CHUNK_BYTES)).unwrap_or_default();
            file.read_exact_at(chunk, offset)
                .map_err(|error| Error::unreadable(path, offset, error))?;
            file.write_all_at(chunk, offset).map_err(failed("write"))?;
            offset += chunk.len() as u64;
        }
        file.sync().map_err(failed("sync"))
    }

    /// Removes the zeros after the last frame, which the previous process has preallocated. Errors
    /// are ignored, because the zeros only use disk space.
    fn free_preallocated(&self, path: &Path, end: u64) {
        if let Ok(file) = self.fs.open_for_write(path) {
            let _ = file.set_len(end);
        }
    }
}

/// Returns a manifest that lists the active segment `id` as sealed at `end`. If no frame or damage
/// lies before `end`, the returned manifest does not list the segment.
pub(super) fn manifest_sealed_at(
    manifest: &Manifest,
    id: SegmentId,
    scan: &SegmentScan,
    end: u64,
) -> Manifest {
    let mut sealed = manifest.clone();
    sealed.segments.retain(|record| record.id != id);
    if end > file_header::HEADER_BYTES {
        // If a frame is damaged, its revision can be higher than those of the valid frames.
        let last_revision = if scan.has_damage_before(end) {
            RevisionLimits::of_active(manifest).last
        } else {
            scan.last_revision
        };
        sealed.segments.push(SegmentRecord {
            id,
            sealed: Some(SealedSegment {
                bytes: end,
                last_revision,
            }),
        });
    }
    sealed
}

/// Returns the end of the last frame that recovery keeps.
pub(super) fn last_valid_byte(scan: &SegmentScan) -> u64 {
    let valid_end = scan.valid_end();
    let kept = scan.items.iter();
    kept.take_while(|item| u64::from(item.offset) < valid_end)
        .last()
        .map_or(file_header::HEADER_BYTES, |item| {
            u64::from(item.offset) + u64::from(item.bytes)
        })
}
