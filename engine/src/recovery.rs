//! Recovery opens the log of a store, and builds the table from the log.
//!
//! Recovery reads the manifest, the summaries of the sealed segments, and the frames of the active
//! segment. docs/format.md explains manifests, segments, summaries and frames. The engine serves
//! reads only after recovery is complete. When recovery is complete, every frame to which the table
//! refers is on stable storage, except on a read-only file system.

mod in_place;
mod load;
mod read_only;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::manifest::{Manifest, SealedSegment, SegmentRecord};
use crate::format::summary::entry;
use crate::index::accounting::SegmentAccounting;
use crate::index::loader::RecoveryLoader;
use crate::index::table::Table;
use crate::model::damage::{Damage, DroppedTail};
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::model::names::NamespaceHash;
use crate::platform::clock::Clock;
use crate::platform::fs::Fs;
use crate::recovery::in_place::has_no_space;
use crate::recovery::load::LoadedLog;
use crate::storage::log::active::{ActiveSegment, FrameWrite};
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::first_revision::first_revision;
use crate::storage::log::reader::{Frame, FrameReader};
use crate::storage::log::scan::{RevisionLimits, ScanFound, ScanItem, SegmentScan, ValidFrame};
use crate::storage::log::{Log, LogState, manifest_file};

/// The parts of an open store that recovery creates.
pub(crate) struct RecoveredStore {
    pub(crate) directory: LogDirectory,
    pub(crate) table: Table,
    pub(crate) accounting: SegmentAccounting,
    pub(crate) log: Log,
    /// The reserved revision of the manifest before recovery.
    pub(crate) reserved_revision: u64,
    pub(crate) reader: FrameReader,
    /// The first damage of each segment in which a damaged frame may be current.
    pub(crate) damage: Vec<Damage>,
    /// The namespaces of damaged frames, including stale frames.
    pub(crate) damaged_namespaces: Vec<NamespaceHash>,
    /// The bytes that recovery has dropped at the end of the log, if any.
    pub(crate) dropped: Option<DroppedTail>,
    /// The blobs that current frames refer to, grouped by namespace.
    pub(crate) blobs: HashMap<NamespaceHash, Vec<BlobId>>,
}

/// Recovers the log in `dir`. Creates the directory and an empty log if they do not exist.
///
/// On a full disk, an existing log is recovered without a new segment. `free_space` is called to
/// get space for the manifest, until enough space is free or `free_space` returns false.
///
/// # Errors
/// - [`Error::Corrupt`]: the manifest or the header of the active segment is damaged, the manifest
///   is missing although other files of the store exist, or a segment file is newer than the
///   manifest.
/// - [`Error::Unreadable`], [`Error::UnsupportedFormat`], [`Error::StorageFull`], [`Error::Io`].
pub(crate) fn recover(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    segment_bytes: u64,
    open_segments: usize,
    clock: &Arc<dyn Clock>,
    free_space: &dyn Fn() -> bool,
) -> Result<RecoveredStore> {
    // The directory is created only after the manifest was read. If the log was moved away and its
    // directory were created, the log could not be moved back to its path.
    let found = manifest_file::read(&**fs, dir)?;
    fs.create_dir(dir)
        .map_err(|error| Error::io("create", dir, error))?;
    let manifest = match found {
        Some(manifest) => manifest,
        None => create_manifest(&**fs, dir)?,
    };
    let mut loaded = LoadedLog::read(fs, dir, manifest, open_segments)?;
    let reserved_revision = loaded.manifest.reserved_revision;
    let next_revision = first_revision(dir, reserved_revision, clock.now_ms())?;
    // Before this line, recovery only reads the files of an existing store, so that a store in an
    // unsupported format is rejected without being changed.
    loaded.directory.remove_files(&loaded.unlisted)?;
    let missing_summaries = std::mem::take(&mut loaded.missing_summaries);
    loaded.directory.rebuild_summaries(&missing_summaries);
    let dropped = loaded.seal_previous(free_space)?;
    let revisions = (reserved_revision, next_revision);
    Ok(loaded.into_store(segment_bytes, clock, revisions, dropped))
}

/// Recovers the log in `dir` in memory. The result is the same as that of [`recover`], but no file
/// is changed: the previous active segment is sealed in memory only, and torn bytes, obsolete files
/// and missing summaries stay as they are. The returned log must not be written.
///
/// # Errors
/// - [`Error::NotAStore`]: the data directory has no store.
/// - The other errors of [`recover`], except [`Error::StorageFull`].
pub(crate) fn recover_read_only(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    segment_bytes: u64,
    open_segments: usize,
    clock: &Arc<dyn Clock>,
) -> Result<RecoveredStore> {
    let found = manifest_file::read(&**fs, dir)?;
    let manifest = found.ok_or_else(|| Error::NotAStore {
        path: dir.parent().unwrap_or(dir).to_owned(),
    })?;
    let mut loaded = LoadedLog::read(fs, dir, manifest, open_segments)?;
    let reserved_revision = loaded.manifest.reserved_revision;
    let dropped = loaded.seal_in_memory()?;
    // No write uses the next revision.
    let revisions = (reserved_revision, reserved_revision);
    Ok(loaded.into_store(segment_bytes, clock, revisions, dropped))
}

