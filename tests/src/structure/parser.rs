//! Finds what a file imports and declares in its tokens.

use super::tokens::{Token, tokenize};

/// What one file says about the structure of its crate.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Paths of `use` declarations, and paths in the code.
    pub(super) imports: Vec<ImportPath>,
    /// Modules that the file declares, as inline modules or as files.
    pub(super) children: Vec<Vec<String>>,
    /// Structs, enums, traits and unions.
    pub(super) types: Vec<TypeDeclaration>,
}

/// A path as it is written in a file.
#[derive(Debug, Clone)]
pub(super) struct ImportPath {
    /// The line of its last part.
    pub(super) line: usize,
    /// The inline modules around it, from the outermost.
    pub(super) inside: Vec<String>,
    /// Its parts, without a `*` or `self` at the end.
    pub(super) parts: Vec<String>,
    /// The name that a `use` declaration gives it.
    pub(super) alias: Option<String>,
}

/// A type, and the line of its name.
#[derive(Debug)]
pub(super) struct TypeDeclaration {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Reads a file, leaving out its `#[cfg(test)] mod tests`.
pub(super) fn parse(source: &str) -> Contents {
    let mut parser = Parser {
        tokens: tokenize(source),
        at: 0,
        depth: 0,
        inside: Vec::new(),
        contents: Contents::default(),
    };
    while parser.at < parser.tokens.len() {
        parser.step();
    }
    parser.contents
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Braces that are open.
    depth: usize,
    /// The inline modules that are open, each with the depth around it.
    inside: Vec<(String, usize)>,
    contents: Contents,
}

/// What stands in front of a unit-test module.
const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

impl<'a> Parser<'a> {
    /// Reads one item's beginning, one path or one token.
    fn step(&mut self) {
        match self.text(0) {
            "#" if self.begins_unit_tests() => self.skip_unit_tests(),
            "use" if self.text(1) != "<" => self.use_declaration(),
            "mod" if self.is_word(1) => self.module(),
            "struct" | "enum" | "trait" | "union" if self.is_declaration() => self.declaration(),
            "(" if self.text(1) == "in" && self.before() == "pub" => self.skip_past(")"),
            "{" => {
                self.depth += 1;
                self.at += 1;
            }
            "}" => self.close(),
            "::" => self.skip_path(),
            _ if self.is_word(0) && self.text(1) == "::" => self.inline_path(),
            _ => self.at += 1,
        }
    }

    /// The text of the token that is `ahead` of this one; empty behind the last.
    fn text(&self, ahead: usize) -> &'a str {
        self.tokens
            .get(self.at + ahead)
            .map_or("", |token| token.text)
    }

    fn before(&self) -> &'a str {
        self.at
            .checked_sub(1)
            .map_or("", |before| self.tokens[before].text)
    }

    fn is_word(&self, ahead: usize) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(Token::is_word)
    }

    fn line(&self) -> usize {
        self.tokens.get(self.at).map_or(0, |token| token.line)
    }

    fn names_inside(&self) -> Vec<String> {
        self.inside.iter().map(|(name, _)| name.clone()).collect()
    }

    fn begins_unit_tests(&self) -> bool {
        let attribute = (0..).zip(CFG_TEST);
        let (module, name) = (self.text(CFG_TEST.len()), self.text(CFG_TEST.len() + 1));
        attribute
            .into_iter()
            .all(|(at, text)| self.text(at) == text)
            && (module, name) == ("mod", "tests")
    }

    /// Skips `#[cfg(test)] mod tests;` or the same with a body.
    fn skip_unit_tests(&mut self) {
        self.at += CFG_TEST.len() + 2;
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_past(&mut self, text: &str) {
        while self.at < self.tokens.len() && self.text(0) != text {
            self.at += 1;
        }
        self.at += 1;
    }

    /// Skips the rest of a path of which the beginning is not a name: `::std::mem`, or the
    /// `::Item` of `<T as Trait>::Item`.
    fn skip_path(&mut self) {
        while self.text(0) == "::" {
            self.at += 1;
            if self.is_word(0) {
                self.at += 1;
            }
        }
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self
            .inside
            .last()
            .is_some_and(|(_, depth)| *depth == self.depth)
        {
            self.inside.pop();
        }
        self.at += 1;
    }

    fn module(&mut self) {
        let name = self.text(1).to_owned();
        let has_body = self.text(2) == "{";
        if has_body || self.text(2) == ";" {
            let mut child = self.names_inside();
            child.push(name.clone());
            self.contents.children.push(child);
        }
        if has_body {
            self.inside.push((name, self.depth));
        }
        // The brace, if there is one, is counted by the next step.
        self.at += 2;
    }

    /// `union` is a keyword only in front of a name and its fields.
    fn is_declaration(&self) -> bool {
        self.is_word(1) && (self.text(0) != "union" || matches!(self.text(2), "{" | "<" | "where"))
    }

    fn declaration(&mut self) {
        self.at += 1;
        let (name, line) = (self.text(0).to_owned(), self.line());
        self.contents.types.push(TypeDeclaration { name, line });
        self.at += 1;
    }

    fn inline_path(&mut self) {
        let mut parts = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && self.is_word(1) {
            parts.push(self.text(1).to_owned());
            self.at += 2;
        }
        // Behind a turbofish, `::<T>`, the path goes on, but not into another file.
        self.at -= 1;
        self.import(parts, None);
        self.at += 1;
    }

    fn use_declaration(&mut self) {
        self.at += 1;
        if self.text(0) == "::" {
            self.skip_past(";");
        } else {
            self.use_tree(&[]);
        }
    }

    /// Reads a tree of paths that all begin with `prefix`, up to the comma, brace or
    /// semicolon behind it.
    fn use_tree(&mut self, prefix: &[String]) {
        let mut parts = prefix.to_vec();
        loop {
            match self.text(0) {
                "{" => return self.use_group(&parts),
                "*" => {
                    self.import(parts, None);
                    self.at += 1;
                    return;
                }
                "::" => self.at += 1,
                "self" if !parts.is_empty() && self.text(1) != "::" => {
                    return self.use_leaf(parts);
                }
                _ if self.is_word(0) => {
                    parts.push(self.text(0).to_owned());
                    if self.text(1) != "::" {
                        return self.use_leaf(parts);
                    }
                    self.at += 1;
                }
                _ => return,
            }
        }
    }

    fn use_group(&mut self, prefix: &[String]) {
        self.at += 1;
        while !matches!(self.text(0), "}" | "") {
            let start = self.at;
            self.use_tree(prefix);
            if self.text(0) == "," || self.at == start {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    /// Reads the last name of a path, and the name that it gets behind `as`.
    fn use_leaf(&mut self, parts: Vec<String>) {
        let renamed = self.text(1) == "as";
        let alias = if renamed {
            Some(self.text(2).to_owned())
        } else {
            parts.last().cloned()
        };
        self.import(parts, alias);
        self.at += if renamed { 3 } else { 1 };
    }

    fn import(&mut self, parts: Vec<String>, alias: Option<String>) {
        let import = ImportPath {
            line: self.line(),
            inside: self.names_inside(),
            parts,
            alias,
        };
        self.contents.imports.push(import);
    }
}
