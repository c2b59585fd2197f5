//! The rules, and what is said about a crate that breaks one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use super::graph::{Import, ImportGraph};
use super::source::SourceFile;

/// What holds for one crate.
#[derive(Debug, Clone, Copy)]
pub struct CrateRules<'a> {
    /// The source folder, as errors show it: `engine/src`.
    pub folder: &'a str,
    /// The layers from the ground up, one row for each rank. A layer is a file or a folder
    /// at the top of the source folder. It may import itself and layers of the rows below
    /// its own. A crate without rows has no layers, and only its circles and type names
    /// are checked.
    pub layers: &'a [&'a [&'a str]],
}

/// A rule that is broken, and where. Each place is a file and a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StructureError {
    /// An import of a layer from one below it, or from one of the same rank.
    NotDownward {
        /// The import.
        import: String,
        /// The layer that imports.
        from: String,
        /// The layer that is imported.
        to: String,
        /// Whether both have the same rank.
        same_rank: bool,
    },
    /// Files that import each other, directly or through others. Imports that break another
    /// rule are not followed.
    Circle {
        /// All imports between them.
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
        /// Its declarations.
        places: Vec<String>,
    },
    /// A file that belongs to no layer in the order.
    UnknownLayer {
        /// The file.
        file: String,
        /// The layer that it would belong to.
        layer: String,
    },
    /// A layer in the order that has no file.
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

/// Every rule that the crate breaks.
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
    /// Each file belongs to a layer of the order, and each layer has a file.
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

    /// What is wrong with an import by itself: it leads to the crate root, or not down.
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
            same_rank: self.is_not_downward(from.layer(), to.layer())?,
        })
    }

    /// `None` if `from` may import `to`; otherwise, whether both have the same rank. A
    /// layer that is not in the order is reported by itself, not for its imports.
    fn is_not_downward(&self, from: &str, to: &str) -> Option<bool> {
        let (from_rank, to_rank) = (self.rank(from)?, self.rank(to)?);
        (from != to && to_rank >= from_rank).then_some(to_rank == from_rank)
    }

    fn rank(&self, layer: &str) -> Option<usize> {
        let mut rows = self.rules.layers.iter();
        rows.position(|row| row.contains(&layer))
    }

    /// Imports go down, and form no circle. An import that is wrong by itself is not followed
    /// in the search for circles: it would close circles through many correct files.
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

    /// A type name is declared once.
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

    /// File, line and path of an import, and the file that it leads to.
    fn describe(&self, import: &Import) -> String {
        let from = self.path(self.graph.nodes[import.from].file);
        let to = &self.graph.nodes[import.to].file.path;
        format!("{from}:{}: `{}` ({to})", import.line, import.path)
    }
}
