//! The structure of the source: imports go down the layers, no two files import each other
//! in a circle, and a type name is declared once in a crate.
//!
//! docs/architecture.md says what each layer owns. `prefd_tests::structure` says what counts
//! as an import.

use std::fmt::Write;
use std::path::Path;

use prefd_tests::structure::{CrateRules, check, read_sources};

/// The engine's layers from the ground up; those of one row may not import each other.
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

/// The server's layers, in the same way.
const SERVER_LAYERS: &[&[&str]] = &[
    &["settings", "counters", "io_error"],
    &["store"],
    &["http"],
    &["transfer", "net", "auth"],
    &["telemetry"],
    &["api"],
    &["admin"],
    &["serve"],
    &["commands"],
    &["fuzzing"],
];

/// Panics with every rule that the crate breaks.
fn assert_structure(folder: &str, layers: &[&[&str]]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let errors = check(&CrateRules { folder, layers }, &read_sources(&path));
    let mut list = String::new();
    for error in &errors {
        writeln!(list, "  {error}").unwrap();
    }
    assert!(errors.is_empty(), "{folder} breaks rules:\n{list}");
}

#[test]
fn engine_files_keep_the_layers_and_form_no_circle() {
    assert_structure("engine/src", ENGINE_LAYERS);
}

#[test]
fn server_files_keep_the_layers_and_form_no_circle() {
    assert_structure("server/src", SERVER_LAYERS);
}

/// The benchmark has no layers.
#[test]
fn benches_files_form_no_circle() {
    assert_structure("benches/src", &[]);
}
