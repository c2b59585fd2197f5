//! `prefd restore`: creates a data directory from a backup, and verifies the backup before the
//! data directory can be used.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::commands::console::{self, ProgressBar, ProgressStream};
use crate::commands::error::CommandError;
use crate::io_error::io_error;
use crate::store::restore::RestoreDirectory;
use crate::store::{Impact, Problem, offline, owner};
use crate::transfer::archive::{self, BackupContents};

/// The value of `--from` that means standard input.
const STANDARD_INPUT: &str = "-";

/// Options of `prefd restore`.
#[derive(Debug, Args)]
pub(super) struct RestoreOptions {
    /// Backup file to restore. If PATH is a directory, prefd restores the backup in PATH that has
    /// the latest time in its file name. Use - for standard input
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Data directory to create. The directory must be empty, or must not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Restore the backup even if the store was damaged when the backup was taken. The damaged
    /// documents are lost. This option does not accept damage to the backup file itself
    #[arg(long)]
    accept_damage: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Restores a backup. If unpacking or verification fails, the unpacked files are removed. If
/// `restoring/` remains in the data directory, for example after a crash, `prefd serve`, `backup`,
/// `export`, `import`, `erase` and `compact` refuse to open the data directory.
pub(super) fn run(options: &RestoreOptions) -> Result<(), CommandError> {
    let backup = find(&options.from)?;
    let (from, total_bytes) = open(backup.as_deref())?;
    let contents = owner::as_owner(&options.data_dir, || {
        let directory = RestoreDirectory::lock(&options.data_dir)?;
        let folder = directory.begin()?;
        match unpack(from, total_bytes, folder, options.accept_damage) {
            Ok(contents) => {
                directory.finish()?;
                Ok(contents)
            }
            Err(error) => {
                directory.abandon();
                Err(error)
            }
        }
    })??;
    report(options, backup.as_deref(), &contents)
}

/// Returns the path of the backup file, or `None` for standard input.
fn find(from: &Path) -> Result<Option<PathBuf>, CommandError> {
    if from.as_os_str() == STANDARD_INPUT {
        return Ok(None);
    }
    if from.is_dir() {
        return newest(from).map(Some);
    }
    Ok(Some(from.to_owned()))
}

/// Opens the backup. Returns the backup and its length in bytes. The length is 0 if it is unknown.
fn open(backup: Option<&Path>) -> Result<(Box<dyn Read + Send>, u64), CommandError> {
    let Some(path) = backup else {
        return Ok((Box::new(io::stdin()), 0));
    };
    let file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_or(0, |file| file.len());
    Ok((Box::new(BufReader::new(file)), bytes))
}

/// Returns the backup in a directory that has the latest time in its file name.
fn newest(directory: &Path) -> Result<PathBuf, CommandError> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let time = name.and_then(|name| name.strip_prefix("prefd-")?.strip_suffix(".tar"));
        // Files without a time in their names are ignored. A backup without a time in its name is
        // restored only if --from is the path of this backup.
        if let Some(time) = time.and_then(|time| time.parse().ok()) {
            newest = newest.max(Some((time, path)));
        }
    }
    let newest = newest.map(|(_, path)| path);
    newest.ok_or_else(|| CommandError::NoBackup(directory.to_owned()))
}

/// Unpacks the backup into `folder`, and checks the unpacked store as `prefd verify` does.
fn unpack(
    from: impl Read,
    total_bytes: u64,
    folder: &Path,
    accept_damage: bool,
) -> Result<BackupContents, CommandError> {
    let mut from = ProgressStream::new(from, "restoring", total_bytes);
    let contents = archive::unpack(&mut from, folder)?;
    drop(from);
    let mut bar = ProgressBar::new("verifying");
    let verified = offline::verify(folder, &mut |progress| bar.show(progress));
    drop(bar);
    let verified = verified.map_err(CommandError::RestoreUnverified)?;
    // Problems in obsolete or derived data do not affect any document.
    let affects_document = |problem: &&Problem| problem.impact == Impact::Document;
    let mut problems = verified.problems.iter().filter(affects_document);
    if let Some(first) = problems.next()
        && !accept_damage
    {
        return Err(CommandError::RestoreDamaged {
            count: problems.count() + 1,
            first: format!("{}: {}", first.path.display(), first.what),
        });
    }
    Ok(contents)
}

fn report(
    options: &RestoreOptions,
    backup: Option<&Path>,
    contents: &BackupContents,
) -> Result<(), CommandError> {
    let backup = backup.unwrap_or(&options.from);
    if options.json {
        return console::print_json(&json!({
            "from": backup,
            "data_dir": options.data_dir,
            "documents": contents.documents,
            "damaged_frames": contents.damaged_frames,
            "revision": contents.revision,
            "created_ms": contents.created_ms,
            "prefd": contents.prefd,
        }));
    }
    console::print(&console::table(&[
        ("restored", options.data_dir.display().to_string()),
        ("from", backup.display().to_string()),
        ("documents", contents.documents.to_string()),
        ("revision", contents.revision.to_string()),
    ]))
}
