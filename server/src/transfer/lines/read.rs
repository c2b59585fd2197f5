//! Lines on their way in. A document passes through piece by piece, so that it takes no
//! more memory here than over HTTP, however long its line is.
//!
//! Where a value ends is all that is looked for: strings, escapes and depth. Whether it is
//! JSON is for serde_json to say of what is short, and for the engine of the document.

use std::io::{self, BufRead};

use serde::de::{DeserializeOwned, IgnoredAny};

use crate::store::{Bulk, Error, Prepared, cause};
use crate::transfer::lines::extent::Extent;

/// Bytes of a name, or of a value that is not the document, at most.
const MAX_SHORT_BYTES: usize = 64 * 1024;
/// What a document's text is unescaped into at once.
const GATHER_BYTES: usize = 64 * 1024;

const BREAKS_OFF: Fault = Fault::Malformed("it ends within a value");
const NO_JSON: Fault = Fault::Malformed("not JSON, or not what a line is to be");
const NO_ESCAPE: Fault = Fault::Malformed("not an escape sequence of JSON");

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Fault {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}{cause}", cause = cause(.0))]
    Refused(#[from] Error),
}

/// A line that was read. What else it has is not looked at.
pub(crate) struct Line {
    pub(crate) user: String,
    pub(crate) client: String,
    pub(crate) document: Prepared,
}

