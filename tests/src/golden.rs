//! The golden data directories in `fixtures/`: bytes of each version of the format,
//! written once. Tests work on copies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use prefd_engine::{Config, Engine, Error};
use serde::Deserialize;

use crate::sim_store::directory;

/// The versions that there is a golden directory of.
pub const FORMATS: [u32; 2] = [1, 2];

/// A copy of a golden directory.
#[derive(Debug)]
pub struct Golden {
    /// The version of the format.
    pub format: u32,
    /// The data directory. Removed when dropped.
    pub dir: tempfile::TempDir,
}

/// A namespace of a golden directory, as its listing has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its user.
    pub user: String,
    /// Its client.
    pub client: String,
    /// The revision; none where it was deleted.
    pub revision: Option<u64>,
    /// The document's text; none where it was deleted.
    pub text: Option<String>,
}

fn fixture(format: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("fixtures/format-{format}"))
        .join(name)
}

/// What the golden directory of a version holds.
pub fn listing(format: u32) -> Vec<Listed> {
    let text = fs::read_to_string(fixture(format, "documents.jsonl")).expect("a listing");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of it"))
        .collect()
}

impl Golden {
    /// A fresh copy of that of a format.
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

    /// What it holds.
    pub fn listing(&self) -> Vec<Listed> {
        listing(self.format)
    }

    /// As it was written: small segments, small inline size.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.dir.path());
        config.segment_bytes = Config::MIN_SEGMENT_BYTES;
        config.inline_bytes = 2048;
        config
    }

    /// A file of it.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// The files that end like this, in order.
    pub fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == extension))
            .collect();
        files.sort();
        files
    }

    /// Leaves the frames alone to tell what is in it.
    pub fn remove_summaries(&self) {
        for summary in self.files("log", "sum") {
            fs::remove_file(summary).unwrap();
        }
    }

    /// Makes every file of log and blobs what it was.
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

    /// Every file of log and blobs, byte by byte.
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

fn check(engine: &Engine, listed: &Listed) {
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

/// Opens a directory, checks all of it, and closes it.
pub fn check_opened(golden: &Golden, all: &[Listed]) {
    let engine = Engine::open(golden.config()).unwrap();
    check_all(&engine, all);
    engine.close().unwrap();
}

/// Checks every document by its bytes, and every listing.
pub fn check_all(engine: &Engine, all: &[Listed]) {
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

/// Flips one bit of every so many bytes of each file of a golden directory: what is read
/// is right, or an error, and what is above the watermark of the unsealed segment may be
/// gone as if it had never been.
pub fn sweep_bits(format: u32) {
    /// Coprime to the lengths of what repeats.
    const STRIDE: usize = 29;
    let whole = Golden::of(format);
    let listing = whole.listing();
    let unsealed = whole.files("log", "seg").pop().unwrap();
    let highest = listing.iter().filter_map(|listed| listed.revision).max();
    let (mut flipped, mut detected) = (0, 0);
    for (path, bytes) in whole.image() {
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
            let mut config = whole.config();
            config.catalogue = false;
            config.background_compaction = false;
            config.reserve_bytes = 0;
            let context = format!("{} at {at}", path.display());
            let errors = errors_of(&config, &listing, |listed| {
                path == unsealed && listed.revision == highest
            });
            detected += usize::from(errors > 0);
            flipped += 1;
            // The open may have mended or moved things.
            whole.restore(&context);
        }
    }
    assert!(flipped > 2_000 && detected > 500, "{detected} of {flipped}");
}

/// How many documents cannot be read; all others are right, or are one of those that may
/// be missing.
fn errors_of(config: &Config, listing: &[Listed], may_miss: impl Fn(&Listed) -> bool) -> usize {
    let expect_named = |error: Error| match error {
        Error::Corrupt { .. } | Error::UnsupportedFormat { .. } => {}
        other => panic!("{other:?}"),
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
