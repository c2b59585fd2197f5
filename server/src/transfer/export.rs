//! Exports documents as JSON Lines.

use std::fmt;
use std::io::Write;

use crate::store::{BlockingStore, cause};
use crate::transfer::lines::{ExportError, write_line};

/// Maximum number of unreadable documents that the report of an export names. Further unreadable
/// documents are only counted.
const MAX_NAMED: usize = 10;

/// The documents that are missing from an export, because the store is damaged or they cannot be
/// read from the disk.
#[derive(Debug, Default)]
pub(crate) struct UnreadableDocuments {
    /// Number of documents that cannot be read.
    pub(crate) documents: u64,
    /// The names of the first [`MAX_NAMED`] unreadable documents, each with the reason.
    named: Vec<String>,
    /// Damaged places of the log, which may contain further documents.
    segments: Vec<String>,
}

impl UnreadableDocuments {
    pub(crate) fn is_empty(&self) -> bool {
        self.documents == 0 && self.segments.is_empty()
    }
}

impl fmt::Display for UnreadableDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.documents {
            0 => f.write_str("documents may be missing, because the log is damaged")?,
            1 => f.write_str("1 document cannot be read")?,
            count => write!(f, "{count} documents cannot be read")?,
        }
        for line in self.named.iter().chain(&self.segments) {
            write!(f, "; {line}")?;
        }
        let unnamed = self.documents - self.named.len() as u64;
        match unnamed {
            0 => Ok(()),
            1 => f.write_str("; and 1 more document"),
            count => write!(f, "; and {count} more documents"),
        }
    }
}

/// Writes each document, or each document of one user, as a line of JSON. Damaged or unreadable
/// documents are skipped, and reported in the result.
///
/// # Errors
/// [`ExportError`] if the store cannot be listed or `out` cannot be written.
pub(crate) fn export_lines(
    store: &BlockingStore,
    user: Option<&str>,
    out: &mut dyn Write,
) -> Result<UnreadableDocuments, ExportError> {
    let mut unreadable = UnreadableDocuments {
        segments: store.damage().iter().map(ToString::to_string).collect(),
        ..UnreadableDocuments::default()
    };
    store.each_document(user, |namespace, document| {
        match document {
            Ok(document) => write_line(out, namespace, document)?,
            Err(error) => {
                unreadable.documents += 1;
                if unreadable.named.len() < MAX_NAMED {
                    let (user, client) = (namespace.user, namespace.client);
                    let reason = format!("{user:?} {client:?}: {error}{}", cause(&error));
                    unreadable.named.push(reason);
                }
            }
        }
        Ok::<_, ExportError>(())
    })?;
    Ok(unreadable)
}
