//! Reads documents from JSON Lines.
//!
//! A document is passed to the engine in chunks, so the memory for an import is limited even if a
//! line is very long.
//!
//! The reader finds the end of each value, and decodes documents that are JSON strings. The engine
//! validates documents, and `serde_json` validates member names and all other values.

use std::io::{self, BufRead};

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::store::{BlockingStore, Error, Prepared, cause};
use crate::transfer::lines::value_scanner::ValueScanner;

/// Maximum length in bytes of a member name, or of a value other than the document.
const MAX_SHORT_BYTES: usize = 64 * 1024;
/// Size of the buffer for unescaped text of a document.
const UNESCAPE_BUFFER_BYTES: usize = 64 * 1024;

const INCOMPLETE: LineFault =
    LineFault::Malformed("the line ends before its JSON object is complete");
const MALFORMED: LineFault =
    LineFault::Malformed("expected a JSON object with the members user, client and document");
const TOO_LONG: &str = "a name or a value other than the document is longer than 64 KiB";
const CONTROL_CHARACTER: LineFault =
    LineFault::Malformed("the document is a string with a control character that is not escaped");
const INVALID_ESCAPE: LineFault =
    LineFault::Malformed("the document is a string with an invalid escape sequence");

/// A line could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LineFault {
    #[error("cannot read the line: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}{cause}", cause = cause(.0))]
    Rejected(#[from] Error),
}

/// A parsed line. Members other than `user`, `client` and `document` are ignored.
pub(crate) struct ImportLine {
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) document: Prepared,
}

/// Reads newline-delimited JSON, one line at a time.
pub(crate) struct NdjsonReader<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
}

impl<'a> NdjsonReader<'a> {
    pub(crate) fn new(from: &'a mut dyn BufRead) -> Self {
        Self { from, number: 0 }
    }

    /// Returns the number of the current line. The first line has number 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line that is not empty. The document is validated, but not stored. Returns
    /// `None` at the end of the input.
    pub(crate) fn next_line(
        &mut self,
        store: &BlockingStore,
    ) -> Result<Option<ImportLine>, LineFault> {
        loop {
            self.number += 1;
            self.skip_spaces()?;
            match self.peek()? {
                None => return Ok(None),
                Some(b'\n') => self.from.consume(1),
                Some(_) => return self.line(store).map(Some),
            }
        }
    }

