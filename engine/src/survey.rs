//! A closed data directory as it lies there, looked at without changing it: what
//! [`crate::stats`] and [`crate::verify()`] go by.
//!
//! It reads what recovery reads, and mends nothing.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::documents::{self, Documents};
use crate::error::{Error, Result};
use crate::lock::DirectoryLock;
use crate::log::manifest::Manifest;
use crate::log::place::Place;
use crate::log::summary;
use crate::table;

/// What a closed data directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Documents stored.
    pub documents: u64,
    /// Users that have one.
    pub users: u64,
    /// Bytes of all documents as they are read.
    pub document_bytes: u64,
    /// Deletes that are kept because they may hide older frames.
    pub tombstones: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of the frames of the log that documents are in.
    pub live_bytes: u64,
    /// Bytes of all its other frames: what compaction may give back.
    pub dead_bytes: u64,
    /// Frames that cannot be read and may be current.
    pub damaged_frames: u64,
    /// Bytes of the files in `log/`: segments, summaries, manifest, reserve.
    pub log_bytes: u64,
    /// Files in `blobs/`, those that nothing names any more included.
    pub blobs: u64,
    /// Bytes of them.
    pub blob_bytes: u64,
    /// Bytes of the files in `catalogue/`.
    pub catalogue_bytes: u64,
    /// Memory that the table takes while the store is open, at most.
    pub table_bytes: u64,
}

/// Bytes of the table for each document and each delete, at most.
const MAX_TABLE_ENTRY_BYTES: u64 = 60;

/// A closed data directory, and what is current in it.
pub(crate) struct Survey {
    pub(crate) place: Place,
    pub(crate) manifest: Manifest,
    pub(crate) documents: Documents,
    /// Nobody may open it meanwhile.
    _lock: DirectoryLock,
}

impl Survey {
    pub(crate) fn of(config: &Config) -> Result<Self> {
        let dir = config.data_dir.join("log");
        let read = || Manifest::read(&*config.fs, &dir);
        let missing = || Error::NotAStore {
            path: config.data_dir.clone(),
        };
        // Looked for first, because locking a directory makes it.
        read()?.ok_or_else(missing)?;
        let lock = DirectoryLock::acquire(&config.data_dir)?;
        let manifest = read()?.ok_or_else(missing)?;
        let fs = Arc::clone(&config.fs);
        let place = Place::new(fs, &dir, manifest.store, manifest.hash_key);
        let mut documents = Documents::default();
        let mut active = None;
        for record in &manifest.segments {
            let Some(sealed) = record.sealed else {
                active = Some(record.id);
                let found = place.scan(record.id, None)?;
                let summary = found.summary(found.valid_end());
                documents.load(record.id, summary.entries(), summary.blobs());
                continue;
            };
            match place.sealed_summary(record.id, sealed) {
                Ok(found) => documents.load(record.id, &found.entries, &found.blobs),
                Err(error) if error.is_damage() => documents.lose(record.id, &error, sealed),
                Err(error) => return Err(error),
            }
        }
        documents.settle(active);
        Ok(Self {
            place,
            manifest,
            documents,
            _lock: lock,
        })
    }

    /// Whether the table points to this entry of this segment.
    pub(crate) fn is_current(&self, segment: u32, entry: &summary::Entry) -> bool {
        let there = table::Entry::at(segment, entry);
        self.documents.table.entry(entry.hash) == Some(there)
    }
}

/// Counts what a data directory holds, by the summaries of its log. Blocks. The
/// directory must not be open, and nothing in it is changed. Memory: that of the table,
/// and some 50 bytes for each user.
///
/// # Errors
/// [`Error::NotAStore`] where there is none; [`Error::Locked`]; [`Error::Corrupt`]
/// where the manifest, or the segment that was being written, is damaged beyond what can
/// be told apart; [`Error::UnsupportedFormat`].
pub fn stats(config: &Config) -> Result<Stats> {
    let survey = Survey::of(config)?;
    let sum = survey.documents.space.lock().sum();
    let entries = u64::from(sum.documents) + u64::from(sum.tombstones);
    let (blobs, blob_bytes) = files(config, &config.data_dir.join("blobs"))?;
    let (_, log_bytes) = files(config, &config.data_dir.join("log"))?;
    let mut stats = Stats {
        tombstones: sum.tombstones.into(),
        segments: survey.manifest.segments.len() as u64,
        live_bytes: sum.document_bytes,
        dead_bytes: sum.bytes.saturating_sub(sum.document_bytes),
        damaged_frames: sum.damaged.into(),
        log_bytes,
        blobs,
        blob_bytes,
        catalogue_bytes: crate::catalogue::bytes_on_disk(&config.data_dir.join("catalogue")),
        table_bytes: entries * MAX_TABLE_ENTRY_BYTES,
        ..Stats::default()
    };
    let mut users = HashSet::new();
    let is_current = |segment, entry: &summary::Entry| survey.is_current(segment, entry);
    documents::visit(&survey.place, is_current, &mut |user, _, value| {
        stats.documents += 1;
        stats.document_bytes += value.usage.bytes;
        users.insert(survey.place.hash(user, ""));
        Ok(())
    })?;
    stats.users = users.len() as u64;
    Ok(stats)
}

/// The files of a directory. One that is not there has none: a copy of a store that has no
/// large document need not have a folder for them.
pub(crate) fn listed(config: &Config, dir: &Path) -> Result<Vec<PathBuf>> {
    match config.fs.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(|error| Error::io("list", dir, error)),
    }
}

/// How many files are in a directory, and how many bytes in them.
fn files(config: &Config, dir: &Path) -> Result<(u64, u64)> {
    let files = listed(config, dir)?;
    let mut bytes = 0;
    for file in &files {
        bytes += config
            .fs
            .open(file)
            .and_then(|open| open.len())
            .map_err(|error| Error::io("stat", file, error))?;
    }
    Ok((files.len() as u64, bytes))
}
