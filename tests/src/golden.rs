//! The golden data directories in `fixtures/`: bytes of each version of the format,
//! written once. Tests work on copies.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use prefd_engine::Config;
use serde::Deserialize;

/// A copy of the golden directory of format 1.
#[derive(Debug)]
pub struct Golden {
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

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/format-1")
        .join(name)
}

/// What the golden directory holds.
pub fn listing() -> Vec<Listed> {
    let text = fs::read_to_string(fixture("documents.jsonl")).expect("a listing");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line of it"))
        .collect()
}

impl Golden {
    /// A fresh copy.
    #[allow(clippy::new_without_default, reason = "it makes a directory")]
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["log", "blobs"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            for file in fs::read_dir(fixture("data").join(folder)).unwrap() {
                let file = file.unwrap();
                let copy = dir.path().join(folder).join(file.file_name());
                fs::write(copy, fs::read(file.path()).unwrap()).unwrap();
            }
        }
        Self { dir }
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
