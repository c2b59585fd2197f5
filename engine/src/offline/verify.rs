//! Verifying a closed data directory: every frame, every byte of every document, and
//! whatever was derived from them.
//!
//! It reports and mends nothing. Of log and blobs not a byte is changed.

mod documents;
mod segment;
mod verifier;

use crate::model::config::Config;
use crate::model::error::Result;
use crate::model::progress::Progress;
use crate::offline::report::{CatalogueCheck, Verification};
use crate::offline::scan::{OfflineScan, listed};
use crate::offline::verify::verifier::Verifier;

/// Reads everything in a data directory and checks it. Blocks. The directory must not be
/// open. Memory: that of the table, and that of one segment's frames without their
/// documents.
///
/// # Errors
/// Only where nothing can be said: [`crate::Error::NotAStore`], [`crate::Error::Locked`],
/// [`crate::Error::UnsupportedFormat`], [`crate::Error::Io`], and [`crate::Error::Corrupt`] where the
/// manifest, or the header of the segment that was being written, is damaged: then the
/// store does not open either.
pub fn verify(config: &Config, progress: &mut dyn FnMut(Progress)) -> Result<Verification> {
    let scan = OfflineScan::of(config)?;
    let total_bytes = total_bytes(config, &scan)?;
    let mut verifier = Verifier {
        config,
        scan: &scan,
        progress,
        total_bytes,
        found: Verification {
            segments: 0,
            frames: 0,
            documents: 0,
            bytes: 0,
            torn_bytes: 0,
            unnamed_blobs: 0,
            catalogue: CatalogueCheck::Unclean,
            problems: Vec::new(),
        },
        spread: Vec::new(),
    };
    for record in &scan.manifest.segments {
        verifier.segment(record)?;
    }
    verifier.blobs()?;
    verifier.catalogue()?;
    Ok(verifier.found)
}

fn total_bytes(config: &Config, scan: &OfflineScan) -> Result<u64> {
    let mut total = 0;
    for dir in [&scan.directory.dir, &config.data_dir.join("blobs")] {
        for path in listed(config, dir)? {
            let is_read = path.extension().is_some_and(|e| e == "seg" || e == "blob");
            if is_read && let Ok(file) = config.fs.open(&path) {
                total += file.len().unwrap_or_default();
            }
        }
    }
    Ok(total)
}