    fn line(&mut self, store: &BlockingStore) -> Result<ImportLine, LineFault> {
        let (mut user, mut client, mut document) = (None, None, None);
        self.expect(b'{')?;
        loop {
            self.skip_spaces()?;
            let name: String = self.short_value()?;
            self.skip_spaces()?;
            self.expect(b':')?;
            self.skip_spaces()?;
            let is_duplicate = match name.as_str() {
                "user" => user.replace(self.short_value()?).is_some(),
                "client" => client.replace(self.short_value()?).is_some(),
                "document" => document.replace(self.document(store)?).is_some(),
                _ => {
                    self.short_value::<IgnoredAny>()?;
                    false
                }
            };
            if is_duplicate {
                return Err(LineFault::Malformed("a member appears twice"));
            }
            self.skip_spaces()?;
            match self.byte()? {
                b',' => {}
                b'}' => break,
                _ => return Err(MALFORMED),
            }
        }
        self.skip_spaces()?;
        match self.peek()? {
            None => {}
            Some(b'\n') => self.from.consume(1),
            Some(_) => {
                return Err(LineFault::Malformed(
                    "the line has text after its JSON object",
                ));
            }
        }
        Ok(ImportLine {
            user: user.ok_or(LineFault::Malformed("the member user is missing"))?,
            client: client.ok_or(LineFault::Malformed("the member client is missing"))?,
            document: document.ok_or(LineFault::Malformed("the member document is missing"))?,
        })
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.from.fill_buf()?.first().copied())
    }

    fn byte(&mut self) -> Result<u8, LineFault> {
        let byte = self.peek()?.ok_or(INCOMPLETE)?;
        self.from.consume(1);
        Ok(byte)
    }

    fn expect(&mut self, expected: u8) -> Result<(), LineFault> {
        if self.byte()? == expected {
            return Ok(());
        }
        Err(MALFORMED)
    }

    fn skip_spaces(&mut self) -> io::Result<()> {
        while let Some(b' ' | b'\t' | b'\r') = self.peek()? {
            self.from.consume(1);
        }
        Ok(())
    }

    /// Reads a value whose length is at most [`MAX_SHORT_BYTES`].
    fn short_value<T: DeserializeOwned>(&mut self) -> Result<T, LineFault> {
        let mut text = Vec::new();
        let mut scanner = ValueScanner::default();
        while !scanner.is_finished {
            let chunk = scanner.next(self.from.fill_buf()?).ok_or(INCOMPLETE)?;
            let bytes = chunk.len();
            text.extend_from_slice(chunk);
            self.from.consume(bytes);
            if text.len() > MAX_SHORT_BYTES {
                return Err(LineFault::Malformed(TOO_LONG));
            }
        }
        serde_json::from_slice(&text).map_err(|_| MALFORMED)
    }

    fn document(&mut self, store: &BlockingStore) -> Result<Prepared, LineFault> {
        if self.peek()? == Some(b'"') {
            return self.quoted_document(store);
        }
        let mut scanner = ValueScanner::default();
        let mut writer = store.writer();
        while !scanner.is_finished {
            let chunk = scanner.next(self.from.fill_buf()?).ok_or(INCOMPLETE)?;
            let bytes = chunk.len();
            if scanner.is_finished && writer.is_empty() {
                let document = store.prepare(chunk)?;
                self.from.consume(bytes);
                return Ok(document);
            }
            writer.write(chunk)?;
            self.from.consume(bytes);
        }
        Ok(writer.finish()?)
    }

    /// Reads a JSON string (RFC 8259 section 7) that contains the text of a document.
    fn quoted_document(&mut self, store: &BlockingStore) -> Result<Prepared, LineFault> {
        self.expect(b'"')?;
        let mut writer = store.writer();
        let mut text = Vec::with_capacity(UNESCAPE_BUFFER_BYTES);
        loop {
            let buffer = self.from.fill_buf()?;
            let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
            let plain = buffer.iter().position(is_special).unwrap_or(buffer.len());
            let copied = plain.min(UNESCAPE_BUFFER_BYTES.saturating_sub(text.len()));
            text.extend_from_slice(buffer.get(..copied).unwrap_or_default());
            self.from.consume(copied);
            if text.len() >= UNESCAPE_BUFFER_BYTES {
                writer.write(&text)?;
                text.clear();
            } else if copied == 0 {
                match self.byte()? {
                    b'"' => break,
                    b'\\' => {
                        let mut utf_8 = [0; 4];
                        let character = self.escaped()?.encode_utf8(&mut utf_8);
                        text.extend_from_slice(character.as_bytes());
                    }
                    b'\n' => return Err(INCOMPLETE),
                    _ => return Err(CONTROL_CHARACTER),
                }
            }
        }
        if writer.is_empty() {
            return Ok(store.prepare(&text)?);
        }
        writer.write(&text)?;
        Ok(writer.finish()?)
    }

    /// Reads the rest of an escape sequence after the backslash, and returns the character that the
    /// sequence encodes.
    fn escaped(&mut self) -> Result<char, LineFault> {
        Ok(match self.byte()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.utf16_unit()?;
                let mut units = vec![first];
                if matches!(first, 0xd800..0xdc00) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    units.push(self.utf16_unit()?);
                }
                // Decoding fails if a surrogate is not part of a valid surrogate pair.
                let character = char::decode_utf16(units).next();
                character.and_then(Result::ok).ok_or(INVALID_ESCAPE)?
            }
            _ => return Err(INVALID_ESCAPE),
        })
    }

    /// Reads four hexadecimal digits.
    fn utf16_unit(&mut self) -> Result<u16, LineFault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?)
                .to_digit(16)
                .ok_or(INVALID_ESCAPE)?;
            unit = unit * 16 + u16::try_from(digit).map_err(|_| INVALID_ESCAPE)?;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::store::{Limits, Namespace, Precondition, offline};

    struct Fixture {
        store: BlockingStore,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = offline::open_for_import(dir.path(), Limits::default()).unwrap();
            Self { store, _dir: dir }
        }

        /// Imports all lines through a buffer of `buffer` bytes. Returns the user, the client
        /// and the stored document of each line.
        fn read(&self, text: &[u8], buffer: usize) -> Result<Vec<[String; 3]>, LineFault> {
            let mut from = BufReader::with_capacity(buffer, text);
            let mut lines = NdjsonReader::new(&mut from);
            let mut found = Vec::new();
            while let Some(line) = lines.next_line(&self.store)? {
                let (user, client) = (&*line.user, &*line.client);
                let namespace = Namespace { user, client };
                let put = self
                    .store
                    .submit(namespace, line.document, Precondition::default());
                put.unwrap().wait().unwrap();
                let document = self.store.get(namespace).unwrap().unwrap().read().unwrap();
                let document = String::from_utf8(document).unwrap();
                found.push([line.user, line.client, document]);
            }
            Ok(found)
        }
    }

    #[test]
    fn document_is_the_same_for_every_buffer_size() {
        let store = Fixture::new();
        let large = format!("{{\"l\":\"{}\\\"\u{e9}\"}}", "x".repeat(300_000));
        let quoted = serde_json::Value::String(large.clone()).to_string();
        let text = [
            r#"{"user":"u","client":"c","modified_ms":12,"document":{"a":[1.50,{"b":"}\"\\"}]}}"#,
            "\r\n\n  \n",
            r#" { "document" : "{\"a\": \"\\n\u00e9\ud83d\uDE00\\\/\" ,\n\r\t\"b\":1}" ,"#,
            r#" "more" : [{"x":"]"}] , "client":"\u0063", "user":"u" } "#,
            "\n",
            &format!("{{\"user\":\"u\",\"client\":\"large\",\"document\":{quoted}}}\n"),
            &format!("{{\"user\":\"u\",\"client\":\"raw\",\"document\":{large}}}\n"),
            r#"{"user":"u","client":"empty","document":{},"x":null,"y":-1.5e3}"#,
        ];
        let expected = [
            ["u", "c", r#"{"a":[1.50,{"b":"}\"\\"}]}"#],
            ["u", "c", "{\"a\":\"\\n\u{e9}\u{1f600}\\/\",\"b\":1}"],
            ["u", "large", &large],
            ["u", "raw", &large],
            ["u", "empty", "{}"],
        ];
        for buffer in [1, 7, 64, 8192, 1 << 20] {
            let found = store.read(text.concat().as_bytes(), buffer).unwrap();
            assert!(
                found == expected,
                "wrong documents with a buffer of {buffer} bytes"
            );
        }
    }

    #[test]
    fn malformed_line_is_rejected() {
        let store = Fixture::new();
        let with = |document: &str| {
            format!("{{\"user\":\"u\",\"client\":\"c\",\"more\":1,\"document\":{document}")
        };
        let mut bad: Vec<String> = [
            "{}",
            "[]",
            "x",
            "{",
            "{\"user\":\"u\"",
            "}",
            "\"",
            "{\"user\":\"u\",}",
            "{\"user\":\"u\",\"client\":\"c\"}",
            "{\"user\":\"u\",\"document\":{}}",
            "{\"client\":\"c\",\"document\":{}}",
            "{\"user\":1,\"client\":\"c\",\"document\":{}}",
            "{\"user\":\"u\",\"client\":\"c\",\"document\":{},\"document\":{}}",
            "{\"user\":\"u\",\"user\":\"v\",\"client\":\"c\",\"document\":{}}",
            "{\"user\":\"u\",\"client\":\"c\",\"more\":tru,\"document\":{}}",
            "{\"user\":\"u\" \"client\":\"c\",\"document\":{}}",
        ]
        .map(str::to_owned)
        .into();
        for document in [
            "",
            "}",
            "{}",
            "{}} x",
            "{}}{}",
            "{},}",
            "{\n}}",
            "\"{\n}\"}",
            "\"{}",
            "\"{}\"",
            "[]}",
            "\"[]\"}",
            "7}",
            "{]}",
            "\"{\\x}\"}",
            "\"{\\ud800}\"}",
            "\"{\\udc00}\"}",
            "\"{\\ud800\\u0041}\"}",
            "\"{\\u+041}\"}",
            "\"{\\u00\"}",
            "\"{\\",
        ] {
            bad.push(with(document));
        }
        for bad in &bad {
            for buffer in [1, 8192] {
                assert!(
                    store.read(bad.as_bytes(), buffer).is_err(),
                    "the line must be rejected: {bad}"
                );
            }
        }
        let too_long = format!("{{\"user\":\"{}", "u".repeat(MAX_SHORT_BYTES + 1));
        let refused = store.read(too_long.as_bytes(), 8192);
        assert!(matches!(refused, Err(LineFault::Malformed(TOO_LONG))));
        assert!(store.read(with("{}}").as_bytes(), 1).is_ok());
    }
}
