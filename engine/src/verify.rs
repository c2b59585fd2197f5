//! Verifying a closed data directory: every frame, every byte of every document, and
//! whatever was derived from them.
//!
//! It reports and mends nothing. Of log and blobs not a byte is changed.

mod segment;

use std::path::PathBuf;
use std::sync::Arc;

use crate::blob::Blobs;
use crate::catalogue::{self, Audit, Identity};
use crate::compaction::Bell;
use crate::config::Config;
use crate::document::Document;
use crate::documents;
use crate::error::{Error, Result};
use crate::log::reader::Reader;
use crate::log::summary::Entry;
use crate::survey::{self, Survey};
use crate::table;

/// What something that is wrong means for the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Harm {
    /// A document cannot be read, or it cannot be told which documents there are.
    Document,
    /// What is damaged had been replaced or deleted.
    Nothing,
    /// It is made again from the documents when the store is opened.
    Derived,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Where in it, in bytes from its start.
    pub offset: u64,
    /// What does not hold there.
    pub what: String,
    /// What that means.
    pub harm: Harm,
    /// The user and the client whose document it is, where that is known.
    pub namespace: Option<(String, String)>,
}

/// Whether what was derived from the documents agrees with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Catalogue {
    /// It has every document and nothing else.
    Agrees,
    /// It is not as a clean close leaves it, and is built again at the next open.
    Unclean,
    /// It says something else. There is a [`Problem`] that tells what.
    Differs,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Segments read.
    pub segments: u64,
    /// Frames that hold.
    pub frames: u64,
    /// Current documents, all of whose bytes were read and hold.
    pub documents: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes behind the last synced frame that are no frames: the torn end of a write
    /// that was never acknowledged.
    pub torn_bytes: u64,
    /// Files in `blobs/` that no document lies in, and which the next open removes.
    pub unnamed_blobs: u64,
    /// The catalogue.
    pub catalogue: Catalogue,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// How far a long task has come, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Done so far.
    pub done_bytes: u64,
    /// In all.
    pub total_bytes: u64,
}

/// Reads everything in a data directory and checks it. Blocks. The directory must not be
/// open. Memory: that of the table, and that of one segment's frames without their
/// documents.
///
/// # Errors
/// Only where nothing can be said: [`Error::NotAStore`], [`Error::Locked`],
/// [`Error::UnsupportedFormat`], [`Error::Io`], and [`Error::Corrupt`] where the
/// manifest, or the header of the segment that was being written, is damaged: then the
/// store does not open either.
pub fn verify(config: &Config, progress: &mut dyn FnMut(Progress)) -> Result<Verification> {
    let survey = Survey::of(config)?;
    let total_bytes = total_bytes(config, &survey)?;
    let mut verifier = Verifier {
        config,
        survey: &survey,
        progress,
        total_bytes,
        found: Verification {
            segments: 0,
            frames: 0,
            documents: 0,
            bytes: 0,
            torn_bytes: 0,
            unnamed_blobs: 0,
            catalogue: Catalogue::Unclean,
            problems: Vec::new(),
        },
        spread: Vec::new(),
    };
    for record in &survey.manifest.segments {
        verifier.segment(record)?;
    }
    verifier.blobs()?;
    verifier.catalogue()?;
    Ok(verifier.found)
}

fn total_bytes(config: &Config, survey: &Survey) -> Result<u64> {
    let mut total = 0;
    for dir in [&survey.place.dir, &config.data_dir.join("blobs")] {
        for path in survey::listed(config, dir)? {
            let is_read = path.extension().is_some_and(|e| e == "seg" || e == "blob");
            if is_read && let Ok(file) = config.fs.open(&path) {
                total += file.len().unwrap_or_default();
            }
        }
    }
    Ok(total)
}

struct Verifier<'a> {
    config: &'a Config,
    survey: &'a Survey,
    progress: &'a mut dyn FnMut(Progress),
    total_bytes: u64,
    found: Verification,
    /// Current documents that lie in blobs.
    spread: Vec<table::Entry>,
}

impl Verifier<'_> {
    fn reader(&self) -> Reader {
        let place = &self.survey.place;
        let fs = Arc::clone(&self.config.fs);
        Reader::new(fs, &place.dir, place.store, self.config.open_segments)
    }

    fn read(&mut self, bytes: u64) {
        self.found.bytes += bytes;
        (self.progress)(Progress {
            done_bytes: self.found.bytes,
            total_bytes: self.total_bytes,
        });
    }

    fn problem(
        &mut self,
        error: &Error,
        harm: Harm,
        namespace: Option<(String, String)>,
    ) -> Result<()> {
        let (path, offset, what) = match error {
            Error::Corrupt { path, offset, what } => (path, *offset, what.clone()),
            Error::Io { path, source, .. } if error.is_damage() => {
                (path, 0, format!("it cannot be read: {source}"))
            }
            other => return Err(other.clone()),
        };
        self.found.problems.push(Problem {
            path: path.clone(),
            offset,
            what,
            harm,
            namespace,
        });
        Ok(())
    }

    /// Reads every document that lies in blobs.
    fn blobs(&mut self) -> Result<()> {
        let config = self.config;
        let blobs = Blobs::open(
            Arc::clone(&config.fs),
            &config.data_dir.join("blobs"),
            self.survey.place.store,
            self.survey.documents.blobs(),
            true,
            Arc::<Bell>::default(),
        )?;
        self.found.unnamed_blobs = blobs.doomed_count();
        let reader = self.reader();
        for entry in std::mem::take(&mut self.spread) {
            let mut namespace = None;
            match self.read_document(&reader, &blobs, &entry, &mut namespace) {
                Ok(()) => self.found.documents += 1,
                Err(error) => self.problem(&error, Harm::Document, namespace)?,
            }
        }
        Ok(())
    }

    fn read_document(
        &mut self,
        reader: &Reader,
        blobs: &Blobs,
        entry: &table::Entry,
        namespace: &mut Option<(String, String)>,
    ) -> Result<()> {
        let frame = reader.any_frame(entry, |_| true)?;
        *namespace = Some((frame.user.clone(), frame.client.clone()));
        for chunk in Document::new(frame, blobs)?.chunks() {
            self.read(chunk?.len() as u64);
        }
        Ok(())
    }

    fn catalogue(&mut self) -> Result<()> {
        let survey = self.survey;
        let is_clean = survey.manifest.segments.iter().all(|r| r.sealed.is_some());
        if !is_clean || self.found.problems.iter().any(|p| p.harm == Harm::Document) {
            return Ok(());
        }
        let identity = Identity {
            store: survey.place.store,
            next_revision: survey.manifest.reserved_revision,
        };
        let dir = self.config.data_dir.join("catalogue");
        let is_current = |segment, entry: &Entry| survey.is_current(segment, entry);
        let documents = |visit: &mut dyn FnMut(&str, &str, catalogue::Value) -> Result<()>| {
            documents::visit(&survey.place, is_current, visit)
        };
        let audit = catalogue::audit(
            &dir,
            self.config.catalogue_cache_bytes,
            identity,
            &documents,
        )?;
        self.found.catalogue = match audit {
            Audit::Agrees => Catalogue::Agrees,
            Audit::Unclean => Catalogue::Unclean,
            Audit::Differs(what) => {
                self.problem(&Error::corrupt(&dir, 0, what), Harm::Derived, None)?;
                Catalogue::Differs
            }
        };
        Ok(())
    }
}
