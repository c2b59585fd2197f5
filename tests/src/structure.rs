//! The structure of a crate's source: which file imports which, and the rules for it.
//!
//! [`check`] reads every file of a source folder as text and reports each
//! [`StructureError`]:
//!
//! - an import from a layer above, or from another layer of the same rank,
//! - a circular import between files,
//! - a type name that is declared twice,
//! - in a crate with layers, an import of an item from the crate root.
//!
//! An import is a `use` declaration or a path in the code that begins with `crate`,
//! `super`, `self`, a child module or an imported module. It counts as an import of the
//! file that the longest prefix of its path names. A re-export is an import of its folder's
//! front file, so a child that imports a sibling's item through the front makes a circle.
//!
//! Unit tests (`#[cfg(test)] mod tests` and files named `tests.rs`) are exempt, because the test of
//! a low layer may open a complete engine or server.
//!
//! Macros are not expanded, and paths in strings and attributes are not seen.

mod graph;
mod parser;
mod rules;
mod source;
#[cfg(test)]
mod tests;
mod tokens;

pub use rules::{CrateRules, StructureError, check};
pub use source::{SourceFile, read_sources};
