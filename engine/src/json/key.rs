//! One key: decoded as its bytes arrive, so that the limit on its decoded length
//! is enforced exactly, in memory bounded by that limit.
//!
//! A key must be decoded, unlike a value, because two spellings of one key are
//! duplicates. So a lone surrogate, which no UTF-8 text can hold, is refused here.

use crate::model::limits::{Position, Violation};

/// A complete key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonKey {
    /// Its JSON text as sent, with its quotes.
    pub(crate) text: String,
    /// What it decodes to.
    pub(crate) name: String,
}

#[derive(Debug)]
pub(crate) enum KeyProgress {
    More,
    Complete(JsonKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    /// After a backslash.
    Begun,
    /// Inside `\uXXXX`.
    Hex {
        digits: u8,
        unit: u32,
    },
}

#[derive(Debug)]
pub(crate) struct KeyReader {
    limit: u32,
    text: Vec<u8>,
    /// Valid wherever `text` is: an escape decodes to whole characters.
    name: Vec<u8>,
    escape: Escape,
    /// A leading surrogate that waits for its second half.
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

    /// Starts over. The opening quote has been consumed.
    pub(crate) fn begin(&mut self) {
        self.text.clear();
        self.text.push(b'"');
        self.name.clear();
        self.escape = Escape::None;
        self.surrogate = None;
    }

    /// Takes the next byte of the key that began at `start`.
    pub(crate) fn push(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        match self.escape {
            Escape::None => self.plain(byte, start),
            Escape::Begun => self.escaped(byte, start),
            Escape::Hex { digits, unit } => self.hex(byte, digits, unit, start),
        }
    }

    /// The first invalid UTF-8 in what has arrived, which may end inside a character.
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

    /// The byte that was pushed last, or would be next, is not allowed. Invalid
    /// UTF-8 before it comes first, and so does a character that it cuts short.
    fn refuse(&self, what: &str, start: Position) -> Violation {
        match std::str::from_utf8(&self.text) {
            Ok(_) => invalid(what, self.text.len(), start),
            Err(error) => invalid("invalid UTF-8 in a key", error.valid_up_to(), start),
        }
    }

    fn plain(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        if self.surrogate.is_some() && byte != b'\\' {
            return Err(self.refuse("lone surrogate in a key", start));
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
                Ok(KeyProgress::Complete(JsonKey {
                    text: format!("{text}\""),
                    name: name.to_owned(),
                }))
            }
            b'\\' => {
                self.escape = Escape::Begun;
                self.text.push(byte);
                Ok(KeyProgress::More)
            }
            0..=0x1f => Err(self.refuse("control character in a key", start)),
            _ => self.decoded(byte, &[byte], start),
        }
    }

    fn escaped(&mut self, byte: u8, start: Position) -> Result<KeyProgress, Violation> {
        if self.surrogate.is_some() && byte != b'u' {
            return Err(self.refuse("lone surrogate in a key", start));
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
            _ => return Err(self.refuse("invalid escape in a key", start)),
        };
        self.decoded(byte, &[character], start)
    }

    fn hex(
        &mut self,
        byte: u8,
        digits: u8,
        unit: u32,
        start: Position,
    ) -> Result<KeyProgress, Violation> {
        let Some(digit) = char::from(byte).to_digit(16) else {
            return Err(self.refuse("invalid escape in a key", start));
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
            // RFC 8259 section 7: a pair of \u escapes encodes one character.
            (Some(high), 0xdc00..=0xdfff) => 0x1_0000 + ((high - 0xd800) << 10) + (unit - 0xdc00),
            (None, _) => unit,
            (Some(_), _) => return Err(self.refuse("lone surrogate in a key", start)),
        };
        let Some(character) = char::from_u32(scalar) else {
            return Err(self.refuse("lone surrogate in a key", start));
        };
        let mut buffer = [0; 4];
        self.decoded(byte, character.encode_utf8(&mut buffer).as_bytes(), start)
    }

    /// Takes up the text's next byte, which completes `bytes` of the name.
    fn decoded(
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

fn invalid(what: &str, index: usize, start: Position) -> Violation {
    Violation::Json {
        at: Position {
            offset: start.offset + index as u64,
            line: start.line,
            // A newline in a key is refused, so all of it is on one line.
            column: start.column + index as u64,
        },
        what: what.to_owned(),
    }
}
