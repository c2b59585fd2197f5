//! Imports documents from JSON Lines.

use std::collections::VecDeque;
use std::io::BufRead;

use crate::store::{BlockingStore, Commit, Error, Namespace, Precondition};
use crate::transfer::lines::{LineFault, NdjsonReader};

/// Recommended size of the read buffer of an import, in bytes. A document that is a JSON object and
/// completely in the buffer is validated without a copy.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// Maximum number of writes that an import queues at the same time.
const MAX_QUEUED_WRITES: usize = 256;

/// An import stopped at a line that could not be imported.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {source}")]
pub(crate) struct ImportError {
    line: u64,
    pub(crate) source: LineFault,
}

/// Stores the document of each line. If `keep_existing` is true, existing documents are not
/// replaced. Returns the number of stored documents and the number of skipped documents.
///
/// # Errors
/// [`ImportError`] for the first line that cannot be imported. All lines before the failed line are
/// imported.
pub(crate) fn import_lines(
    store: &BlockingStore,
    keep_existing: bool,
    from: &mut dyn BufRead,
) -> Result<(u64, u64), ImportError> {
    let mut counts = (0, 0);
    let mut queued = VecDeque::new();
    let mut lines = NdjsonReader::new(from);
    let outcome = loop {
        match submit_next(store, keep_existing, &mut lines) {
            Ok(Some(commit)) => queued.push_back((lines.number(), commit)),
            Ok(None) => break Ok(()),
            Err(source) => {
                let line = lines.number();
                break Err(ImportError { line, source });
            }
        }
        if queued.len() > MAX_QUEUED_WRITES {
            wait_for_oldest(&mut queued, &mut counts)?;
        }
    };
    // An error in an earlier line takes precedence over the error in `outcome`.
    while !queued.is_empty() {
        wait_for_oldest(&mut queued, &mut counts)?;
    }
    outcome.map(|()| counts)
}

/// Reads the next line, and queues the write of its document. Returns `None` at the end of the
/// input.
fn submit_next(
    store: &BlockingStore,
    keep_existing: bool,
    lines: &mut NdjsonReader<'_>,
) -> Result<Option<Commit>, LineFault> {
    let Some(line) = lines.next_line(store)? else {
        return Ok(None);
    };
    let namespace = Namespace {
        user: line.user.as_str(),
        client: line.client.as_str(),
    };
    let precondition = if keep_existing {
        Precondition::absent()
    } else {
        Precondition::default()
    };
    Ok(Some(store.submit(
        namespace,
        line.document,
        precondition,
    )?))
}

/// Waits for the oldest queued write.
fn wait_for_oldest(
    queued: &mut VecDeque<(u64, Commit)>,
    (stored, skipped): &mut (u64, u64),
) -> Result<(), ImportError> {
    let Some((line, commit)) = queued.pop_front() else {
        return Ok(());
    };
    match commit.wait() {
        Ok(_) => *stored += 1,
        Err(Error::PreconditionFailed { .. }) => *skipped += 1,
        Err(error) => {
            let source = error.into();
            return Err(ImportError { line, source });
        }
    }
    Ok(())
}
