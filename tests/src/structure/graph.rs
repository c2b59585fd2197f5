//! The graph of imports between the files of a crate.

use std::collections::{BTreeMap, BTreeSet};

use super::parser::{Contents, ImportPath, parse};
use super::source::SourceFile;

/// A module's path, from the crate root.
type Module = Vec<String>;

/// An import of one file by another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Import {
    /// Index of the importing file.
    pub(super) from: usize,
    pub(super) line: usize,
    /// The import path as it is written in the source.
    pub(super) path: String,
    /// Index of the imported file.
    pub(super) to: usize,
}

/// A file without its unit tests.
pub(super) struct Node<'a> {
    pub(super) file: &'a SourceFile,
    pub(super) contents: Contents,
    module: Module,
}

/// The files of a crate, and the imports between them.
pub(super) struct ImportGraph<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) imports: Vec<Import>,
}

impl<'a> ImportGraph<'a> {
    /// Parses the files that are not unit tests, and finds the file of each import.
    pub(super) fn new(files: &'a [SourceFile]) -> Self {
        let files = files.iter().filter(|file| !file.is_unit_test());
        let nodes: Vec<_> = files.map(Node::new).collect();
        let mut modules = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate() {
            modules.entry(node.module.clone()).or_insert(index);
        }
        let mut imports = BTreeSet::new();
        for (from, node) in nodes.iter().enumerate() {
            imports.extend(node.imports(from, &modules));
        }
        Self {
            nodes,
            imports: imports.into_iter().collect(),
        }
    }

    /// Finds the circular imports. Each circle is the list of all imports within a strongly
    /// connected component of files.
    pub(super) fn circles<'b>(&self, imports: &[&'b Import]) -> Vec<Vec<&'b Import>> {
        let nodes = 0..self.nodes.len();
        let reached: Vec<_> = nodes.map(|node| reachable(node, imports)).collect();
        let mut circles: BTreeMap<&BTreeSet<usize>, Vec<_>> = BTreeMap::new();
        for import in imports {
            if reached[import.to].contains(&import.from) {
                // Two files are in the same circle if and only if they reach the same files.
                let circle = circles.entry(&reached[import.from]).or_default();
                circle.push(*import);
            }
        }
        circles.into_values().collect()
    }
}

/// The files that `start` imports, directly or through others.
fn reachable(start: usize, imports: &[&Import]) -> BTreeSet<usize> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(from) = open.pop() {
        for import in imports.iter().filter(|import| import.from == from) {
            if reached.insert(import.to) {
                open.push(import.to);
            }
        }
    }
    reached
}

impl<'a> Node<'a> {
    fn new(file: &'a SourceFile) -> Self {
        Self {
            file,
            contents: parse(&file.text),
            module: file.module(),
        }
    }

    /// The imports of other files in the same crate.
    fn imports(&self, from: usize, modules: &BTreeMap<Module, usize>) -> BTreeSet<Import> {
        let aliases = self.aliases(modules);
        let mut imports = BTreeSet::new();
        for import in &self.contents.imports {
            let Some(path) = self.absolute(import, &aliases) else {
                continue;
            };
            let Some(to) = (0..=path.len())
                .rev()
                .find_map(|len| modules.get(&path[..len]))
            else {
                continue;
            };
            if *to != from {
                imports.insert(Import {
                    from,
                    line: import.line,
                    path: import.parts.join("::"),
                    to: *to,
                });
            }
        }
        imports
    }

    /// The modules that `use` declarations in this file bind to a name.
    fn aliases(&self, modules: &BTreeMap<Module, usize>) -> BTreeMap<String, Module> {
        let mut aliases = BTreeMap::new();
        loop {
            let known = aliases.len();
            for import in &self.contents.imports {
                let path = self.absolute(import, &aliases);
                let path = path.filter(|path| modules.contains_key(path));
                if let (Some(alias), Some(path)) = (&import.alias, path) {
                    aliases.entry(alias.clone()).or_insert(path);
                }
            }
            // A name can be imported through an alias that was found in this round.
            if aliases.len() == known {
                return aliases;
            }
        }
    }

    /// Resolves an import to a path from the crate root. Returns `None` if the import leads to
    /// another crate, or to an item in this file.
    fn absolute(&self, import: &ImportPath, aliases: &BTreeMap<String, Module>) -> Option<Module> {
        let (first, rest) = import.parts.split_first()?;
        let mut here = self.module.clone();
        here.extend_from_slice(&import.inside);
        let mut child = import.inside.clone();
        child.push(first.clone());
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" | "super" => relative(here, &import.parts),
            _ if self.contents.children.contains(&child) => {
                here.extend_from_slice(&import.parts);
                Some(here)
            }
            _ => {
                let mut path = aliases.get(first)?.clone();
                path.extend_from_slice(rest);
                Some(path)
            }
        }
    }
}

/// Resolves a path that begins with any number of `self` and `super`.
fn relative(mut here: Module, parts: &[String]) -> Option<Module> {
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next_if(|part| matches!(part.as_str(), "self" | "super")) {
        if part == "super" {
            here.pop()?;
        }
    }
    here.extend(parts.cloned());
    Some(here)
}
