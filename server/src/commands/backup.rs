//! `prefd backup`: the store at one moment, in a file. Of a running server, or of a data
//! directory that no server has open.

use std::cell::Cell;
use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::json;

use crate::admin::TOTAL_BYTES;
use crate::commands::admin_client::{AdminError, AdminOptions};
use crate::commands::console::{self, Bar};
use crate::commands::whole_file::WholeFile;
use crate::store::{Error, OpenError, Progress, UnfinishedRestore, cause, offline, private_folder};
use crate::transfer::archive::{self, ArchiveError, Contents};

/// The path that stands for standard output.
const STANDARD_OUTPUT: &str = "-";

/// What to back up, and where to.
#[derive(Debug, Args)]
pub(super) struct BackupOptions {
    /// The file to write, which must not be there; of a folder, a new one in it that is named
    /// after the time (a folder/ with a slash is made where it is missing); - for standard
    /// output
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// A data directory that no server has open, instead of a running server's
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminOptions,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum BackupError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Unfinished(#[from] UnfinishedRestore),
    #[error("cannot open the data directory: {0}{cause}{hint}", cause = cause(.0), hint = hint(.0))]
    Open(Error),
    #[error("the backup lacks what the disk does not return: {0}")]
    Incomplete(String),
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
}

impl From<OpenError> for BackupError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Unfinished(error) => Self::Unfinished(error),
            OpenError::Store(error) => Self::Open(error),
        }
    }
}

/// What to do instead.
fn hint(error: &Error) -> &'static str {
    match error {
        Error::Locked { .. } => {
            "; a server that has it open gives the backup where --data-dir is left out"
        }
        _ => "",
    }
}

/// Takes a backup.
pub(crate) fn run(options: &BackupOptions) -> Result<(), BackupError> {
    if options.to.as_os_str() == STANDARD_OUTPUT {
        let mut out = io::stdout().lock();
        let contents = take_checked(options, &mut out)?;
        out.flush().map_err(standard_output)?;
        return refuse_incomplete(&contents);
    }
    let path = place(&options.to)?;
    let fail = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(path.clone()),
        _ => BackupError::Write {
            path: path.clone(),
            source,
        },
    };
    let mut file = WholeFile::begin(&path, ".prefd-backup-").map_err(fail)?;
    take(options, file.file())?;
    let contents = archive::check(&mut BufReader::new(file.reread().map_err(fail)?))?;
    file.keep().map_err(fail)?;
    tell(options, &path, &contents)?;
    refuse_incomplete(&contents)
}

/// Names what is missing from a backup that is kept all the same.
fn refuse_incomplete(contents: &Contents) -> Result<(), BackupError> {
    if contents.unreadable.is_empty() {
        return Ok(());
    }
    let places: Vec<_> = contents
        .unreadable
        .iter()
        .map(ToString::to_string)
        .collect();
    Err(BackupError::Incomplete(places.join("; ")))
}

/// Takes a backup that cannot be read again, and checks it as it passes.
fn take_checked(options: &BackupOptions, out: &mut dyn Write) -> Result<Contents, BackupError> {
    let (sender, pieces) = mpsc::sync_channel(WAITING_PIECES);
    thread::scope(|scope| {
        let check = scope.spawn(move || {
            let mut reader = PieceReader {
                pieces,
                piece: Bytes::new(),
            };
            let contents = archive::check(&mut reader);
            // The archive's end marker follows its last member.
            let _ = io::copy(&mut reader, &mut io::sink());
            contents
        });
        let taken = take(options, &mut Tee { out, sender });
        let checked = check.join();
        taken?;
        match checked {
            Ok(contents) => Ok(contents?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Pieces of a backup that may wait to be checked.
const WAITING_PIECES: usize = 4;

/// Writes to two places.
struct Tee<'a> {
    out: &'a mut dyn Write,
    sender: SyncSender<Bytes>,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let written_bytes = bytes.get(..written).unwrap_or_default();
        // The check may have ended early. Its outcome says why.
        let _ = self.sender.send(Bytes::copy_from_slice(written_bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads pieces that another thread sends.
struct PieceReader {
    pieces: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.recv() {
                Ok(piece) => self.piece = piece,
                Err(_) => return Ok(0),
            }
        }
        let now = self.piece.split_to(self.piece.len().min(buffer.len()));
        if let Some(part) = buffer.get_mut(..now.len()) {
            part.copy_from_slice(&now);
        }
        Ok(now.len())
    }
}

/// The file to write. A name that ends with a slash is that of a folder, which is made where
/// it is missing.
fn place(to: &Path) -> Result<PathBuf, BackupError> {
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        private_folder(to).map_err(|source| BackupError::Write {
            path: to.to_owned(),
            source,
        })?;
    }
    if to.is_dir() {
        return Ok(to.join(name_of_now()));
    }
    Ok(to.to_owned())
}

fn standard_output(source: io::Error) -> BackupError {
    BackupError::System {
        what: "cannot write to standard output",
        source,
    }
}

fn tell(options: &BackupOptions, path: &Path, contents: &Contents) -> Result<(), BackupError> {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    let told = if options.json {
        console::print(&json!({
            "path": path,
            "bytes": bytes,
            "documents": contents.documents,
            "revision": contents.revision,
            "damaged_frames": contents.damaged_frames,
            "created_ms": contents.created_ms,
        }))
    } else {
        console::write(&console::table(&[
            ("backup", path.display().to_string()),
            ("bytes", console::bytes(bytes)),
            ("documents", contents.documents.to_string()),
            ("damaged frames", contents.damaged_frames.to_string()),
            ("revision", contents.revision.to_string()),
        ]))
    };
    told.map_err(standard_output)
}

fn take(options: &BackupOptions, out: &mut dyn Write) -> Result<(), BackupError> {
    let mut bar = Bar::new("backing up");
    let outcome = match &options.data_dir {
        Some(data_dir) => take_offline(data_dir, out, &mut bar),
        None => take_online(&options.admin, out, &mut bar),
    };
    bar.clear();
    outcome
}

fn take_offline(data_dir: &Path, out: &mut dyn Write, bar: &mut Bar) -> Result<(), BackupError> {
    let store = offline::open(data_dir)?;
    let snapshot = store.snapshot().map_err(BackupError::Open)?;
    archive::write(&snapshot, out, &mut |progress| bar.show(progress))?;
    drop(snapshot);
    store.close().map_err(BackupError::Open)
}

fn take_online(
    admin: &AdminOptions,
    out: &mut dyn Write,
    bar: &mut Bar,
) -> Result<(), BackupError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| BackupError::System {
            what: "cannot start",
            source,
        })?;
    let total_bytes = Cell::new(0);
    let begin = |response: &Response<Incoming>| {
        let total = response.headers().get(TOTAL_BYTES);
        let total = total.and_then(|total| total.to_str().ok()?.parse().ok());
        total_bytes.set(total.unwrap_or(0));
    };
    let mut done_bytes = 0;
    let take = |piece: Bytes| {
        out.write_all(&piece).map_err(ArchiveError::Send)?;
        done_bytes += piece.len() as u64;
        bar.show(Progress {
            // What an archive adds comes on top.
            done_bytes: done_bytes.min(total_bytes.get()),
            total_bytes: total_bytes.get(),
        });
        Ok(())
    };
    runtime
        .block_on(admin.get("/backup", begin, take))
        .map(drop)
}

/// `prefd-1795645000.tar`: seconds since 1970, so that names go up with the time.
fn name_of_now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("prefd-{}.tar", now.map_or(0, |since| since.as_secs()))
}
