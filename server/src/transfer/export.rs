//! Documents out of a store, as lines of JSON.

use std::fmt;
use std::io::Write;

use crate::store::{Bulk, cause};
use crate::transfer::lines::{LineError, write_line};

/// Unreadable documents that are named. The others are counted.
const MAX_NAMED: usize = 10;

/// What an export could not save, because the disk has damaged it or does not return it.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Number of documents that cannot be read.
    pub(crate) documents: u64,
    /// The first of them, with the reason.
    named: Vec<String>,
    /// Segments of the log that cannot be read: other documents may have been in them.
    segments: Vec<String>,
}

impl Unsaved {
    pub(crate) fn is_empty(&self) -> bool {
        self.documents == 0 && self.segments.is_empty()
    }
}

impl fmt::Display for Unsaved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} documents cannot be read", self.documents)?;
        for line in self.named.iter().chain(&self.segments) {
            write!(f, "; {line}")?;
        }
        let unnamed = self.documents - self.named.len() as u64;
        if unnamed > 0 {
            write!(f, "; and {unnamed} more documents")?;
        }
        Ok(())
    }
}

/// Writes the line of each document, or of each document of one user. Documents that cannot
/// be read are left out, and returned.
pub(crate) fn write_lines(
    bulk: &Bulk,
    user: Option<&str>,
    out: &mut dyn Write,
) -> Result<Unsaved, LineError> {
    let mut unsaved = Unsaved {
        segments: bulk.damage().iter().map(ToString::to_string).collect(),
        ..Unsaved::default()
    };
    bulk.each_document(user, |name, document| {
        match document {
            Ok(document) => write_line(out, name, document)?,
            Err(error) => {
                unsaved.documents += 1;
                if unsaved.named.len() < MAX_NAMED {
                    let (user, client) = (name.user, name.client);
                    let reason = format!("{user:?} {client:?}: {error}{}", cause(&error));
                    unsaved.named.push(reason);
                }
            }
        }
        Ok::<_, LineError>(())
    })?;
    Ok(unsaved)
}
