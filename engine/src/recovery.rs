//! Recovery: from what is on the disk to a table and a log that can be written to.
//!
//! It reads the manifest, the summaries of the sealed segments, and the frames of
//! the one segment that was being written. Nothing is served before it is done, and
//! whatever it serves from then on has been synced by it or before it.

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
use crate::model::names::{Names, NamespaceHash};
use crate::platform::fs::Fs;
use crate::storage::log::active::{ActiveSegment, FrameWrite};
use crate::storage::log::directory::LogDirectory;
use crate::storage::log::reader::{Frame, FrameReader};
use crate::storage::log::scan::{ScanFound, ScanItem, SegmentScan, ValidFrame};
use crate::storage::log::{Log, MAX_SEGMENT_FRAMES, manifest_file};

/// A store as it was found.
pub(crate) struct RecoveredStore {
    pub(crate) directory: LogDirectory,
    pub(crate) table: Table,
    pub(crate) accounting: SegmentAccounting,
    pub(crate) log: Log,
    pub(crate) reader: FrameReader,
    /// The first damage of each segment whose damage may harm a document.
    pub(crate) damage: Vec<Damage>,
    /// The blobs that current frames name.
    pub(crate) blobs: HashMap<NamespaceHash, Vec<BlobId>>,
}

/// Reads the log in `dir`, which is made where it is missing.
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
        None => create(&**fs, dir)?,
    };
    let directory = LogDirectory::new(Arc::clone(fs), dir, manifest.store, manifest.hash_key);
    let unlisted = directory.unlisted(&manifest)?;
    let reader = FrameReader::new(Arc::clone(fs), dir, manifest.store, open_segments);
    let mut documents = RecoveryLoader::default();
    let mut unsummed = Vec::new();
    let next_revision = manifest.reserved_revision;
    documents.reserve(directory.count_entries(&manifest));
    for record in &manifest.segments {
        if let Some(sealed) = record.sealed
            && !directory.load_sealed(&mut documents, record.id, sealed)?
        {
            unsummed.push((record.id, sealed));
        }
    }
    let unsealed = directory.unsealed(&manifest)?;
    // All has been looked at and nothing changed: what this version does not know was
    // refused before here, and is as it was.
    directory.put_in_order(&unlisted, &unsummed)?;
    let active = match unsealed {
        Some(found) => directory.reopen(&mut manifest, &reader, &mut documents, found)?,
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

/// A manifest for a store that is made now.
fn create(fs: &dyn Fs, dir: &Path) -> Result<Manifest> {
    let found = fs
        .list(dir)
        .map_err(|error| Error::io("list", dir, error))?
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "seg" || e == "sum"));
    if let Some(found) = found {
        return Err(Error::corrupt(
            &Manifest::path(dir),
            0,
            format!("the manifest is missing, and {} is there", found.display()),
        ));
    }
    let mut random = [0; 24];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("draw random bytes for", dir, io::Error::from(error)))?;
    let (key, store) = random.split_at(16);
    let manifest = Manifest::new(
        key.try_into().unwrap_or_default(),
        u64::from_le_bytes(store.try_into().unwrap_or_default()),
    );
    manifest_file::write(&manifest, fs, dir)?;
    Ok(manifest)
}

impl LogDirectory {
    /// The entries of all segments whose summaries say how many they are: about as many
    /// as will be read.
    fn count_entries(&self, manifest: &Manifest) -> usize {
        let sealed = manifest.segments.iter().filter(|r| r.sealed.is_some());
        sealed
            .filter_map(|record| Some(self.open_summary(record.id).ok()?.entries()))
            // More than a segment takes are there only where it is damaged.
            .map(|entries| entries.min(MAX_SEGMENT_FRAMES))
            .sum()
    }

    /// The files of segments that were begun and never listed, and of those that
    /// compaction has taken out of the list.
    fn unlisted(&self, manifest: &Manifest) -> Result<Vec<PathBuf>> {
        let files = self.files()?;
        let is_listed = |id| manifest.segments.iter().any(|record| record.id == id);
        let unlisted = || files.iter().filter(|(id, _)| !is_listed(*id));
        let is_segment = |path: &Path| path.extension().is_some_and(|e| e == "seg");
        let begun =
            unlisted().filter(|(id, path)| *id >= manifest.next_segment && is_segment(path));
        for (id, path) in begun {
            if self.is_newer_than(manifest, &files, *id)? {
                return Err(self.outdated(path));
            }
        }
        Ok(unlisted().map(|(_, path)| path.clone()).collect())
    }

    /// The error of a manifest that is older than the segment in this file.
    fn outdated(&self, path: &Path) -> Error {
        let what = format!("the manifest is older than {}", path.display());
        Error::corrupt(&Manifest::path(&self.dir), 0, what)
    }

    /// The one segment that was being written, if there is one, by its frames.
    fn unsealed(&self, manifest: &Manifest) -> Result<Option<(SegmentRecord, SegmentScan)>> {
        let Some(record) = manifest.segments.iter().find(|r| r.sealed.is_none()) else {
            return Ok(None);
        };
        let found = self.scan(record.id, None)?;
        // Once its frames are copied, it is unlisted, and would be refused for that.
        if found.last_revision >= manifest.reserved_revision {
            return Err(self.outdated(&file_header::path(&self.dir, record.id)));
        }
        Ok(Some((*record, found)))
    }

