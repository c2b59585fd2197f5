//! Documents out of a store, as lines of JSON.

use std::io::Write;

use crate::store::Bulk;
use crate::transfer::lines::{LineError, write_line};

/// Writes the line of each document, or of each of one user, and counts them.
pub(crate) fn write_lines(
    bulk: &Bulk,
    user: Option<&str>,
    out: &mut dyn Write,
) -> Result<u64, LineError> {
    let mut written = 0;
    bulk.each_document(user, |name, document| {
        write_line(out, name, document)?;
        written += 1;
        Ok::<_, LineError>(())
    })?;
    Ok(written)
}
