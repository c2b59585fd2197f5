//! `prefd restore`: a data directory of a backup, verified before it can be used.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::commands::console::{self, Bar, Shown};
use crate::store::restore::{RestoreDirectory, RestoreDirectoryError};
use crate::store::{Error, Impact, Problem, cause, offline};
use crate::transfer::archive::{self, ArchiveError, Contents};

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";
/// What to restore, and where to.
#[derive(Debug, Args)]
pub(super) struct RestoreOptions {
    /// The backup; of a folder, the newest in it by name; - for standard input
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// The data directory to make: it must be empty, or not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Restore a backup of a store that was damaged: documents that could not be read there
    /// cannot be read here either. A backup that is damaged itself is refused all the same
    #[arg(long)]
    accept_damage: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum RestoreError {
    #[error(transparent)]
    Directory(#[from] RestoreDirectoryError),
    #[error("no backup (prefd-<seconds>.tar) in {}", .0.display())]
    NoBackup(PathBuf),
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        what: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("the backup is whole, and what is in it cannot be checked: {0}{cause}", cause = cause(.0))]
    Verify(#[from] Error),
    #[error(
        "the backup is whole, and documents in it cannot be read, as in the store that it is of: \
         {count} problems, the first is {first}. --accept-damage restores all that is not damaged"
    )]
    Problems { count: usize, first: String },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.to_owned();
    move |source| RestoreError::System { what, path, source }
}

/// Restores a backup.
pub(crate) fn run(options: &RestoreOptions) -> Result<(), RestoreError> {
    let directory = RestoreDirectory::claim(&options.data_dir)?;
    let backup = find(&options.from)?;
    let (from, total_bytes) = open(backup.as_deref())?;
    let folder = directory.begin()?;
    match unpack(from, total_bytes, folder, options.accept_damage) {
        Ok(contents) => {
            directory.finish()?;
            tell(options, backup.as_deref(), &contents)
        }
        Err(error) => {
            directory.abandon();
            Err(error)
        }
    }
}

/// The file that is meant; `None` for standard input.
fn find(from: &Path) -> Result<Option<PathBuf>, RestoreError> {
    if from.as_os_str() == STANDARD_INPUT {
        return Ok(None);
    }
    if from.is_dir() {
        return newest(from).map(Some);
    }
    Ok(Some(from.to_owned()))
}

/// The backup, and its length, or 0 where that is not known.
fn open(backup: Option<&Path>) -> Result<(Box<dyn Read>, u64), RestoreError> {
    let Some(path) = backup else {
        return Ok((Box::new(io::stdin().lock()), 0));
    };
    let file = File::open(path).map_err(system("open", path))?;
    let bytes = file.metadata().map_or(0, |file| file.len());
    Ok((Box::new(BufReader::new(file)), bytes))
}

/// The newest backup in a folder, by the time in its name.
fn newest(folder: &Path) -> Result<PathBuf, RestoreError> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for found in fs::read_dir(folder).map_err(system("list", folder))? {
        let path = found.map_err(system("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let time = name.and_then(|name| name.strip_prefix("prefd-")?.strip_suffix(".tar"));
        // Another name is somebody's own, for a backup that is not to be taken unasked.
        if let Some(time) = time.and_then(|time| time.parse().ok()) {
            newest = newest.max(Some((time, path)));
        }
    }
    let newest = newest.map(|(_, path)| path);
    newest.ok_or_else(|| RestoreError::NoBackup(folder.to_owned()))
}

/// Lays the files, and has the engine check every byte of them.
fn unpack(
    from: impl Read,
    total_bytes: u64,
    folder: &Path,
    accept_damage: bool,
) -> Result<Contents, RestoreError> {
    let mut shown = Shown::new(from, "restoring", total_bytes);
    let contents = archive::unpack(&mut shown, folder)?;
    drop(shown);
    let mut bar = Bar::new("verifying");
    let found = offline::verify(folder, &mut |progress| bar.show(progress));
    bar.clear();
    // What is stale or is made again costs nobody a document.
    let is_document = |problem: &&Problem| problem.impact == Impact::Document;
    let found = found?;
    let mut problems = found.problems.iter().filter(is_document);
    if let Some(first) = problems.next()
        && !accept_damage
    {
        return Err(RestoreError::Problems {
            count: problems.count() + 1,
            first: format!("{}: {}", first.path.display(), first.what),
        });
    }
    Ok(contents)
}

fn tell(
    options: &RestoreOptions,
    backup: Option<&Path>,
    contents: &Contents,
) -> Result<(), RestoreError> {
    let backup = backup.unwrap_or(&options.from);
    let told = if options.json {
        console::print(&json!({
            "from": backup,
            "data_dir": options.data_dir,
            "documents": contents.documents,
            "damaged_frames": contents.damaged_frames,
            "revision": contents.revision,
            "created_ms": contents.created_ms,
            "prefd": contents.prefd,
        }))
    } else {
        console::write(&console::table(&[
            ("restored", options.data_dir.display().to_string()),
            ("from", backup.display().to_string()),
            ("documents", contents.documents.to_string()),
            ("revision", contents.revision.to_string()),
        ]))
    };
    told.map_err(RestoreError::Output)
}