/// Lines, one after the other.
pub(crate) struct Lines<'a> {
    from: &'a mut dyn BufRead,
    number: u64,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(from: &'a mut dyn BufRead) -> Self {
        Self { from, number: 0 }
    }

    /// The number of the line that was read last, from 1 on.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not empty; its document is checked, and not stored yet.
    pub(crate) fn next(&mut self, bulk: &Bulk) -> Result<Option<Line>, Fault> {
        loop {
            self.number += 1;
            self.skip_spaces()?;
            match self.peek()? {
                None => return Ok(None),
                Some(b'\n') => self.from.consume(1),
                Some(_) => return self.line(bulk).map(Some),
            }
        }
    }

    fn line(&mut self, bulk: &Bulk) -> Result<Line, Fault> {
        let (mut user, mut client, mut document) = (None, None, None);
        self.expect(b'{')?;
        loop {
            self.skip_spaces()?;
            let name: String = self.short()?;
            self.skip_spaces()?;
            self.expect(b':')?;
            self.skip_spaces()?;
            let is_twice = match name.as_str() {
                "user" => user.replace(self.short()?).is_some(),
                "client" => client.replace(self.short()?).is_some(),
                "document" => document.replace(self.document(bulk)?).is_some(),
                _ => {
                    self.short::<IgnoredAny>()?;
                    false
                }
            };
            if is_twice {
                return Err(Fault::Malformed("a member is there twice"));
            }
            self.skip_spaces()?;
            match self.byte()? {
                b',' => {}
                b'}' => break,
                _ => return Err(NO_JSON),
            }
        }
        self.skip_spaces()?;
        match self.peek()? {
            None => {}
            Some(b'\n') => self.from.consume(1),
            Some(_) => return Err(Fault::Malformed("there is something behind it")),
        }
        Ok(Line {
            user: user.ok_or(Fault::Malformed("without a user"))?,
            client: client.ok_or(Fault::Malformed("without a client"))?,
            document: document.ok_or(Fault::Malformed("without a document"))?,
        })
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        Ok(self.from.fill_buf()?.first().copied())
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = self.peek()?.ok_or(BREAKS_OFF)?;
        self.from.consume(1);
        Ok(byte)
    }

    fn expect(&mut self, expected: u8) -> Result<(), Fault> {
        if self.byte()? == expected {
            return Ok(());
        }
        Err(NO_JSON)
    }

    fn skip_spaces(&mut self) -> io::Result<()> {
        while let Some(b' ' | b'\t' | b'\r') = self.peek()? {
            self.from.consume(1);
        }
        Ok(())
    }

    /// A value that is short.
    fn short<T: DeserializeOwned>(&mut self) -> Result<T, Fault> {
        let mut text = Vec::new();
        let mut extent = Extent::default();
        while !extent.is_over {
            let piece = extent.next(self.from.fill_buf()?).ok_or(BREAKS_OFF)?;
            let bytes = piece.len();
            text.extend_from_slice(piece);
            self.from.consume(bytes);
            if text.len() > MAX_SHORT_BYTES {
                return Err(Fault::Malformed("a member is too long"));
            }
        }
        serde_json::from_slice(&text).map_err(|_| NO_JSON)
    }

    fn document(&mut self, bulk: &Bulk) -> Result<Prepared, Fault> {
        if self.peek()? == Some(b'"') {
            return self.quoted_document(bulk);
        }
        let mut extent = Extent::default();
        let mut writer = bulk.writer();
        while !extent.is_over {
            let piece = extent.next(self.from.fill_buf()?).ok_or(BREAKS_OFF)?;
            let bytes = piece.len();
            if extent.is_over && writer.is_empty() {
                let document = bulk.prepare(piece)?;
                self.from.consume(bytes);
                return Ok(document);
            }
            writer.write(piece)?;
            self.from.consume(bytes);
        }
        Ok(writer.finish()?)
    }

    /// A document whose text is a JSON string (RFC 8259 section 7).
    fn quoted_document(&mut self, bulk: &Bulk) -> Result<Prepared, Fault> {
        self.expect(b'"')?;
        let mut writer = bulk.writer();
        let mut text = Vec::with_capacity(GATHER_BYTES);
        loop {
            let buffer = self.from.fill_buf()?;
            let is_special = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
            let plain = buffer.iter().position(is_special).unwrap_or(buffer.len());
            let taken = plain.min(GATHER_BYTES.saturating_sub(text.len()));
            text.extend_from_slice(buffer.get(..taken).unwrap_or_default());
            self.from.consume(taken);
            if text.len() >= GATHER_BYTES {
                writer.write(&text)?;
                text.clear();
            } else if taken == 0 {
                match self.byte()? {
                    b'"' => break,
                    b'\\' => {
                        let mut utf_8 = [0; 4];
                        let character = self.escaped()?.encode_utf8(&mut utf_8);
                        text.extend_from_slice(character.as_bytes());
                    }
                    _ => return Err(BREAKS_OFF),
                }
            }
        }
        if writer.is_empty() {
            return Ok(bulk.prepare(&text)?);
        }
        writer.write(&text)?;
        Ok(writer.finish()?)
    }

    /// What the escape sequence stands for whose backslash was read.
    fn escaped(&mut self) -> Result<char, Fault> {
        Ok(match self.byte()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let mut units = vec![first];
                if matches!(first, 0xd800..0xdc00) {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    units.push(self.unit()?);
                }
                // A unit of a pair that is alone, or with another, is an error here.
                let character = char::decode_utf16(units).next();
                character.and_then(Result::ok).ok_or(NO_ESCAPE)?
            }
            _ => return Err(NO_ESCAPE),
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Result<u16, Fault> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16).ok_or(NO_ESCAPE)?;
            unit = unit * 16 + u16::try_from(digit).map_err(|_| NO_ESCAPE)?;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;
    use crate::store::{Limits, Name, Precondition, offline};

    struct Fixture {
        bulk: Bulk,
        _dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let bulk = offline::open_to_fill(dir.path(), Limits::default()).unwrap();
            Self { bulk, _dir: dir }
        }

        /// User, client and document of each line, read through a buffer of so many bytes.
        fn read(&self, text: &[u8], buffer: usize) -> Result<Vec<[String; 3]>, Fault> {
            let mut from = BufReader::with_capacity(buffer, text);
            let mut lines = Lines::new(&mut from);
            let mut found = Vec::new();
            while let Some(line) = lines.next(&self.bulk)? {
                let (user, client) = (&*line.user, &*line.client);
                let name = Name { user, client };
                let put = self
                    .bulk
                    .queue(name, line.document, Precondition::default());
                put.unwrap().wait().unwrap();
                let document = self.bulk.get(name).unwrap().unwrap().read().unwrap();
                let document = String::from_utf8(document).unwrap();
                found.push([line.user, line.client, document]);
            }
            Ok(found)
        }
    }

    #[test]
    fn a_document_comes_out_however_its_line_is_cut() {
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
            assert!(found == expected, "through {buffer} bytes");
        }
    }

    #[test]
    fn a_line_must_have_what_it_is_for_and_nothing_else() {
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
                assert!(store.read(bad.as_bytes(), buffer).is_err(), "{bad}");
            }
        }
        let endless = format!("{{\"user\":\"{}", "u".repeat(MAX_SHORT_BYTES + 1));
        let refused = store.read(endless.as_bytes(), 8192);
        assert!(matches!(
            refused,
            Err(Fault::Malformed("a member is too long"))
        ));
        assert!(store.read(with("{}}").as_bytes(), 1).is_ok());
    }
}
