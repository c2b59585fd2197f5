//! Finds the imports and type declarations of a file in its tokens.

use super::tokens::{Token, tokenize};

/// The imports and declarations of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Paths in `use` declarations and in code.
    pub(super) imports: Vec<ImportPath>,
    /// Modules that the file declares, as inline modules or as files.
    pub(super) children: Vec<Vec<String>>,
    /// Declared structs, enums, traits and unions.
    pub(super) types: Vec<TypeDeclaration>,
}

/// A path as it is written in a file.
#[derive(Debug, Clone)]
pub(super) struct ImportPath {
    /// The line of the last part of the path.
    pub(super) line: usize,
    /// The inline modules that contain the path, outermost first.
    pub(super) inside: Vec<String>,
    /// The parts of the path, without a final `*` or `self`.
    pub(super) parts: Vec<String>,
    /// The name to which a `use` declaration binds the path.
    pub(super) alias: Option<String>,
}

/// A declared type, and the line of its name.
#[derive(Debug)]
pub(super) struct TypeDeclaration {
    pub(super) name: String,
    pub(super) line: usize,
}

/// Parses a file. Ignores its `#[cfg(test)] mod tests`.
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
    /// Number of open braces.
    depth: usize,
    /// The open inline modules, each with the number of braces around it.
    inside: Vec<(String, usize)>,
    contents: Contents,
}

/// The tokens before a unit-test module.
const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

impl<'a> Parser<'a> {
    /// Reads the beginning of an item, a path, or a single token.
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

    /// The text of the token at distance `ahead`. Empty after the last token.
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

    /// Skips `#[cfg(test)] mod tests;` or `#[cfg(test)] mod tests { … }`.
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

    /// Skips a path that begins with `::`, such as `::std::mem`, or `::Item` in
    /// `<T as Trait>::Item`.
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
        // The next step counts the opening brace of a body.
        self.at += 2;
    }

    /// Returns true if a type declaration begins here. `union` is a keyword only before a name
    /// and fields.
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
        // The part of a path after a turbofish, `::<T>`, never leads to another file.
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

    /// Reads a tree of paths that begin with `prefix`. Stops before the next comma, brace or
    /// semicolon.
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

    /// Reads the last name of a path, and its new name after `as`.
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
