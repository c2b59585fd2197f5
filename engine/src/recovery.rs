//! Recovery: from what is on the disk to a table and a log that can be written to.
//!
//! It reads the manifest, the summaries of the sealed segments, and the frames of
//! the one segment that was being written. Nothing is served before it is done, and
//! whatever it serves from then on has been synced by it or before it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::log::frame::{Draft, Header, Meta};
use crate::log::manifest::{Manifest, Record, Sealed};
use crate::log::reader::Reader;
use crate::log::scan::{Found, Item, Scan, scan};
use crate::log::summary::{self, Builder, Detail, EntryKind};
use crate::log::{Active, Log, MAX_SEGMENT_FRAMES, segment, write_summary};
use crate::names::{Names, NamespaceHash};
use crate::table::{self, Loss, Table};

/// A store as it was found.
pub(crate) struct Recovered {
    pub(crate) place: Place,
    pub(crate) table: Table,
    pub(crate) log: Log,
    pub(crate) reader: Reader,
    /// The blobs that current frames name.
    pub(crate) blobs: HashMap<NamespaceHash, Vec<u64>>,
}

/// The log's directory and what every step needs to know of it.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) dir: PathBuf,
    pub(crate) store: u64,
    pub(crate) hash_key: [u8; 16],
}

/// A blob, and the frame that names it.
struct BlobReference {
    hash: NamespaceHash,
    revision: u64,
    blob: u64,
}

