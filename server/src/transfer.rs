//! Documents out of a store and into one, as lines of JSON, and the end of a user.

mod commands;

use std::collections::VecDeque;
use std::io::{self, BufRead, Write};

use prefd_engine::{Commit, Engine, Erased, Error, Precondition, WriteOptions};
use serde_json::{Value, json};

use crate::admin_client::AdminError;
use crate::lines::{self, Fault, LineError, Lines};
use crate::settings::SettingsError;
use crate::store::{UnfinishedRestore, cause};
pub(crate) use commands::{EraseOptions, ExportOptions, ImportOptions, erase, export, import};

/// Namespaces that are listed at once.
const PAGE: usize = 256;
/// Bytes of lines that are read at once; a line that lies in them whole need not be put
/// together.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// Puts that are on their way at once.
const WAITING_PUTS: usize = 256;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TransferError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("{0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error("line {line}: {source}")]
    Refused { line: u64, source: Fault },
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("not everything of the user could be removed: {0}")]
    Incomplete(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| TransferError::System { what, source }
}

/// Writes the line of each document, or of each of one user.
pub(crate) fn write_lines(
    engine: &Engine,
    user: Option<&str>,
    out: &mut dyn Write,
) -> Result<u64, LineError> {
    let mut written = 0;
    let mut last: Option<(String, String)> = None;
    loop {
        let after = last
            .as_ref()
            .map(|(user, client)| (user.as_str(), client.as_str()));
        let page: Vec<(String, String)> = match user {
            Some(user) => engine
                .list(user, after.map(|(_, client)| client), PAGE)?
                .into_iter()
                .map(|entry| (user.to_owned(), entry.client))
                .collect(),
            None => engine
                .list_all(after, PAGE)?
                .into_iter()
                .map(|(user, entry)| (user, entry.client))
                .collect(),
        };
        for (user, client) in &page {
            // One that was deleted since is none.
            if let Some(document) = engine.get(user, client)? {
                lines::write(out, user, client, &document)?;
                written += 1;
            }
        }
        last = page.into_iter().next_back();
        if last.is_none() {
            return Ok(written);
        }
    }
}

/// Puts the document of each line; how many were put, and how many left as they were.
/// Where a line is refused, those before it are put.
pub(crate) fn read_lines(
    engine: &Engine,
    keep_existing: bool,
    from: &mut dyn BufRead,
) -> Result<(u64, u64), TransferError> {
    let mut counts = (0, 0);
    let mut waiting = VecDeque::new();
    let mut lines = Lines::new(from);
    let outcome = loop {
        match submit_next(engine, keep_existing, &mut lines) {
            Ok(Some(commit)) => waiting.push_back((lines.number(), commit)),
            Ok(None) => break Ok(()),
            Err(source) => {
                let line = lines.number();
                break Err(TransferError::Refused { line, source });
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
    engine: &Engine,
    keep_existing: bool,
    lines: &mut Lines<'_>,
) -> Result<Option<Commit>, Fault> {
    let Some(line) = lines.next(engine)? else {
        return Ok(None);
    };
    let namespace = engine.namespace(&line.user, &line.client)?;
    let mut options = WriteOptions::default();
    if keep_existing {
        options.precondition = Precondition::absent();
    }
    Ok(Some(namespace.queue_put(line.document, options)))
}

/// Waits for the put that has waited longest.
fn settle(
    waiting: &mut VecDeque<(u64, Commit)>,
    (put, kept): &mut (u64, u64),
) -> Result<(), TransferError> {
    let Some((line, commit)) = waiting.pop_front() else {
        return Ok(());
    };
    match commit.wait() {
        Ok(_) => *put += 1,
        Err(Error::PreconditionFailed { .. }) => *kept += 1,
        Err(error) => {
            let source = error.into();
            return Err(TransferError::Refused { line, source });
        }
    }
    Ok(())
}

/// What erasing has done, for whoever asked.
pub(crate) fn erased_json(erased: &Erased) -> Value {
    let unreadable: Vec<_> = erased.unreadable.iter().map(|d| &d.path).collect();
    json!({
        "complete": erased.is_complete(),
        "documents": erased.documents,
        "segments": erased.segments,
        "held_by_snapshots": erased.held_by_snapshots,
        "unreadable": unreadable,
        "deletes_kept": erased.deletes_kept,
    })
}
