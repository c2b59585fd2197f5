//! Copies of the golden data directories in `fixtures/`. Each of these directories was written
//! once, in one version of the on-disk format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use prefd_engine::{Config, Engine, Error};
use serde::Deserialize;

use crate::sim_store::directory;

/// Format versions that have a golden directory.
pub const FORMATS: [u32; 3] = [1, 2, 3];

/// A copy of a golden directory, which a test may change.
#[derive(Debug)]
pub struct Golden {
    /// Format version of the directory.
    pub format: u32,
    /// The data directory. Removed when dropped.
    pub dir: tempfile::TempDir,
}

/// The expected contents of one namespace of a golden directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GoldenEntry {
    /// User of the namespace.
    pub user: String,
    /// Client of the namespace.
    pub client: String,
    /// Revision of the document. `None` if the document was deleted.
    pub revision: Option<u64>,
    /// Text of the document. `None` if the document was deleted.
    pub text: Option<String>,
}

fn fixture(format: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("fixtures/format-{format}"))
        .join(name)
}

/// Reads the expected contents of the golden directory with the given format version.
pub fn listing(format: u32) -> Vec<GoldenEntry> {
    let text = fs::read_to_string(fixture(format, "documents.jsonl"))
        .expect("documents.jsonl can be read");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("each line of documents.jsonl is an entry"))
        .collect()
}

impl Golden {
    /// Copies the golden directory with the given format version.
    pub fn of(format: u32) -> Self {
        let dir = directory();
        for folder in ["log", "blobs"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            for file in fs::read_dir(fixture(format, "data").join(folder)).unwrap() {
                let file = file.unwrap();
                let copy = dir.path().join(folder).join(file.file_name());
                fs::write(copy, fs::read(file.path()).unwrap()).unwrap();
            }
        }
        Self { format, dir }
    }

    /// The expected contents of the directory.
    pub fn listing(&self) -> Vec<GoldenEntry> {
        listing(self.format)
    }

    /// The configuration with which the directory was written: small segments and a small inline
    /// size.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config
    }

    /// Path of a file in the directory.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Sorted paths of the files in `folder` with the given extension.
    pub fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect();
        files.sort();
        files
    }

    /// Removes the summaries, so that an open must read the frames of every segment.
    pub fn remove_summaries(&self) {
        for summary in self.files("log", "sum") {
            fs::remove_file(summary).unwrap();
        }
    }

    /// Restores the original files of log and blobs.
    fn restore(&self, context: &str) {
        for folder in ["log", "blobs"] {
            for file in fs::read_dir(self.path(folder)).unwrap() {
                fs::remove_file(file.unwrap().path()).expect(context);
            }
            let source = fixture(self.format, "data").join(folder);
            for file in fs::read_dir(source).unwrap() {
                let file = file.unwrap();
                let copy = self.path(folder).join(file.file_name());
                fs::copy(file.path(), copy).expect(context);
            }
        }
    }

    /// Reads every file of log and blobs.
    pub fn image(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let folders = ["log", "blobs"].map(|folder| fs::read_dir(self.path(folder)).unwrap());
        folders
            .into_iter()
            .flatten()
            .map(|file| file.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect()
    }
}

fn check(engine: &Engine, listed: &GoldenEntry) {
    let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
    let found = namespace.get().unwrap();
    let revision = found
        .as_ref()
        .map(|document| document.stat().revision.get());
    assert_eq!(revision, listed.revision, "{listed:?}");
    let bytes = found.map(|document| document.read().unwrap());
    let expected = listed.text.as_ref().map(String::as_bytes);
    assert!(bytes.as_deref() == expected, "{listed:?}");
}

/// Opens a directory, checks every namespace and listing, and closes the directory.
pub fn check_opened(golden: &Golden, all: &[GoldenEntry]) {
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, all);
    engine.close().unwrap();
}

/// Compares every document byte by byte, and every listing.
pub fn check_all(engine: &Engine, all: &[GoldenEntry]) {
    for listed in all {
        check(engine, listed);
    }
    let users: BTreeSet<&str> = all.iter().map(|listed| listed.user.as_str()).collect();
    for user in users {
        let mut expected: Vec<_> = all
            .iter()
            .filter(|listed| listed.user == user)
            .filter_map(|listed| Some((listed.client.clone(), listed.text.as_ref()?.len() as u64)))
            .collect();
        expected.sort();
        let entries = engine.list(user, None, usize::MAX).unwrap();
        let found: Vec<_> = entries
            .into_iter()
            .map(|entry| (entry.client, entry.stat.usage.bytes))
            .collect();
        assert_eq!(found, expected, "{user}");
    }
}

/// Flips single bits in each file of a golden directory, at regular distances.
///
/// After each flip, every read must return the right document or an error. Only the last write
/// to the unsealed segment may be missing, because it is above the watermark.
pub fn sweep_bits(format: u32) {
    /// Coprime to the lengths of repeated structures, so that every field is hit.
    const STRIDE: usize = 29;
    let golden = Golden::of(format);
    let listing = golden.listing();
    let unsealed = golden.files("log", "seg").pop().unwrap();
    let highest = listing.iter().filter_map(|listed| listed.revision).max();
    let (mut flipped, mut detected) = (0, 0);
    for (path, bytes) in golden.image() {
        if path
            .extension()
            .is_some_and(|extension| extension == "blob")
        {
            continue;
        }
        for at in (0..bytes.len()).step_by(STRIDE) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, changed).unwrap();
            let mut config = golden.config();
            config.catalogue = false;
            config.background_compaction = false;
            config.reserve_bytes = 0;
            let context = format!("{} at {at}", path.display());
            let errors = errors_of(&config, &listing, |listed| {
                path == unsealed && listed.revision == highest
            });
            detected += usize::from(errors > 0);
            flipped += 1;
            // The open may have repaired or moved files.
            golden.restore(&context);
        }
    }
    assert!(
        flipped > 2_000 && detected > 500,
        "expected over 2000 flips and over 500 detections, but {detected} of {flipped} were detected"
    );
}

/// Counts the documents that cannot be read, or returns `usize::MAX` if the directory does not
/// open. Panics if a document is wrong, unless `may_miss` allows it to be missing.
fn errors_of(
    config: &Config,
    listing: &[GoldenEntry],
    may_miss: impl Fn(&GoldenEntry) -> bool,
) -> usize {
    let expect_named = |error: Error| match error {
        Error::Corrupt { .. } | Error::UnsupportedFormat { .. } => {}
        other => panic!("expected Corrupt or UnsupportedFormat: {other:?}"),
    };
    let engine = match Engine::open(config.clone()) {
        Ok(engine) => engine,
        Err(error) => {
            expect_named(error);
            return usize::MAX;
        }
    };
    let mut errors = 0;
    for listed in listing {
        let namespace = engine.namespace(&listed.user, &listed.client).unwrap();
        let found = namespace
            .get()
            .and_then(|found| found.map(|document| document.read()).transpose());
        match found {
            Ok(found) => {
                let text = found.map(|bytes| String::from_utf8(bytes).unwrap());
                assert!(text == listed.text || may_miss(listed), "{listed:?}");
            }
            Err(error) => {
                expect_named(error);
                errors += 1;
            }
        }
    }
    errors
}
