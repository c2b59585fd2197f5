//! Incremental decoding of one key.
//!
//! The bytes of a key are decoded as they arrive, and a key that exceeds the length limit is
//! rejected immediately. The limit applies to the decoded key, and also bounds the memory that a
//! key can use.
//!
//! Keys must be decoded to detect duplicates: `"a"` and `"\u0061"` are the same key. A lone
//! surrogate in a key is an error, because UTF-8 cannot represent it. In a value, a lone surrogate
//! is allowed, because values are not decoded.

use crate::model::limits::{Position, Violation};

/// A complete key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonKey {
    /// The JSON text of the key as sent, including the quotes.
    pub(crate) text: String,
    /// The decoded key.
    pub(crate) name: String,
}

/// The state of a key after one more byte was added.
#[derive(Debug)]
pub(crate) enum KeyProgress {
    /// The key is not complete yet.
    More,
    /// The added byte was the closing quote.
    Complete(JsonKey),
}

/// States whether the next byte belongs to an escape sequence, and to which part of the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// The next byte is not inside an escape sequence, but may begin one.
    None,
    /// The next byte follows a backslash.
    Begun,
    /// The next byte is a digit of `\uXXXX`. `unit` is the value of the first `digits` digits.
    Hex { digits: u8, unit: u32 },
}

/// Decodes one key at a time, byte by byte.
#[derive(Debug)]
pub(crate) struct KeyReader {
    /// Maximum length of the decoded key in bytes.
    limit: u32,
    /// The JSON text so far, including the opening quote.
    text: Vec<u8>,
    /// The decoded key so far. If `text` is valid UTF-8, `name` is too, because each escape
    /// sequence decodes to a complete character.
    name: Vec<u8>,
    escape: Escape,
    /// The high surrogate of a pair whose low surrogate has not arrived yet.
    surrogate: Option<u32>,
}

impl KeyReader {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            text: Vec::new(),
            name: Vec::new(),
            escape: Escape::None,
            surrogate: None,
        }
    }

    /// Starts a new key. The caller must have consumed the opening quote.
    pub(crate) fn begin(&mut self) {
        self.text.clear();
        self.text.push(b'"');
        self.name.clear();
        self.escape = Escape::None;
        self.surrogate = None;
    }

    /// Adds the next byte of the key that began at `start`.
    pub(crate) fn push(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        match self.escape {
            Escape::None => self.plain(byte, start),
            Escape::Begun => self.escaped(byte, start),
            Escape::Hex { digits, unit } => self.hex(byte, digits, unit, start),
        }
    }

    /// Checks that the part of the key that has arrived is valid UTF-8. An incomplete character at
    /// the end of this part is not an error.
    pub(crate) fn check_utf8(&self, start: Position) -> Result<(), Violation> {
        match std::str::from_utf8(&self.text) {
            Err(error) if error.error_len().is_some() => Err(invalid(
                "invalid UTF-8 in a key",
                error.valid_up_to(),
                start,
            )),
            _ => Ok(()),
        }
    }

    /// Returns the violation for a byte that is not allowed after `text`. If `text` contains
    /// invalid UTF-8 or ends with an incomplete character, returns the violation for the invalid
    /// UTF-8 instead.
    fn invalid_byte(&self, what: &str, start: Position) -> Violation {
        match std::str::from_utf8(&self.text) {
            Ok(_) => invalid(what, self.text.len(), start),
            Err(error) => invalid("invalid UTF-8 in a key", error.valid_up_to(), start),
        }
    }

    fn plain(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        if self.surrogate.is_some() && byte != b'\\' {
            return Err(self.invalid_byte("lone surrogate in a key", start));
        }
        match byte {
            b'"' => {
                let complete = std::str::from_utf8(&self.text)
                    .ok()
                    .zip(std::str::from_utf8(&self.name).ok());
                let Some((text, name)) = complete else {
                    let valid = std::str::from_utf8(&self.text)
                        .err()
                        .map_or(self.text.len(), |e| e.valid_up_to());
                    return Err(invalid("invalid UTF-8 in a key", valid, start));
                };
                let mut complete = String::with_capacity(text.len() + 1);
                complete.push_str(text);
                complete.push('"');
                Ok(KeyProgress::Complete(JsonKey {
                    text: complete,
                    name: name.to_owned(),
                }))
            }
            b'\\' => {
                self.escape = Escape::Begun;
                self.text.push(byte);
                Ok(KeyProgress::More)
            }
            0..=0x1f => Err(self.invalid_byte("control character in a key", start)),
            _ => self.push_decoded(byte, &[byte], start),
        }
    }

    fn escaped(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        if self.surrogate.is_some() && byte != b'u' {
            return Err(self.invalid_byte("lone surrogate in a key", start));
        }
        self.escape = Escape::None;
        let character = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                self.escape = Escape::Hex { digits: 0, unit: 0 };
                self.text.push(byte);
                return Ok(KeyProgress::More);
            }
            _ => return Err(self.invalid_byte("invalid escape in a key", start)),
        };
        self.push_decoded(byte, &[character], start)
    }

    fn hex(
        &mut self,
        byte: u8,
        digits: u8,
        unit: u32,
        start: Position,
    ) -> Result<KeyProgress, Violation> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return Err(self.invalid_byte("invalid escape in a key", start));
        };
        let unit = unit * 16 + digit;
        if digits < 3 {
            self.text.push(byte);
            self.escape = Escape::Hex {
                digits: digits + 1,
                unit,
            };
            return Ok(KeyProgress::More);
        }
        self.escape = Escape::None;
        let scalar = match (self.surrogate.take(), unit) {
            (None, 0xd800..=0xdbff) => {
                self.surrogate = Some(unit);
                self.text.push(byte);
                return Ok(KeyProgress::More);
            }
            // RFC 8259 section 7: a pair of \u escapes encodes a character above U+FFFF.
            (Some(high), 0xdc00..=0xdfff) => 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00),
            (None, _) => unit,
            (Some(_), _) => return Err(self.invalid_byte("lone surrogate in a key", start)),
        };
        let Some(character) = char::from_u32(scalar) else {
            return Err(self.invalid_byte("lone surrogate in a key", start));
        };
        let mut buffer = [0; 4];
        self.push_decoded(byte, character.encode_utf8(&mut buffer).as_bytes(), start)
    }

    /// Appends `byte` to the text, and `bytes` to the decoded key. `byte` is the last byte of
    /// the JSON text that decodes to `bytes`.
    fn push_decoded(
        &mut self,
        byte: u8,
        bytes: &[u8],
        start: Position,
    ) -> Result<KeyProgress, Violation> {
        let actual = self.name.len() + bytes.len();
        if actual > self.limit as usize {
            self.check_utf8(start)?;
            return Err(Violation::KeyTooLong {
                at: start,
                limit: self.limit,
                actual: u32::try_from(actual).unwrap_or(u32::MAX),
            });
        }
        self.text.push(byte);
        self.name.extend_from_slice(bytes);
        Ok(KeyProgress::More)
    }
}

/// Returns a violation at byte `index` of the text of a key that began at `start`.
fn invalid(what: &str, index: usize, start: Position) -> Violation {
    Violation::Json {
        at: Position {
            offset: start.offset + index as u64,
            line: start.line,
            // An unescaped newline is not allowed in a key, so the complete key is on one line.
            column: start.column + index as u64,
        },
        what: what.to_owned(),
    }
}