impl LoadedLog {
    /// Seals the previous active segment, if any, and loads its documents. Returns the bytes that
    /// are dropped at its end.
    fn seal_previous(&mut self, free_space: &dyn Fn() -> bool) -> Result<Option<DroppedTail>> {
        let Self {
            directory,
            reader,
            manifest,
            documents,
            ..
        } = self;
        let mut highest_modified_ms = directory.highest_modified_ms(manifest)?;
        let mut dropped = None;
        if let Some((record, scan)) = self.previous_active.take() {
            highest_modified_ms = highest_modified_ms.max(scan.last_modified_ms);
            dropped = directory.dropped_tail(record.id, &scan);
            manifest.highest_modified_ms = Some(highest_modified_ms);
            match directory.seal_active(manifest, reader, documents, record, &scan) {
                Err(error) if has_no_space(&error) => {
                    directory.seal_in_place(manifest, documents, (record, &scan), free_space)?;
                }
                sealed => sealed?,
            }
        }
        manifest.highest_modified_ms = Some(highest_modified_ms);
        Ok(dropped)
    }

    /// Creates the parts of the open store. All documents must be loaded. `revisions` contains the
    /// reserved revision of the manifest before recovery, and the next revision.
    fn into_store(
        self,
        segment_bytes: u64,
        clock: &Arc<dyn Clock>,
        (reserved_revision, next_revision): (u64, u64),
        dropped: Option<DroppedTail>,
    ) -> RecoveredStore {
        let Self {
            directory,
            reader,
            manifest,
            mut documents,
            ..
        } = self;
        documents.finish(None);
        let blobs = documents.blobs();
        let damage = documents.damage().cloned().collect();
        let RecoveryLoader {
            table,
            accounting,
            damaged_namespaces,
            ..
        } = documents;
        let state = LogState {
            highest_modified_ms: manifest.highest_modified_ms.unwrap_or_default(),
            manifest,
            next_revision,
        };
        let log = Log::new(
            Arc::clone(&directory.fs),
            &directory.dir,
            segment_bytes,
            Arc::clone(clock),
            state,
        );
        RecoveredStore {
            directory,
            table,
            accounting,
            log,
            reserved_revision,
            reader,
            damage,
            damaged_namespaces,
            dropped,
            blobs,
        }
    }
}

/// Writes the manifest of a new store.
fn create_manifest(fs: &dyn Fs, dir: &Path) -> Result<Manifest> {
    let mut random = [0; 24];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("generate random bytes for", dir, io::Error::from(error)))?;
    let (key, store) = random.split_at(16);
    let manifest = Manifest::new(
        key.try_into().unwrap_or_default(),
        u64::from_le_bytes(store.try_into().unwrap_or_default()),
    );
    manifest_file::write(&manifest, fs, dir)?;
    Ok(manifest)
}

