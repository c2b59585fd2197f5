//! Documents into a store, from lines of JSON.

use std::collections::VecDeque;
use std::io::BufRead;

use crate::store::{Bulk, Commit, Error, Name, Precondition};
use crate::transfer::lines::{Fault, Lines};

/// Bytes of lines that are read at once; a line that lies in them whole need not be put
/// together.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// Puts that are on their way at once.
const WAITING_PUTS: usize = 256;

/// A line that ended an import.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {source}")]
pub(crate) struct RefusedLine {
    line: u64,
    pub(crate) source: Fault,
}

/// Puts the document of each line; how many were put, and how many left as they were.
/// Where a line is refused, those before it are put.
pub(crate) fn read_lines(
    bulk: &Bulk,
    keep_existing: bool,
    from: &mut dyn BufRead,
) -> Result<(u64, u64), RefusedLine> {
    let mut counts = (0, 0);
    let mut waiting = VecDeque::new();
    let mut lines = Lines::new(from);
    let outcome = loop {
        match submit_next(bulk, keep_existing, &mut lines) {
            Ok(Some(commit)) => waiting.push_back((lines.number(), commit)),
            Ok(None) => break Ok(()),
            Err(source) => {
                let line = lines.number();
                break Err(RefusedLine { line, source });
            }
        }
        if waiting.len() > WAITING_PUTS {
            settle(&mut waiting, &mut counts)?;
        }
    };
    // What is wrong with an earlier line comes first.
    while !waiting.is_empty() {
        settle(&mut waiting, &mut counts)?;
    }
    outcome.map(|()| counts)
}

fn submit_next(
    bulk: &Bulk,
    keep_existing: bool,
    lines: &mut Lines<'_>,
) -> Result<Option<Commit>, Fault> {
    let Some(line) = lines.next(bulk)? else {
        return Ok(None);
    };
    let name = Name {
        user: &line.user,
        client: &line.client,
    };
    let precondition = if keep_existing {
        Precondition::absent()
    } else {
        Precondition::default()
    };
    Ok(Some(bulk.queue(name, line.document, precondition)?))
}

/// Waits for the put that has waited longest.
fn settle(
    waiting: &mut VecDeque<(u64, Commit)>,
    (put, kept): &mut (u64, u64),
) -> Result<(), RefusedLine> {
    let Some((line, commit)) = waiting.pop_front() else {
        return Ok(());
    };
    match commit.wait() {
        Ok(_) => *put += 1,
        Err(Error::PreconditionFailed { .. }) => *kept += 1,
        Err(error) => {
            let source = error.into();
            return Err(RefusedLine { line, source });
        }
    }
    Ok(())
}
