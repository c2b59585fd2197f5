//! The rules for the structure of a crate, and the errors for broken rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use super::graph::{Import, ImportGraph};
use super::source::SourceFile;

/// The rules for a crate.
#[derive(Debug, Clone, Copy)]
pub struct CrateRules<'a> {
    /// The source folder, as errors show it: `engine/src`.
    pub folder: &'a str,
    /// The layers, lowest first, with one row for each rank. A layer is a file or a folder at the
    /// top of the source folder. A layer may import itself and the layers in lower rows. If the
    /// table is empty, only circular imports and type names are checked.
    pub layers: &'a [&'a [&'a str]],
}

/// A broken rule, with the file and line of each place that breaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StructureError {
    /// An import of a higher layer, or of another layer with the same rank.
    NotDownward {
        /// The import.
        import: String,
        /// The importing layer.
        from: String,
        /// The imported layer.
        to: String,
        /// True if both layers have the same rank.
        same_rank: bool,
    },
    /// Files that import each other, directly or through other files. Imports that break another
    /// rule are ignored.
    Circle {
        /// All imports between these files.
        imports: Vec<String>,
    },
    /// An import of an item that the crate root declares or re-exports.
    FromRoot {
        /// The import.
        import: String,
    },
    /// A type name with more than one declaration.
    TypeDeclaredTwice {
        /// The name.
        name: String,
        /// The places of its declarations.
        places: Vec<String>,
    },
    /// A file that belongs to no listed layer.
    UnknownLayer {
        /// The file.
        file: String,
        /// The unlisted layer of the file.
        layer: String,
    },
    /// A listed layer without a file.
    EmptyLayer {
        /// The layer.
        layer: String,
    },
}

impl Display for StructureError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDownward {
                import,
                from,
                to,
                same_rank: false,
            } => write!(
                f,
                "{import}: upward import: layer `{to}` is above layer `{from}`"
            ),
            Self::NotDownward {
                import, from, to, ..
            } => write!(
                f,
                "{import}: sideways import: layers `{from}` and `{to}` have the same rank"
            ),
            Self::Circle { imports } => write!(
                f,
                "circle of imports between files:\n    {}",
                imports.join("\n    ")
            ),
            Self::FromRoot { import } => write!(
                f,
                "{import}: import from the crate root: import it from the module that declares it"
            ),
            Self::TypeDeclaredTwice { name, places } => write!(
                f,
                "type name `{name}` is declared {} times in one crate:\n    {}",
                places.len(),
                places.join("\n    ")
            ),
            Self::UnknownLayer { file, layer } => {
                write!(f, "{file}: new layer `{layer}`: add it to the order")
            }
            Self::EmptyLayer { layer } => {
                write!(f, "layer `{layer}` has no file: remove it from the order")
            }
        }
    }
}

/// Returns every rule that a crate breaks.
pub fn check(rules: &CrateRules<'_>, files: &[SourceFile]) -> Vec<StructureError> {
    let graph = ImportGraph::new(files);
    let checked = CheckedCrate { rules, graph };
    let mut errors = Vec::new();
    if !rules.layers.is_empty() {
        checked.check_order(&mut errors);
    }
    checked.check_imports(&mut errors);
    checked.check_types(&mut errors);
    errors
}

struct CheckedCrate<'a> {
    rules: &'a CrateRules<'a>,
    graph: ImportGraph<'a>,
}

impl CheckedCrate<'_> {
    /// Checks that each file belongs to a listed layer, and that each listed layer has a file.
    fn check_order(&self, errors: &mut Vec<StructureError>) {
        let mut found = BTreeSet::new();
        for node in self.graph.nodes.iter().filter(|node| !node.file.is_root()) {
            let layer = node.file.layer();
            found.insert(layer);
            if self.rank(layer).is_none() {
                errors.push(StructureError::UnknownLayer {
                    file: self.path(node.file),
                    layer: layer.to_owned(),
                });
            }
        }
        let layers = self.rules.layers.iter().copied().flatten();
        for layer in layers.filter(|layer| !found.contains(*layer)) {
            let layer = (*layer).to_owned();
            errors.push(StructureError::EmptyLayer { layer });
        }
    }

    /// Checks a single import, which must not lead to the crate root or upward.
    fn import_error(&self, import: &Import) -> Option<StructureError> {
        let from = self.graph.nodes[import.from].file;
        let to = self.graph.nodes[import.to].file;
        if self.rules.layers.is_empty() || from.is_root() {
            return None;
        }
        if to.is_root() {
            let import = self.describe(import);
            return Some(StructureError::FromRoot { import });
        }
        Some(StructureError::NotDownward {
            import: self.describe(import),
            from: from.layer().to_owned(),
            to: to.layer().to_owned(),
            same_rank: self.wrong_direction(from.layer(), to.layer())?,
        })
    }

    /// Returns `None` if `from` may import `to`. Otherwise returns true if both have the same rank.
    /// Imports of unlisted layers are allowed, because the layer itself is reported.
    fn wrong_direction(&self, from: &str, to: &str) -> Option<bool> {
        let (from_rank, to_rank) = (self.rank(from)?, self.rank(to)?);
        (from != to && to_rank >= from_rank).then_some(to_rank == from_rank)
    }

    fn rank(&self, layer: &str) -> Option<usize> {
        let mut rows = self.rules.layers.iter();
        rows.position(|row| row.contains(&layer))
    }

    /// Checks that imports lead downward and are not circular. Imports with an error are ignored in
    /// the search for circles, because each would close circles through many correct files.
    fn check_imports(&self, errors: &mut Vec<StructureError>) {
        let mut accepted = Vec::new();
        for import in &self.graph.imports {
            match self.import_error(import) {
                Some(error) => errors.push(error),
                None => accepted.push(import),
            }
        }
        for circle in self.graph.circles(&accepted) {
            let imports = circle.into_iter().map(|import| self.describe(import));
            errors.push(StructureError::Circle {
                imports: imports.collect(),
            });
        }
    }

    /// Checks that each type name is declared only once.
    fn check_types(&self, errors: &mut Vec<StructureError>) {
        let mut declared: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for node in &self.graph.nodes {
            for declaration in &node.contents.types {
                let place = format!("{}:{}", self.path(node.file), declaration.line);
                declared.entry(&declaration.name).or_default().push(place);
            }
        }
        for (name, places) in declared {
            if places.len() > 1 {
                let name = name.to_owned();
                errors.push(StructureError::TypeDeclaredTwice { name, places });
            }
        }
    }

    fn path(&self, file: &SourceFile) -> String {
        format!("{}/{}", self.rules.folder, file.path)
    }

    /// Formats the file, line and path of an import, and the imported file.
    fn describe(&self, import: &Import) -> String {
        let from = self.path(self.graph.nodes[import.from].file);
        let to = &self.graph.nodes[import.to].file.path;
        format!("{from}:{}: `{}` ({to})", import.line, import.path)
    }
}
