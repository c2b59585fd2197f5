//! Recovery opens the log of a store, and builds the table from the log.
//!
//! Recovery reads the manifest, the summaries of the sealed segments, and the frames of the active
//! segment. docs/format.md explains manifests, segments, summaries and frames. The engine serves
//! reads only after recovery is complete. When recovery is complete, every frame to which the table
//! refers is on stable storage.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::file_header;
use crate::format::frame::encoded::EncodedFrame;
use crate::format::frame::header::EntryKind;
use crate::format::location::FrameLocation;
use crate::format::manifest::{Manifest, SealedSegment, SegmentRecord};
use crate::index::accounting::SegmentAccounting;
use crate::index::loader::RecoveryLoader;
use crate::index::table::Table;
use crate::model::damage::Damage;
use crate::model::error::{Error, Result};
use crate::model::ids::{BlobId, SegmentId};
use crate::model::names::NamespaceHash;
use crate::platform::fs::Fs;
use crate::storage::log::active::{ActiveSegment, FrameWrite};
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::reader::{Frame, FrameReader};
use crate::storage::log::scan::{ScanFound, ScanItem, SegmentScan, ValidFrame};
use crate::storage::log::{Log, MAX_SEGMENT_FRAMES, manifest_file};

/// The parts of an open store that recovery creates.
pub(crate) struct RecoveredStore {
    pub(crate) directory: LogDirectory,
    pub(crate) table: Table,
    pub(crate) accounting: SegmentAccounting,
    pub(crate) log: Log,
    pub(crate) reader: FrameReader,
    /// The first damage of each segment in which a damaged frame may be current.
    pub(crate) damage: Vec<Damage>,
    /// The blobs that current frames refer to, grouped by namespace.
    pub(crate) blobs: HashMap<NamespaceHash, Vec<BlobId>>,
}

/// Recovers the log in `dir`. Creates the directory and an empty log if they do not exist.
///
/// # Errors
/// - [`Error::Corrupt`]: the manifest or the header of the active segment is damaged, the manifest
///   is missing although segment files exist, or a segment file is newer than the manifest.
/// - [`Error::Unreadable`], [`Error::UnsupportedFormat`], [`Error::StorageFull`], [`Error::Io`].
pub(crate) fn recover(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    segment_bytes: u64,
    open_segments: usize,
) -> Result<RecoveredStore> {
    fs.create_dir(dir)
        .map_err(|error| Error::io("create", dir, error))?;
    let mut manifest = match manifest_file::read(&**fs, dir)? {
        Some(manifest) => manifest,
        None => create_manifest(&**fs, dir)?,
    };
    let directory = LogDirectory::new(Arc::clone(fs), dir, manifest.store, manifest.hash_key);
    let unlisted = directory.unlisted_files(&manifest)?;
    let reader = FrameReader::new(Arc::clone(fs), dir, manifest.store, open_segments);
    let mut documents = RecoveryLoader::default();
    let mut missing_summaries = Vec::new();
    let next_revision = manifest.reserved_revision;
    documents.reserve(directory.count_entries(&manifest));
    for record in &manifest.segments {
        if let Some(sealed) = record.sealed
            && !directory.load_sealed(&mut documents, record.id, sealed)?
        {
            missing_summaries.push((record.id, sealed));
        }
    }
    let previous_active = directory.scan_active(&manifest)?;
    // Before this line, recovery only reads the files of an existing store, so that a store in an
    // unsupported format is rejected without being changed.
    directory.remove_files(&unlisted)?;
    directory.rebuild_summaries(&missing_summaries);
    let active = match previous_active {
        Some(previous) => {
            directory.replace_active(&mut manifest, &reader, &mut documents, previous)?
        }
        None => None,
    };
    documents.finish(active.as_ref().map(|active| active.id));
    let blobs = documents.blobs();
    let damage = documents.damage().cloned().collect();
    let RecoveryLoader {
        table, accounting, ..
    } = documents;
    let log = Log::new(
        Arc::clone(fs),
        dir,
        segment_bytes,
        manifest,
        active,
        next_revision,
    );
    Ok(RecoveredStore {
        directory,
        table,
        accounting,
        log,
        reader,
        damage,
        blobs,
    })
}

