//! A simple tokenizer for Rust source, sufficient to find paths and declarations.

/// A word (identifier, keyword or number), `::`, a literal or one other character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// The text of the token, or [`LITERAL`] for string and character literals.
    pub(super) text: &'a str,
    /// The line on which the token begins. Lines are counted from 1.
    pub(super) line: usize,
}

/// The text of every string or character literal. The real contents are not kept.
pub(super) const LITERAL: &str = "\"\"";

impl Token<'_> {
    /// Returns true for an identifier, a keyword or a number.
    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

enum Kind {
    /// White space, a comment or a lifetime.
    Skipped,
    Literal,
    Plain,
}

/// Splits `source` into tokens, without comments, white space and lifetimes.
pub(super) fn tokenize(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest, mut line) = (Vec::new(), source, 1);
    while !rest.is_empty() {
        let (kind, len) = measure(rest);
        let (text, remaining) = rest.split_at(len);
        match kind {
            Kind::Skipped => {}
            Kind::Literal => tokens.push(Token {
                text: LITERAL,
                line,
            }),
            Kind::Plain => tokens.push(Token {
                text: text.trim_start_matches("r#"),
                line,
            }),
        }
        line += text.matches('\n').count();
        rest = remaining;
    }
    tokens
}

/// Returns the kind and the length in bytes of the token at the start of `rest`.
fn measure(rest: &str) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Skipped, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Skipped, block_comment(rest));
    }
    if let Some(len) = string(rest) {
        return (Kind::Literal, len);
    }
    let first = rest.chars().next().unwrap_or_default();
    match first {
        '\'' => quote(rest),
        'r' if rest.starts_with("r#") && rest[2..].starts_with(is_word_char) => {
            (Kind::Plain, 2 + word(&rest[2..]))
        }
        _ if is_word_char(first) => (Kind::Plain, word(rest)),
        _ if rest.starts_with("::") => (Kind::Plain, 2),
        _ if first.is_whitespace() => (Kind::Skipped, first.len_utf8()),
        _ => (Kind::Plain, first.len_utf8()),
    }
}

fn is_word_char(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn word(rest: &str) -> usize {
    rest.find(|char| !is_word_char(char)).unwrap_or(rest.len())
}

/// Returns the length of a block comment, including nested comments.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let remaining = &rest.as_bytes()[at..];
        if remaining.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if remaining.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Returns the length of a string literal, including its prefix (`b`, `c`, `r`, `br`, `cr`) and the
/// number signs of a raw string.
fn string(rest: &str) -> Option<usize> {
    let prefix = rest.find(|char| !matches!(char, 'b' | 'c' | 'r'))?;
    if !matches!(&rest[..prefix], "" | "b" | "c" | "r" | "br" | "cr") {
        return None;
    }
    if !rest[..prefix].ends_with('r') {
        return rest[prefix..]
            .starts_with('"')
            .then(|| prefix + escaped(&rest[prefix..], '"'));
    }
    let signs = rest[prefix..].find(|char| char != '#')?;
    let body = rest[prefix + signs..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(signs));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix + signs + 1 + len)
}

/// Returns the length of a literal in which a backslash escapes the next character.
fn escaped(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// Reads a character literal or a lifetime.
fn quote(rest: &str) -> (Kind, usize) {
    let mut chars = rest.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') {
        (Kind::Literal, escaped(rest, '\''))
    } else {
        (Kind::Skipped, 1 + word(&rest[1..]))
    }
}