/// Reads the log in `dir`, which is made where it is missing.
pub(crate) fn recover(
    fs: &Arc<dyn Fs>,
    dir: &Path,
    segment_bytes: u64,
    open_segments: usize,
) -> Result<Recovered> {
    fs.create_dir(dir)
        .map_err(|error| Error::io("create", dir, error))?;
    let mut manifest = match Manifest::read(&**fs, dir)? {
        Some(manifest) => manifest,
        None => create(&**fs, dir)?,
    };
    let place = Place {
        fs: Arc::clone(fs),
        dir: dir.to_owned(),
        store: manifest.store,
        hash_key: manifest.hash_key,
    };
    place.remove_unlisted(&manifest)?;
    let reader = Reader::new(Arc::clone(fs), dir, manifest.store, open_segments);
    let mut table = Table::new();
    let mut references = Vec::new();
    let next_revision = manifest.reserved_revision;
    let unsealed = manifest
        .segments
        .iter()
        .find(|r| r.sealed.is_none())
        .copied();
    for record in &manifest.segments {
        if let Some(sealed) = record.sealed {
            place.load_sealed(&mut table, &mut references, record.id, sealed)?;
        }
    }
    let active = match unsealed {
        Some(record) => {
            place.reopen(&mut manifest, &reader, &mut table, &mut references, record)?
        }
        None => None,
    };
    let mut blobs: HashMap<NamespaceHash, Vec<u64>> = HashMap::new();
    for reference in references {
        if table.is_current(reference.hash, reference.revision) {
            let named = blobs.entry(reference.hash).or_default();
            if !named.contains(&reference.blob) {
                named.push(reference.blob);
            }
        }
    }
    let log = Log::new(
        Arc::clone(fs),
        dir,
        segment_bytes,
        manifest,
        active,
        next_revision,
    );
    Ok(Recovered {
        place,
        table,
        log,
        reader,
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
    manifest.write(fs, dir)?;
    Ok(manifest)
}

impl Place {
    /// Removes the files of a segment that was begun and never listed.
    fn remove_unlisted(&self, manifest: &Manifest) -> Result<()> {
        let listed = |id| manifest.segments.iter().any(|record| record.id == id);
        let mut unlisted = self.files()?;
        unlisted.retain(|(id, _)| !listed(*id));
        // All of them are looked at before the first is gone.
        for (id, path) in &unlisted {
            self.refuse_newer(manifest, path, *id)?;
        }
        for (_, path) in &unlisted {
            self.fs
                .remove(path)
                .map_err(|error| Error::io("remove", path, error))?;
        }
        Ok(())
    }

    /// The files of segments, by id.
    fn files(&self) -> Result<Vec<(u32, PathBuf)>> {
        let listing = self
            .fs
            .list(&self.dir)
            .map_err(|error| Error::io("list", &self.dir, error))?;
        let numbered = listing
            .into_iter()
            .filter_map(|path| Some((segment_id(&path)?, path)));
        Ok(numbered.collect())
    }

    /// A segment that was never listed holds nothing, or copies. One with frames
    /// beyond what the manifest reserved was listed in a newer manifest: this one
    /// is out of date, and going on would throw documents away.
    fn refuse_newer(&self, manifest: &Manifest, path: &Path, id: u32) -> Result<()> {
        if path.extension().is_none_or(|extension| extension != "seg") {
            return Ok(());
        }
        let found = match scan(&*self.fs, &self.dir, self.identity(id), None) {
            Ok(found) => found,
            Err(Error::Corrupt { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.refuse_unreserved(manifest, path, &found)
    }

    fn refuse_unreserved(&self, manifest: &Manifest, path: &Path, found: &Scan) -> Result<()> {
        if found.last_revision >= manifest.reserved_revision {
            return Err(Error::corrupt(
                &Manifest::path(&self.dir),
                0,
                format!("the manifest is older than {}", path.display()),
            ));
        }
        Ok(())
    }

    fn identity(&self, id: u32) -> (u32, u64, &[u8; 16]) {
        (id, self.store, &self.hash_key)
    }

    /// Takes a sealed segment into the table, by its summary, or by its frames where
    /// the summary is damaged. Where both are, its documents are unreadable.
    fn load_sealed(
        &self,
        table: &mut Table,
        references: &mut Vec<BlobReference>,
        id: u32,
        sealed: Sealed,
    ) -> Result<()> {
        let read = summary::Reader::open(&*self.fs, &self.dir, id, self.store)
            .and_then(|reader| reader.summary());
        match read {
            Ok(summary) if summary.segment_bytes == sealed.bytes => {
                load(table, references, id, &summary.entries, &summary.blobs);
                return Ok(());
            }
            Ok(_) | Err(Error::Corrupt { .. }) => {}
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        match self.scan_sealed(id, sealed) {
            Ok(summary) => {
                load(table, references, id, summary.entries(), summary.blobs());
                // Mended where that is possible; if not, the next open scans again.
                let _ = self.write_summary(id, &summary, sealed.bytes);
                Ok(())
            }
            Err(Error::Corrupt { offset, .. }) => {
                table.lose(Loss {
                    revision: sealed.last_revision,
                    segment: id,
                    offset: u32::try_from(offset).unwrap_or_default(),
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn scan_sealed(&self, id: u32, sealed: Sealed) -> Result<Builder> {
        let mut found = scan(&*self.fs, &self.dir, self.identity(id), Some(sealed.bytes))?;
        found.last_revision = sealed.last_revision;
        Ok(found.summary(sealed.bytes))
    }

    fn write_summary(&self, id: u32, summary: &Builder, segment_bytes: u64) -> Result<()> {
        write_summary(&*self.fs, &self.dir, id, self.store, summary, segment_bytes)
    }

    /// The segments on the disk, sealed or not, by their frames or their summary.
    pub(crate) fn segments(&self) -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = self.files()?.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The entries of a segment with their names: by its summary, or by its frames
    /// where that is damaged or not written yet.
    pub(crate) fn details(&self, id: u32) -> Result<Vec<(summary::Entry, Detail)>> {
        let read = summary::Reader::open(&*self.fs, &self.dir, id, self.store)
            .and_then(|reader| Ok((reader.summary()?.entries, reader.details()?)));
        let (entries, details) = match read {
            Ok(both) => both,
            Err(_) => match scan(&*self.fs, &self.dir, self.identity(id), None) {
                Ok(found) => {
                    let summary = found.summary(u64::MAX);
                    (summary.entries().to_vec(), summary.details())
                }
                // Its documents are unreadable, and every read of one says so.
                Err(Error::Corrupt { .. }) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            },
        };
        Ok(entries.into_iter().zip(details).collect())
    }

    /// Ends the segment that an earlier life left unsealed. What it had synced stays
    /// where it is, sealed. The valid part of its last batch may be in the page
    /// cache only, so it is written anew into a segment of this life, and synced.
    fn reopen(
        &self,
        manifest: &mut Manifest,
        reader: &Reader,
        table: &mut Table,
        references: &mut Vec<BlobReference>,
        record: Record,
    ) -> Result<Option<Active>> {
        let found = scan(&*self.fs, &self.dir, self.identity(record.id), None)?;
        // Once its frames are copied, it is unlisted, and would be refused for that.
        self.refuse_unreserved(manifest, &segment::path(&self.dir, record.id), &found)?;
        let watermark = found.watermark;
        let sealed = found.summary(watermark);
        let tail: Vec<&(Header, Meta)> = found
            .items
            .iter()
            .skip_while(|item| item.offset < watermark)
            .map_while(valid)
            .collect();
        let mut listed = manifest.clone();
        listed.segments.retain(|r| r.id != record.id);
        if sealed.len() > 0 {
            self.write_summary(record.id, &sealed, watermark)?;
            listed.segments.push(Record {
                id: record.id,
                sealed: Some(Sealed {
                    bytes: watermark,
                    last_revision: found.last_revision,
                }),
            });
        }
        let active = if tail.is_empty() {
            None
        } else {
            let id = listed.next_segment;
            listed.next_segment = id.saturating_add(1);
            listed.segments.push(Record { id, sealed: None });
            listed.reserved_revision += MAX_SEGMENT_FRAMES as u64;
            let mut active = Active::create(&*self.fs, &self.dir, id, self.store)?;
            copy_tail(reader, &mut active, record.id, &found.items, watermark)?;
            Some(active)
        };
        if listed != *manifest {
            listed.write(&*self.fs, &self.dir)?;
            *manifest = listed;
        }
        self.trim(record.id, watermark, sealed.len() > 0);
        load(
            table,
            references,
            record.id,
            sealed.entries(),
            sealed.blobs(),
        );
        if let Some(active) = &active {
            let summary = &active.summary;
            load(
                table,
                references,
                active.id,
                summary.entries(),
                summary.blobs(),
            );
        }
        Ok(active)
    }

    /// Gives back the space of what was copied. It is not a part of the store any
    /// more, so a failure costs nothing but the space.
    fn trim(&self, id: u32, watermark: u64, keep: bool) {
        let path = segment::path(&self.dir, id);
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
    reader: &Reader,
    active: &mut Active,
    from: u32,
    items: &[Item],
    watermark: u64,
) -> Result<()> {
    let tail = items.iter().skip_while(|item| item.offset < watermark);
    for item in tail {
        let Some((header, meta)) = valid(item) else {
            break;
        };
        let narrow = |n| u32::try_from(n).unwrap_or(u32::MAX);
        let names = Names::new(&meta.user, &meta.client)?;
        let entry = table::Entry {
            revision: header.revision,
            segment: from,
            offset: narrow(item.offset),
            bytes: narrow(item.bytes),
            kind: EntryKind::of(header),
        };
        let inline: Bytes = reader.frame(&names, &entry)?.inline;
        let draft = Draft::new(header.kind, header.hash, meta, inline).ok_or_else(|| {
            Error::corrupt(&reader.path(from), item.offset, "the frame is too long")
        })?;
        let usage = meta.usage(header.kind);
        active.append(&names, &draft, usage, (header.revision, header.modified_ms))?;
    }
    active.flush_recovered()
}

fn valid(item: &Item) -> Option<&(Header, Meta)> {
    match &item.found {
        Found::Frame(frame) => Some(frame),
        Found::Invalid(_) => None,
    }
}

/// Takes a segment's entries into the table.
fn load(
    table: &mut Table,
    references: &mut Vec<BlobReference>,
    segment: u32,
    entries: &[summary::Entry],
    blobs: &[(u32, u64)],
) {
    for entry in entries {
        if entry.kind == EntryKind::Lost {
            table.lose(Loss {
                revision: entry.revision,
                segment,
                offset: entry.offset,
            });
        } else {
            table.advance(entry.hash, table::Entry::at(segment, entry));
        }
    }
    references.extend(blobs.iter().filter_map(|(index, blob)| {
        let entry = entries.get(*index as usize)?;
        Some(BlobReference {
            hash: entry.hash,
            revision: entry.revision,
            blob: *blob,
        })
    }));
}

fn segment_id(path: &Path) -> Option<u32> {
    let (id, extension) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = id.len() == 8 && (extension.starts_with("seg") || extension.starts_with("sum"));
    ours.then(|| u32::from_str_radix(id, 16).ok())?
}