impl LogDirectory {
    fn remove_files(&self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            self.fs
                .remove(path)
                .map_err(|error| Error::io("remove", path, error))?;
        }
        Ok(())
    }

    /// Rebuilds the summaries of the given segments. Errors are ignored, because the store works
    /// without the summaries, and the next open tries to rebuild them again.
    fn rebuild_summaries(&self, segments: &[(SegmentId, SealedSegment)]) {
        for (id, sealed) in segments {
            // `load_sealed` has already scanned each segment. The segment is scanned again here, so
            // that only one summary at a time is in memory.
            let _ = self
                .summary_from_frames(*id, sealed.bytes, sealed.last_revision)
                .and_then(|summary| self.write_summary(*id, &summary, sealed.bytes));
        }
    }

    /// Seals the segment that was active when the previous process ended. The sealed segment ends
    /// at its watermark, which is the offset up to which the segment is known to be synced. It is
    /// unknown whether the frames after the watermark are on stable storage. Therefore, the valid
    /// frames after the watermark, up to the first invalid frame, are copied to a new segment.
    ///
    /// The new segment is synced and sealed, because its frames will be served. In a sealed
    /// segment, an invalid frame is always damage, and never a torn write.
    fn seal_active(
        &self,
        manifest: &mut Manifest,
        reader: &FrameReader,
        documents: &mut RecoveryLoader,
        record: SegmentRecord,
        scan: &SegmentScan,
    ) -> Result<()> {
        let watermark = scan.watermark;
        let limits = RevisionLimits::of_active(manifest);
        let sealed = scan.summary(watermark, limits);
        let tail: Vec<&ScanItem> = scan
            .items
            .iter()
            .filter(|item| (watermark..scan.valid_end()).contains(&item.offset.into()))
            .collect();
        let mut listed = manifest.clone();
        listed.segments.retain(|r| r.id != record.id);
        if sealed.len() > 0 {
            self.write_summary(record.id, &sealed, watermark)?;
            // If a frame is damaged, its revision can be higher than those of the valid frames.
            let last_revision = if scan.has_damage_before(watermark) {
                limits.last
            } else {
                scan.last_revision
            };
            listed.segments.push(SegmentRecord {
                id: record.id,
                sealed: Some(SealedSegment {
                    bytes: watermark,
                    last_revision,
                }),
            });
        }
        let mut copied = None;
        if tail.iter().any(|item| valid_frame(item).is_some()) {
            let id = listed.take_segment_id(&self.dir)?;
            let segment = self.copy_to_new_segment(reader, id, record.id, &tail)?;
            listed.segments.push(SegmentRecord {
                id,
                sealed: Some(SealedSegment {
                    bytes: segment.bytes(),
                    last_revision: segment.last_revision(),
                }),
            });
            copied = Some(segment);
        }
        manifest_file::stage(&listed, &*self.fs, &self.dir).inspect_err(|_| {
            if let Some(segment) = &copied {
                self.remove_unlisted(segment.id);
            }
        })?;
        manifest_file::install(&*self.fs, &self.dir)?;
        *manifest = listed;
        self.free_copied_tail(record.id, watermark, sealed.len() > 0);
        if sealed.len() > 0 {
            documents.load(self, record.id, sealed.entries(), sealed.blobs());
        }
        if let Some(ActiveSegment { id, summary, .. }) = &copied {
            documents.load(self, *id, summary.entries(), summary.blobs());
        }
        Ok(())
    }

    /// Copies the frames in `tail` to a new segment, and writes the summary of the segment. After
    /// an error, the files are removed.
    fn copy_to_new_segment(
        &self,
        reader: &FrameReader,
        id: SegmentId,
        from: SegmentId,
        tail: &[&ScanItem],
    ) -> Result<ActiveSegment> {
        let mut segment = ActiveSegment::create(&*self.fs, &self.dir, id, self.store)?;
        copy_tail(reader, &mut segment, from, tail)
            .and_then(|()| self.write_summary(id, &segment.summary, segment.bytes()))
            .inspect_err(|_| self.remove_unlisted(id))?;
        Ok(segment)
    }

    /// Removes the files of a segment that the manifest does not list. Errors are ignored, because
    /// the next open removes the files too.
    fn remove_unlisted(&self, id: SegmentId) {
        let _ = self.fs.remove(&file_header::segment_path(&self.dir, id));
        let _ = self.fs.remove(&entry::summary_path(&self.dir, id));
    }

    /// Truncates the previous active segment to its watermark, or removes the file of the segment
    /// if it has no frames before the watermark. Errors are ignored, because the frames after the
    /// watermark have been copied, and the remaining bytes only use disk space.
    fn free_copied_tail(&self, id: SegmentId, watermark: u64, has_frames: bool) {
        let path = file_header::segment_path(&self.dir, id);
        if has_frames {
            if let Ok(file) = self.fs.open_for_write(&path) {
                let _ = file.set_len(watermark);
            }
        } else {
            let _ = self.fs.remove(&path);
        }
    }
}

/// Copies the frames in `tail` to the new segment, and syncs the new segment.
fn copy_tail(
    reader: &FrameReader,
    segment: &mut ActiveSegment,
    from: SegmentId,
    tail: &[&ScanItem],
) -> Result<()> {
    for item in tail {
        let Some(ValidFrame { hash, header, meta }) = valid_frame(item) else {
            continue;
        };
        let names = &meta.names;
        let entry = FrameLocation {
            revision: header.revision,
            segment: from,
            offset: item.offset,
            bytes: item.bytes,
            kind: EntryKind::of(header),
        };
        let namespace = (&*names.user, &*names.client);
        let Frame {
            members,
            usage,
            inline,
            ..
        } = reader.frame(namespace, &entry)?;
        let too_long = || {
            Error::corrupt(
                &reader.path(from),
                item.offset.into(),
                "the frame exceeds the maximum length",
            )
        };
        let encoded = EncodedFrame::new(header.kind, *hash, namespace, &members, inline)
            .ok_or_else(too_long)?;
        let frame = FrameWrite {
            names,
            frame: &encoded,
            usage,
            modified_ms: header.modified_ms,
        };
        segment.append(&frame, header.revision)?;
    }
    segment.flush_recovered()
}

fn valid_frame(item: &ScanItem) -> Option<&ValidFrame> {
    match &item.found {
        ScanFound::Frame(frame) => Some(frame),
        ScanFound::Mark(_) | ScanFound::Invalid(_) => None,
    }
}
