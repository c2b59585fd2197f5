//! The files of a crate, and the module that each of them is.

use std::path::Path;

/// One file of a crate.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Its path from the source folder, with `/` between the parts: `log/reader.rs`.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl SourceFile {
    /// The module that the file is: `["log", "reader"]`, and `[]` for the crate root.
    pub(super) fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if self.is_root() {
            return Vec::new();
        }
        path.split('/').map(str::to_owned).collect()
    }

    /// The layer that the file belongs to: the first part of its path.
    pub(super) fn layer(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// Whether the file is the root of the library or of the program.
    pub(super) fn is_root(&self) -> bool {
        matches!(self.path.as_str(), "lib.rs" | "main.rs")
    }

    /// Whether the whole file is a unit-test module.
    pub(super) fn is_unit_test(&self) -> bool {
        self.path == "tests.rs" || self.path.ends_with("/tests.rs")
    }
}

/// Reads every `.rs` file below `folder`, in the order of their paths.
///
/// # Panics
/// If the folder or a file cannot be read, or if the folder has no such file.
pub fn read_sources(folder: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    read_folder(folder, "", &mut files);
    assert!(!files.is_empty(), "no .rs files in {}", folder.display());
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read_folder(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) {
    let entries = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
    for entry in entries {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_folder(&entry.path(), &format!("{path}/"), files);
        } else if entry.path().extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(entry.path())
                .unwrap_or_else(|error| panic!("cannot read {}: {error}", entry.path().display()));
            files.push(SourceFile { path, text });
        }
    }
}
