//! The structure of the source: imports only go down the layers, files do not form import
//! cycles, each type name is declared once per crate, and docs/architecture.md lists every file.
//!
//! docs/architecture.md says what each layer owns. `prefd_tests::structure` says what counts
//! as an import.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use prefd_tests::structure::{CrateRules, check, read_sources};

/// The map of the source files.
const ARCHITECTURE: &str = include_str!("../../docs/architecture.md");
/// The heading above the rows of each crate's source files, and the folder of these files.
const FILE_TABLES: [(&str, &str); 2] = [
    ("## Which files does the engine have?", "engine/src"),
    ("## Which files does the server have?", "server/src"),
];

/// The engine's layers, from the lowest to the highest. Layers in the same row may not import
/// each other.
const ENGINE_LAYERS: &[&[&str]] = &[
    &["platform"],
    &["model"],
    &["json"],
    &["format"],
    &["storage", "catalogue"],
    &["index"],
    &["commit", "recovery"],
    &["maintenance", "offline"],
    &["api"],
    &["fuzzing"],
];

/// The server's layers, from the lowest to the highest. Layers in the same row may not import
/// each other.
const SERVER_LAYERS: &[&[&str]] = &[
    &["small_file"],
    &["settings", "counters", "io_error"],
    &["store", "log"],
    &["http"],
    &["transfer", "net", "auth"],
    &["telemetry"],
    &["api"],
    &["admin"],
    &["serve"],
    &["commands"],
    &["fuzzing"],
];

/// A path relative to the root of the repository.
fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Panics with a list of all violations in the crate.
fn assert_structure(folder: &str, layers: &[&[&str]]) {
    let sources = read_sources(&in_repository(folder));
    let errors = check(&CrateRules { folder, layers }, &sources);
    let mut list = String::new();
    for error in &errors {
        writeln!(list, "  {error}").unwrap();
    }
    assert!(
        errors.is_empty(),
        "{folder} violates the rules of its structure:\n{list}"
    );
}

#[test]
fn engine_imports_follow_the_layers_and_have_no_cycles() {
    assert_structure("engine/src", ENGINE_LAYERS);
}

#[test]
fn server_imports_follow_the_layers_and_have_no_cycles() {
    assert_structure("server/src", SERVER_LAYERS);
}

/// The benchmark has no layers.
#[test]
fn benches_imports_have_no_cycles() {
    assert_structure("benches/src", &[]);
}

/// The paths in the first column of the tables in a section of the map.
fn listed_files(heading: &str) -> Vec<&'static str> {
    let (_, section) = ARCHITECTURE
        .split_once(heading)
        .unwrap_or_else(|| panic!("docs/architecture.md has no section {heading:?}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| Some(row.split_once('`')?.0))
        .collect()
}

/// Whether a path in the map is the path of a file. Short paths are relative to a source folder.
fn names_a_file(path: &str) -> bool {
    ["", "engine/src", "server/src"]
        .iter()
        .any(|folder| in_repository(folder).join(path).is_file())
}

#[test]
fn architecture_md_lists_every_source_file() {
    let mut errors = Vec::new();
    for (heading, folder) in FILE_TABLES {
        let listed = listed_files(heading);
        for file in read_sources(&in_repository(folder)) {
            let rows = listed.iter().filter(|path| **path == file.path).count();
            if rows != 1 {
                errors.push(format!("{folder}/{} has {rows} rows, not 1", file.path));
            }
        }
        for path in listed {
            if !in_repository(folder).join(path).is_file() {
                errors.push(format!("the row of {folder}/{path} names no file"));
            }
        }
    }
    // The text between backticks is code.
    let code = ARCHITECTURE.split('`').skip(1).step_by(2);
    for path in code {
        if Path::new(path).extension().is_some_and(|end| end == "rs") && !names_a_file(path) {
            errors.push(format!("{path} is not the path of a file"));
        }
    }
    assert!(
        errors.is_empty(),
        "docs/architecture.md does not match the source files:\n  {}",
        errors.join("\n  ")
    );
}
