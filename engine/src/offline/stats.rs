//! Counting what a data directory holds.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use crate::format::summary::entry::SummaryEntry;
use crate::index::loader::visit;
use crate::model::config::Config;
use crate::model::damage::Damage;
use crate::model::error::Result;
use crate::offline::scan::{OfflineScan, listed};
use crate::storage::io::{open_stored, stored_len};

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
    /// The first damage of each segment in which a frame is damaged that may be current,
    /// and files whose length the system does not tell.
    pub damage: Vec<Damage>,
}

/// Bytes of the table for each document and each delete, at most.
const MAX_TABLE_ENTRY_BYTES: u64 = 60;

/// Counts what a data directory holds, by the summaries of its log. Blocks. The
/// directory must not be open, and nothing in it is changed. Memory: that of the table,
/// and some 50 bytes for each user.
///
/// # Errors
/// [`crate::Error::NotAStore`] where there is none; [`crate::Error::Locked`]; [`crate::Error::Corrupt`]
/// where the manifest, or the segment that was being written, is damaged beyond what can
/// be told apart; [`crate::Error::UnsupportedFormat`].
pub fn stats(config: &Config) -> Result<Stats> {
    let scan = OfflineScan::of(config)?;
    let sum = scan.documents.accounting.lock().sum();
    let entries = u64::from(sum.documents) + u64::from(sum.tombstones);
    let mut damage: Vec<Damage> = scan.documents.damage().cloned().collect();
    let (blobs, blob_bytes) = files(config, &config.data_dir.join("blobs"), &mut damage)?;
    let (_, log_bytes) = files(config, &config.data_dir.join("log"), &mut damage)?;
    let mut stats = Stats {
        tombstones: sum.tombstones.into(),
        segments: scan.manifest.segments.len() as u64,
        live_bytes: sum.document_bytes,
        dead_bytes: sum.bytes.saturating_sub(sum.document_bytes),
        damaged_frames: sum.damaged.into(),
        log_bytes,
        blobs,
        blob_bytes,
        catalogue_bytes: crate::catalogue::marker::bytes_on_disk(
            &config.data_dir.join("catalogue"),
        ),
        table_bytes: entries * MAX_TABLE_ENTRY_BYTES,
        damage,
        ..Stats::default()
    };
    let mut users = HashSet::new();
    let is_current = |segment, entry: &SummaryEntry| scan.is_current(segment, entry);
    let visited = visit(&scan.directory, is_current, &mut |user, _, value| {
        stats.documents += 1;
        stats.document_bytes += value.usage.bytes;
        users.insert(scan.directory.hash(user, ""));
        ControlFlow::Continue(())
    })?;
    debug_assert!(visited.is_continue());
    stats.users = users.len() as u64;
    Ok(stats)
}

/// Number of files in a directory, and their bytes. A file whose length the system does not
/// tell counts as empty, and is added to `damage`.
fn files(config: &Config, dir: &Path, damage: &mut Vec<Damage>) -> Result<(u64, u64)> {
    let files = listed(config, dir)?;
    let mut bytes = 0;
    for path in &files {
        let len = open_stored(&*config.fs, path).and_then(|file| stored_len(&*file, path));
        match len {
            Ok(len) => bytes += len,
            Err(error) => damage.push(Damage::from_error(&error).ok_or(error)?),
        }
    }
    Ok((files.len() as u64, bytes))
}