/// Writes the manifest of a new store.
///
/// # Errors
/// [`Error::Corrupt`] if the directory contains segments or summaries. The manifest is written
/// before the first segment, so if a segment exists without a manifest, the manifest was lost.
fn create_manifest(fs: &dyn Fs, dir: &Path) -> Result<Manifest> {
    let found = fs
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "seg" || e == "sum"));
    if let Some(found) = found {
        return Err(Error::corrupt(
            &Manifest::path(dir),
            0,
            format!("the manifest is missing, but {} exists", found.display()),
        ));
    }
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
    /// Returns the number of entries in all readable summaries. The result is used as an estimate
    /// of the number of table entries.
    fn count_entries(&self, manifest: &Manifest) -> usize {
        let sealed = manifest.segments.iter().filter(|r| r.sealed.is_some());
        sealed
            .filter_map(|record| Some(self.open_summary(record.id).ok()?.entries()))
            // A damaged summary can state any number of entries, so the number is limited.
            .map(|entries| entries.min(MAX_SEGMENT_FRAMES))
            .sum()
    }

    /// Returns the files of segments that the manifest does not list. A crash can leave unlisted
    /// files in two cases: a new segment was created, but not yet added to the manifest; or a
    /// retired segment was removed from the manifest, but its files were not yet removed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if an unlisted segment file is newer than the manifest.
    fn unlisted_files(&self, manifest: &Manifest) -> Result<Vec<PathBuf>> {
        let files = self.files()?;
        let is_listed = |id| manifest.segments.iter().any(|record| record.id == id);
        let unlisted = || files.iter().filter(|(id, _)| !is_listed(*id));
        let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
        let created =
            unlisted().filter(|(id, path)| *id >= manifest.next_segment && is_segment(path));
        for (id, path) in created {
            if self.is_newer_than_manifest(manifest, &files, *id)? {
                return Err(self.outdated_manifest(path));
            }
        }
        Ok(unlisted().map(|(_, path)| path.clone()).collect())
    }

    /// Creates the error for a manifest that is older than a segment file.
    fn outdated_manifest(&self, path: &Path) -> Error {
        let what = format!("the manifest is older than {}", path.display());
        Error::corrupt(&Manifest::path(&self.dir), 0, what)
    }

    /// Scans the frames of the segment that the manifest lists as active. Returns `None` if the
    /// manifest lists no active segment.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the segment header is damaged, or if the segment is newer than the
    /// manifest.
    fn scan_active(&self, manifest: &Manifest) -> Result<Option<(SegmentRecord, SegmentScan)>> {
        let Some(record) = manifest.segments.iter().find(|r| r.sealed.is_none()) else {
            return Ok(None);
        };
        let scan = self.scan(record.id, None)?;
        // If the active segment is newer than the manifest, recovery must stop before it copies the
        // frames of the segment to a new segment. After a crash between the copy and the update of
        // the manifest, the next open would reject the new segment as newer than the manifest.
        if scan.last_revision >= manifest.reserved_revision {
            return Err(self.outdated_manifest(&file_header::segment_path(&self.dir, record.id)));
        }
        Ok(Some((*record, scan)))
    }

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

    /// Returns true if an unlisted segment was listed in a manifest that is newer than `manifest`.
    /// In this case, `manifest` is outdated, for example because it was restored from an older
    /// copy. Opening a store with an outdated manifest would discard documents.
    ///
    /// A segment that was never listed in a manifest has no frames, or only frames that recovery
    /// copied from the end of the active segment.
    fn is_newer_than_manifest(
        &self,
        manifest: &Manifest,
        files: &[(SegmentId, PathBuf)],
        id: SegmentId,
    ) -> Result<bool> {
        let scan = match self.scan(id, None) {
            Ok(scan) => scan,
            Err(Error::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let has_frames = scan
            .items
            .iter()
            .any(|item| matches!(item.found, ScanFound::Frame(_)));
        let has_active = manifest.segments.iter().any(|r| r.sealed.is_none());
        let is_present = |record: &SegmentRecord| {
            let path = file_header::segment_path(&self.dir, record.id);
            files.iter().any(|(_, file)| *file == path)
        };
        Ok(scan.last_revision >= manifest.reserved_revision
            || (has_frames && !(has_active && manifest.segments.iter().all(is_present))))
    }

    /// Loads a sealed segment from its summary, or from its frames if the summary is damaged. If
    /// both the summary and the segment file are damaged, no document of the segment can be read.
    /// Returns true if the summary is intact.
    fn load_sealed(
        &self,
        documents: &mut RecoveryLoader,
        id: SegmentId,
        sealed: SealedSegment,
    ) -> Result<bool> {
        match self.summary(id, sealed.bytes) {
            Ok(summary) => {
                documents.load(self, id, &summary.entries, &summary.blobs);
                return Ok(true);
            }
            Err(error) if error.is_damage() => {}
            Err(error) => return Err(error),
        }
        match self.summary_from_frames(id, sealed.bytes, sealed.last_revision) {
            Ok(summary) => {
                documents.load(self, id, summary.entries(), summary.blobs());
                Ok(false)
            }
            Err(error) if error.is_damage() => {
                documents.load_unreadable(id, &error, sealed);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Seals the segment that was active when the previous process ended. The sealed segment ends
    /// at its watermark, which is the offset up to which the segment is known to be synced. It is
    /// unknown whether the frames after the watermark are on stable storage. Therefore, the valid
    /// frames after the watermark, up to the first invalid frame, are copied to a new active
    /// segment and synced.
    fn replace_active(
        &self,
        manifest: &mut Manifest,
        reader: &FrameReader,
        documents: &mut RecoveryLoader,
        (record, scan): (SegmentRecord, SegmentScan),
    ) -> Result<Option<ActiveSegment>> {
        let watermark = scan.watermark;
        let sealed = scan.summary(watermark);
        let tail: Vec<&ValidFrame> = scan
            .items
            .iter()
            .skip_while(|item| u64::from(item.offset) < watermark)
            .map_while(valid_frame)
            .collect();
        let mut listed = manifest.clone();
        listed.segments.retain(|r| r.id != record.id);
        if sealed.len() > 0 {
            self.write_summary(record.id, &sealed, watermark)?;
            listed.segments.push(SegmentRecord {
                id: record.id,
                sealed: Some(SealedSegment {
                    bytes: watermark,
                    last_revision: scan.last_revision,
                }),
            });
        }
        let active = if tail.is_empty() {
            None
        } else {
            let id = listed.take_segment_id(&self.dir)?;
            listed.segments.push(SegmentRecord { id, sealed: None });
            listed.reserved_revision += MAX_SEGMENT_FRAMES as u64;
            let mut active = ActiveSegment::create(&*self.fs, &self.dir, id, self.store)?;
            copy_tail(reader, &mut active, record.id, &scan.items, watermark)?;
            Some(active)
        };
        if listed != *manifest {
            manifest_file::write(&listed, &*self.fs, &self.dir)?;
            *manifest = listed;
        }
        self.free_copied_tail(record.id, watermark, sealed.len() > 0);
        if sealed.len() > 0 {
            documents.load(self, record.id, sealed.entries(), sealed.blobs());
        }
        if let Some(ActiveSegment { id, summary, .. }) = &active {
            documents.load(self, *id, summary.entries(), summary.blobs());
        }
        Ok(active)
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

/// Copies the frames after `watermark`, up to the first invalid frame, to the new active segment,
/// and syncs the new segment.
fn copy_tail(
    reader: &FrameReader,
    active: &mut ActiveSegment,
    from: SegmentId,
    items: &[ScanItem],
    watermark: u64,
) -> Result<()> {
    let tail = items
        .iter()
        .skip_while(|item| u64::from(item.offset) < watermark);
    for item in tail {
        let Some(ValidFrame { hash, header, meta }) = valid_frame(item) else {
            break;
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
        active.append(&frame, header.revision)?;
    }
    active.flush_recovered()
}

fn valid_frame(item: &ScanItem) -> Option<&ValidFrame> {
    match &item.found {
        ScanFound::Frame(frame) => Some(frame),
        ScanFound::Invalid(_) => None,
    }
}
