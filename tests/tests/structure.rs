//! The structure of the source: imports only go down the layers, files do not form import
//! cycles, and each type name is declared once per crate.
//!
//! docs/architecture.md says what each layer owns. `prefd_tests::structure` says what counts
//! as an import.

use std::fmt::Write;
use std::path::Path;

use prefd_tests::structure::{CrateRules, check, read_sources};

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

/// Panics with a list of all violations in the crate.
fn assert_structure(folder: &str, layers: &[&[&str]]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let errors = check(&CrateRules { folder, layers }, &read_sources(&path));
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