    /// Removes what is not listed, and makes the summaries again that are damaged.
    fn put_in_order(
        &self,
        unlisted: &[PathBuf],
        unsummed: &[(SegmentId, SealedSegment)],
    ) -> Result<()> {
        for path in unlisted {
            self.fs
                .remove(path)
                .map_err(|error| Error::io("remove", path, error))?;
        }
        // Scanned once more, so that no more than one is held. Mended where that is
        // possible; if not, the next open scans again.
        for (id, sealed) in unsummed {
            let _ = self
                .summary_from_frames(*id, sealed.bytes, sealed.last_revision)
                .and_then(|summary| self.write_summary(*id, &summary, sealed.bytes));
        }
        Ok(())
    }

    /// Whether a segment was listed in a newer manifest: this one is then out of date,
    /// and going on would throw documents away. One that never was listed holds nothing,
    /// or what recovery copied from the end of the unsealed segment.
    fn is_newer_than(
        &self,
        manifest: &Manifest,
        files: &[(SegmentId, PathBuf)],
        id: SegmentId,
    ) -> Result<bool> {
        let found = match self.scan(id, None) {
            Ok(found) => found,
            Err(Error::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let holds_frames = found
            .items
            .iter()
            .any(|item| matches!(item.found, ScanFound::Frame(_)));
        let has_unsealed = manifest.segments.iter().any(|r| r.sealed.is_none());
        let is_there = |record: &SegmentRecord| {
            let path = file_header::path(&self.dir, record.id);
            files.iter().any(|(_, file)| *file == path)
        };
        Ok(found.last_revision >= manifest.reserved_revision
            || (holds_frames && !(has_unsealed && manifest.segments.iter().all(is_there))))
    }

    /// Takes up a sealed segment, by its summary, or by its frames where the summary is
    /// damaged; where both are, its documents are unreadable. Whether the summary is
    /// whole.
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

    /// Ends the segment that an earlier life left unsealed. What it had synced stays
    /// where it is, sealed. The valid part of its last batch may be in the page
    /// cache only, so it is written anew into a segment of this life, and synced.
    fn reopen(
        &self,
        manifest: &mut Manifest,
        reader: &FrameReader,
        documents: &mut RecoveryLoader,
        (record, found): (SegmentRecord, SegmentScan),
    ) -> Result<Option<ActiveSegment>> {
        let watermark = found.watermark;
        let sealed = found.summary(watermark);
        let tail: Vec<&ValidFrame> = found
            .items
            .iter()
            .skip_while(|item| u64::from(item.offset) < watermark)
            .map_while(valid)
            .collect();
        let mut listed = manifest.clone();
        listed.segments.retain(|r| r.id != record.id);
        if sealed.len() > 0 {
            self.write_summary(record.id, &sealed, watermark)?;
            listed.segments.push(SegmentRecord {
                id: record.id,
                sealed: Some(SealedSegment {
                    bytes: watermark,
                    last_revision: found.last_revision,
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
            copy_tail(reader, &mut active, record.id, &found.items, watermark)?;
            Some(active)
        };
        if listed != *manifest {
            manifest_file::write(&listed, &*self.fs, &self.dir)?;
            *manifest = listed;
        }
        self.trim(record.id, watermark, sealed.len() > 0);
        if sealed.len() > 0 {
            documents.load(self, record.id, sealed.entries(), sealed.blobs());
        }
        if let Some(ActiveSegment { id, summary, .. }) = &active {
            documents.load(self, *id, summary.entries(), summary.blobs());
        }
        Ok(active)
    }

    /// Gives back the space of what was copied. It is not a part of the store any
    /// more, so a failure costs nothing but the space.
    fn trim(&self, id: SegmentId, watermark: u64, keep: bool) {
        let path = file_header::path(&self.dir, id);
        if keep {
            if let Ok(file) = self.fs.open_for_write(&path) {
                let _ = file.set_len(watermark);
            }
        } else {
            let _ = self.fs.remove(&path);
        }
    }
}

/// Copies the valid frames from `watermark` on, and syncs them.
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
        let Some(ValidFrame { hash, header, meta }) = valid(item) else {
            break;
        };
        let names = Names::new(&meta.user, &meta.client)?;
        let entry = FrameLocation {
            revision: header.revision,
            segment: from,
            offset: item.offset,
            bytes: item.bytes,
            kind: EntryKind::of(header),
        };
        let of_these = (&*names.user, &*names.client);
        let Frame {
            members,
            usage,
            inline,
            ..
        } = reader.frame(of_these, &entry)?;
        let too_long = || {
            Error::corrupt(
                &reader.path(from),
                item.offset.into(),
                "the frame is too long",
            )
        };
        let encoded = EncodedFrame::new(header.kind, *hash, of_these, &members, inline)
            .ok_or_else(too_long)?;
        let frame = FrameWrite {
            names: &names,
            frame: &encoded,
            usage,
            modified_ms: header.modified_ms,
        };
        active.append(&frame, header.revision)?;
    }
    active.flush_recovered()
}

fn valid(item: &ScanItem) -> Option<&ValidFrame> {
    match &item.found {
        ScanFound::Frame(frame) => Some(frame),
        ScanFound::Invalid(_) => None,
    }
}
