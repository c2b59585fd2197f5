//! An incremental scanner for a JSON object that arrives in chunks.
//!
//! The scanner finds the keys and the boundaries of the values, and enforces the limits byte by
//! byte. Inside a value, the scanner only tracks strings, escapes and nesting. When a value is
//! complete, [`validate`](crate::json::validate) checks that its text is valid JSON.
//!
//! The scanner stores the current key and all decoded keys, but no values. The limits on keys
//! therefore bound the memory of the scanner.
//!
//! Invariant: the division of a body into chunks does not affect the result of a scan.

use memchr::{memchr_iter, memchr2};

use crate::json::key::{KeyProgress, KeyReader};
use crate::json::key_set::KeySet;
use crate::model::limits::{Limits, Position, Violation};

/// An event that the scanner found in a chunk.
#[derive(Debug)]
pub(crate) enum ScanEvent<'a> {
    /// The JSON text of a complete key, including the quotes. The length of the decoded key is
    /// within the limit.
    Key(String),
    /// The next bytes of the value of the last key.
    Value(&'a [u8]),
    /// The end of the current value.
    ValueEnd,
}

/// The position of the scanner in the JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScannerState {
    /// Before the opening brace.
    Start,
    /// After the opening brace. Expects a key or the closing brace.
    FirstKey,
    /// After a comma. Expects a key.
    NextKey,
    /// After the opening quote of a key.
    InKey,
    /// After a key. Expects a colon.
    Colon,
    /// After a colon. Expects a value.
    ValueStart,
    /// Inside a value.
    Value(ValueShape),
    /// After the last byte of a value has been returned. The next event is [`ScanEvent::ValueEnd`].
    ValueDone,
    /// After [`ScanEvent::ValueEnd`]. Expects a comma or the closing brace.
    AfterValue,
    /// After the closing brace.
    End,
}

/// The shape of a value, which determines how the end of the value is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueShape {
    /// A string, an array or an object, which ends at the closing quote or bracket. `depth` is the
    /// number of open brackets.
    Enclosed { depth: u32, text: StringState },
    /// A number, `true`, `false` or `null`, which ends before the next whitespace, comma or closing
    /// brace.
    Scalar,
}

/// Whether the next byte of a value is inside a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringState {
    Outside,
    Inside,
    /// Inside a string, directly after a backslash.
    Escaped,
}

/// Tracks the offset and the line number in a body.
#[derive(Debug, Clone, Copy)]
struct LineCounter {
    offset: u64,
    line: u64,
    line_start: u64,
}

impl LineCounter {
    fn advance(&mut self, bytes: &[u8]) {
        for newline in memchr_iter(b'\n', bytes) {
            self.line += 1;
            self.line_start = self.offset + newline as u64 + 1;
        }
        self.offset += bytes.len() as u64;
    }

    fn position(&self) -> Position {
        Position {
            offset: self.offset,
            line: self.line,
            column: self.offset - self.line_start + 1,
        }
    }
}

/// Returns the position `distance` bytes after `start`. `text` is the text that begins at `start`.
pub(crate) fn position_after(start: Position, text: &[u8], distance: usize) -> Position {
    let mut cursor = LineCounter {
        offset: start.offset,
        line: start.line,
        line_start: start.offset + 1 - start.column,
    };
    cursor.advance(text.get(..distance).unwrap_or(text));
    cursor.position()
}

/// Scans one JSON object; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct JsonScanner {
    limits: Limits,
    state: ScannerState,
    cursor: LineCounter,
    /// The decoded keys of all members so far, to find duplicates.
    keys: KeySet,
    key: KeyReader,
    key_start: Position,
    value_start: Position,
    /// Number of bytes of the current value that have been returned.
    value_bytes: u64,
    /// A violation directly after the value bytes that the last event returned. The next call of
    /// [`JsonScanner::next`] returns the violation.
    pending: Option<Violation>,
}

const START: Position = Position {
    offset: 0,
    line: 1,
    column: 1,
};

