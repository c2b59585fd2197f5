//! Writes documents as JSON Lines.

use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use crate::store::{Document, Error, Namespace, cause};

/// A line could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ExportError {
    #[error("cannot read the documents: {0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

/// Writes a document as one line.
///
/// # Errors
/// [`ExportError::Store`] if the document cannot be read, [`ExportError::Write`] if `out` cannot
/// be written.
pub(crate) fn write_line(
    out: &mut dyn Write,
    namespace: Namespace<'_, str>,
    document: &Document,
) -> Result<(), ExportError> {
    let modified = document.stat().modified.duration_since(UNIX_EPOCH);
    let modified_ms = modified.map_or(0, |since| since.as_millis());
    let (user, client) = (quoted(namespace.user), quoted(namespace.client));
    write!(
        out,
        "{{\"user\":{user},\"client\":{client},\"modified_ms\":{modified_ms},\"document\":"
    )?;
    match document.in_memory() {
        Some(text) if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) => {
            out.write_all(text)?;
        }
        _ => {
            out.write_all(b"\"")?;
            for chunk in document.chunks() {
                escape(out, &chunk?)?;
            }
            out.write_all(b"\"")?;
        }
    }
    Ok(out.write_all(b"}\n")?)
}

fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::String(text.to_owned())
}

/// Writes a chunk of a text with the escapes of a JSON string (RFC 8259 section 7).
fn escape(out: &mut dyn Write, chunk: &[u8]) -> io::Result<()> {
    let needs_escape = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\');
    let mut rest = chunk;
    while let Some(at) = rest.iter().position(needs_escape) {
        let (plain, special) = rest.split_at(at);
        out.write_all(plain)?;
        if let Some((byte, after)) = special.split_first() {
            match byte {
                b'"' | b'\\' => out.write_all(&[b'\\', *byte])?,
                byte => write!(out, "\\u{byte:04x}")?,
            }
            rest = after;
        }
    }
    out.write_all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Durability, Limits, Precondition, offline};
    use crate::transfer::lines::read::NdjsonReader;

    #[test]
    fn imported_document_has_the_text_of_the_exported_one() {
        let dir = tempfile::tempdir().unwrap();
        let open = |folder| offline::open_for_import(&dir.path().join(folder), Limits::default());
        let (store, copy) = (open("store").unwrap(), open("copy").unwrap());
        let large = format!(
            "{{\"a\":\"\\\"{}é\\\\\",\"b\":[1,\n2]}}",
            "x".repeat(300_000)
        );
        for body in [
            "{}",
            "{\"a\":1.50e+1}",
            "{\"a\": [1,\n 2,\r\n\t3]}",
            "{\"\\u0041\":\"\\n\\\"\"}",
            &large,
        ] {
            let (user, client) = ("us\"er", "cli\\ent");
            let namespace = Namespace { user, client };
            store
                .put(namespace, body.as_bytes(), Durability::Sync)
                .unwrap();
            let document = store.get(namespace).unwrap().unwrap();
            let mut line = Vec::new();
            write_line(&mut line, namespace, &document).unwrap();
            assert_eq!(
                line.iter().position(|byte| *byte == b'\n'),
                Some(line.len() - 1),
                "the only line break must be the last byte"
            );
            let exported = document.read().unwrap();
            let mut line = line.as_slice();
            let line = NdjsonReader::new(&mut line)
                .next_line(&copy)
                .unwrap()
                .unwrap();
            assert_eq!((&*line.user, &*line.client), (user, client));
            let put = copy.submit(namespace, line.document, Precondition::default());
            put.unwrap().wait().unwrap();
            let imported = copy.get(namespace).unwrap().unwrap().read().unwrap();
            assert!(imported == exported, "{body:.20} has changed");
        }
    }
}
