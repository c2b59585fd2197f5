//! The source files of a crate and their module paths.

use std::path::Path;

/// One file of a crate.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path relative to the source folder, separated by `/`, such as `log/reader.rs`.
    pub path: String,
    /// Source text of the file.
    pub text: String,
}

impl SourceFile {
    /// The module path of the file, such as `["log", "reader"]`. The crate root has the path `[]`.
    pub(super) fn module(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if self.is_root() {
            return Vec::new();
        }
        path.split('/').map(str::to_owned).collect()
    }

    /// The layer of the file, which is the first part of its path.
    pub(super) fn layer(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// Returns true for `lib.rs` and `main.rs`.
    pub(super) fn is_root(&self) -> bool {
        matches!(self.path.as_str(), "lib.rs" | "main.rs")
    }

    /// Returns true if the file is a unit-test module.
    pub(super) fn is_unit_test(&self) -> bool {
        self.path == "tests.rs" || self.path.ends_with("/tests.rs")
    }
}

/// Reads every `.rs` file below `folder`, sorted by path.
///
/// # Panics
/// Panics if the folder or a file cannot be read, or if the folder has no `.rs` files.
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