impl JsonScanner {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            key: KeyReader::new(limits.max_key_bytes),
            limits,
            state: ScannerState::Start,
            cursor: LineCounter {
                offset: 0,
                line: 1,
                line_start: 0,
            },
            keys: KeySet::default(),
            key_start: START,
            value_start: START,
            value_bytes: 0,
            pending: None,
        }
    }

    /// Returns the next event and removes the consumed bytes from the front of `chunk`. Returns
    /// `None` when `chunk` is empty and no event or violation is pending.
    ///
    /// If `next` returns a violation while [`JsonScanner::is_in_value`] is true, the current value
    /// may contain an earlier violation. The caller must then check the bytes of the value with
    /// [`validate::check_prefix`](crate::json::validate::check_prefix).
    pub(crate) fn next<'a>(
        &mut self,
        chunk: &mut &'a [u8],
    ) -> Result<Option<ScanEvent<'a>>, Violation> {
        loop {
            if let Some(violation) = self.pending.take() {
                return Err(violation);
            }
            if self.state == ScannerState::ValueDone {
                self.state = ScannerState::AfterValue;
                return Ok(Some(ScanEvent::ValueEnd));
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            let allowed = up_to(chunk, self.limits.max_body_bytes - self.cursor.offset);
            if allowed.is_empty() {
                return Err(self.body_too_long());
            }
            let before = self.cursor.offset;
            let event = self.step(allowed)?;
            let consumed = usize::try_from(self.cursor.offset - before).unwrap_or(usize::MAX);
            *chunk = chunk.get(consumed..).unwrap_or_default();
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Returns true if no byte has been consumed yet.
    pub(crate) fn is_at_start(&self) -> bool {
        self.cursor.offset == 0
    }

    /// Returns true if a value has begun and its end has not been found yet.
    pub(crate) fn is_in_value(&self) -> bool {
        matches!(self.state, ScannerState::Value(_))
    }

    /// Returns the position of the first byte of the value that began last.
    pub(crate) fn value_start(&self) -> Position {
        self.value_start
    }

    /// Returns the decoded key that was scanned last.
    pub(crate) fn last_key(&self) -> &str {
        self.keys.last()
    }

    /// Returns the number of keys that have been scanned so far.
    pub(crate) fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Checks that the object is complete. Must be called at the end of the body.
    pub(crate) fn end(&self) -> Result<(), Violation> {
        if self.state == ScannerState::End {
            return Ok(());
        }
        if self.state == ScannerState::InKey {
            self.key.check_utf8(self.key_start)?;
        }
        Err(self.json("the body ends before the end of the object"))
    }

    /// Creates a JSON violation at the current position.
    fn json(&self, what: &str) -> Violation {
        Violation::Json {
            at: self.cursor.position(),
            what: what.to_owned(),
        }
    }

    fn body_too_long(&self) -> Violation {
        if self.state == ScannerState::InKey
            && let Err(earlier) = self.key.check_utf8(self.key_start)
        {
            return earlier;
        }
        Violation::BodyTooLong {
            limit: self.limits.max_body_bytes,
            actual: self.limits.max_body_bytes.saturating_add(1),
        }
    }

    /// Scans the start of `bytes`, which must not be empty. Each call makes progress: it consumes
    /// at least one byte, changes the state, sets `pending`, or returns a violation.
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<ScanEvent<'a>>, Violation> {
        match self.state {
            ScannerState::Value(shape) => return Ok(self.value(shape, bytes)),
            ScannerState::InKey => return self.key(bytes),
            _ => {}
        }
        let blank_bytes = bytes
            .iter()
            .position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
            .unwrap_or(bytes.len());
        let (blank, rest) = bytes.split_at(blank_bytes);
        self.cursor.advance(blank);
        let Some(&byte) = rest.first() else {
            return Ok(None);
        };
        self.state = match (self.state, byte) {
            (ScannerState::Start, b'{') => ScannerState::FirstKey,
            (ScannerState::Start, b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                return Err(Violation::NotAnObject {
                    at: self.cursor.position(),
                });
            }
            (ScannerState::FirstKey | ScannerState::NextKey, b'"') => {
                self.begin_key()?;
                ScannerState::InKey
            }
            (ScannerState::FirstKey | ScannerState::AfterValue, b'}') => ScannerState::End,
            (ScannerState::Colon, b':') => ScannerState::ValueStart,
            (ScannerState::ValueStart, _) => {
                let shape = self.begin_value(byte)?;
                self.state = ScannerState::Value(shape);
                return Ok(self.value(shape, rest));
            }
            (ScannerState::AfterValue, b',') => ScannerState::NextKey,
            (ScannerState::Start, _) => return Err(self.json("expected a JSON object")),
            (ScannerState::FirstKey, _) => return Err(self.json("expected a key or `}`")),
            (ScannerState::NextKey, _) => return Err(self.json("expected a key")),
            (ScannerState::Colon, _) => return Err(self.json("expected `:`")),
            (ScannerState::AfterValue, _) => return Err(self.json("expected `,` or `}`")),
            (ScannerState::End, _) => return Err(self.json("trailing characters")),
            (ScannerState::InKey | ScannerState::Value(_) | ScannerState::ValueDone, _) => {
                self.state
            }
        };
        self.cursor.advance(&[byte]);
        Ok(None)
    }

    fn begin_key(&mut self) -> Result<(), Violation> {
        let at = self.cursor.position();
        if self.keys.len() >= self.limits.max_keys as usize {
            return Err(Violation::TooManyKeys {
                at,
                limit: self.limits.max_keys,
                actual: self.limits.max_keys.saturating_add(1),
            });
        }
        self.key_start = at;
        self.key.begin();
        Ok(())
    }

    fn key<'a>(&mut self, bytes: &[u8]) -> Result<Option<ScanEvent<'a>>, Violation> {
        for (index, &byte) in bytes.iter().enumerate() {
            match self.key.push(byte, self.key_start)? {
                KeyProgress::More => {}
                KeyProgress::Complete(key) => {
                    self.cursor.advance(bytes.get(..=index).unwrap_or(bytes));
                    if let Err(key) = self.keys.insert(key.name) {
                        return Err(Violation::DuplicateKey {
                            at: self.key_start,
                            key,
                        });
                    }
                    self.state = ScannerState::Colon;
                    return Ok(Some(ScanEvent::Key(key.text)));
                }
            }
        }
        self.cursor.advance(bytes);
        Ok(None)
    }

    fn begin_value(&mut self, first: u8) -> Result<ValueShape, Violation> {
        self.value_start = self.cursor.position();
        self.value_bytes = 0;
        match first {
            b'"' | b'{' | b'[' => Ok(ValueShape::Enclosed {
                depth: 0,
                text: StringState::Outside,
            }),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' => Ok(ValueShape::Scalar),
            _ => Err(self.json("expected a value")),
        }
    }

    /// Returns the bytes of the value up to the end of the value, the end of the chunk, or a
    /// violation, whichever comes first.
    fn value<'a>(&mut self, shape: ValueShape, bytes: &'a [u8]) -> Option<ScanEvent<'a>> {
        let scan = match shape {
            ValueShape::Enclosed { depth, text } => self.scan_enclosed(depth, text, bytes),
            ValueShape::Scalar => scan_scalar(bytes),
        };
        let piece = up_to(scan.piece, self.limits.max_value_bytes - self.value_bytes);
        self.value_bytes += piece.len() as u64;
        self.cursor.advance(piece);
        if piece.len() < scan.piece.len() {
            self.pending = Some(Violation::ValueTooLong {
                at: self.value_start,
                key: self.last_key().to_owned(),
                limit: self.limits.max_value_bytes,
                actual: self.limits.max_value_bytes + 1,
            });
        } else {
            self.state = scan.state;
            if scan.is_too_deep {
                self.pending = Some(self.json(&format!(
                    "more than {} levels of nesting",
                    self.limits.max_depth
                )));
            }
        }
        (!piece.is_empty()).then_some(ScanEvent::Value(piece))
    }

    fn scan_enclosed<'a>(
        &self,
        mut depth: u32,
        mut text: StringState,
        bytes: &'a [u8],
    ) -> ValueScan<'a> {
        let mut rest = bytes;
        let stop = |rest: &[u8], state, is_too_deep| ValueScan {
            piece: bytes.get(..bytes.len() - rest.len()).unwrap_or(bytes),
            state,
            is_too_deep,
        };
        loop {
            let found = match text {
                StringState::Outside => rest
                    .iter()
                    .position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']')),
                StringState::Inside => memchr2(b'"', b'\\', rest),
                StringState::Escaped => (!rest.is_empty()).then_some(0),
            };
            let Some((byte, after)) =
                found.and_then(|at| rest.get(at..).and_then(<[u8]>::split_first))
            else {
                return stop(
                    &[],
                    ScannerState::Value(ValueShape::Enclosed { depth, text }),
                    false,
                );
            };
            match (text, byte) {
                (StringState::Escaped, _) | (StringState::Outside, b'"') => {
                    text = StringState::Inside;
                }
                (StringState::Inside, b'\\') => text = StringState::Escaped,
                (StringState::Inside, _) => text = StringState::Outside,
                (StringState::Outside, b'{' | b'[') => {
                    if depth >= self.limits.max_depth {
                        let before = rest.get(found.unwrap_or(0)..).unwrap_or(rest);
                        return stop(
                            before,
                            ScannerState::Value(ValueShape::Enclosed { depth, text }),
                            true,
                        );
                    }
                    depth += 1;
                }
                (StringState::Outside, _) => depth = depth.saturating_sub(1),
            }
            rest = after;
            if depth == 0 && text == StringState::Outside {
                return stop(rest, ScannerState::ValueDone, false);
            }
        }
    }
}

/// The part of a value that was found in a chunk.
struct ValueScan<'a> {
    /// The bytes of the value.
    piece: &'a [u8],
    /// The state of the scanner after `piece`.
    state: ScannerState,
    /// True if the byte after `piece` is an opening bracket that exceeds [`Limits::max_depth`].
    is_too_deep: bool,
}

fn scan_scalar(bytes: &[u8]) -> ValueScan<'_> {
    let end = bytes
        .iter()
        .position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}'));
    ValueScan {
        piece: end.and_then(|end| bytes.get(..end)).unwrap_or(bytes),
        state: end.map_or(ScannerState::Value(ValueShape::Scalar), |_| {
            ScannerState::ValueDone
        }),
        is_too_deep: false,
    }
}

/// Returns the first `max_bytes` bytes of `bytes`, or all of `bytes` if it is shorter.
fn up_to(bytes: &[u8], max_bytes: u64) -> &[u8] {
    usize::try_from(max_bytes)
        .ok()
        .and_then(|len| bytes.get(..len))
        .unwrap_or(bytes)
}
