//! `prefd backup`: writes a snapshot of the store to a file or to standard output. The backup is
//! taken from a running server, or from a data directory that no server has open.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use crate::admin::{TAR, TOTAL_BYTES};
use crate::commands::admin_client::{AdminOptions, block_on};
use crate::commands::atomic_file::AtomicFile;
use crate::commands::console::{self, ProgressBar, ProgressStream};
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_data_dir_read_only};
use crate::io_error::io_error;
use crate::store::{create_private_dir, owner};
use crate::transfer::archive::{self, ArchiveError, BackupContents};

/// The value of `--to` that means standard output.
const STANDARD_OUTPUT: &str = "-";
/// Prefix of the name of a backup file that is not complete yet.
const TEMPORARY: &str = ".prefd-backup-";
const LABEL: &str = "backing up";
/// Maximum number of chunks that wait to be checked while a backup is written to standard output.
const MAX_QUEUED_CHUNKS: usize = 4;

/// Options of `prefd backup`.
#[derive(Debug, Args)]
pub(super) struct BackupOptions {
    /// Backup file to create. The file must not exist yet. If PATH is a directory, the backup file
    /// in this directory is named prefd-<seconds since 1970>.tar. If PATH ends with a slash, the
    /// directory is created if it does not exist. Use - for standard output
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreLocation,
}

/// Writes a backup, and checks that the backup is intact.
pub(super) fn run(options: &BackupOptions) -> Result<(), CommandError> {
    if options.to.as_os_str() == STANDARD_OUTPUT {
        let mut out = io::stdout();
        let contents = write_and_check(&options.store, &mut out)?;
        out.flush()
            .map_err(io_error("write to", "standard output"))?;
        return require_complete(&contents);
    }
    if options.to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        create_private_dir(&options.to).map_err(io_error("create", &options.to))?;
    }
    let is_directory = options.to.is_dir();
    let began = SystemTime::now().duration_since(UNIX_EPOCH);
    let began = began.map_or(0, |since| since.as_secs());
    let mut file = if is_directory {
        AtomicFile::create_in(&options.to, TEMPORARY)?
    } else {
        AtomicFile::create(&options.to, TEMPORARY)?
    };
    write(&options.store, file.file())?;
    let contents = archive::check(&mut BufReader::new(file.reopen()?))?;
    let path = if is_directory {
        // The name of a backup that began within the same second is already used.
        file.commit((began..).map(|seconds| options.to.join(file_name(seconds))))?
    } else {
        file.commit([options.to.clone()])?
    };
    report(options, &path, &contents)?;
    require_complete(&contents)
}

/// Returns an error if the backup lacks data that could not be read from the disk. The backup is
/// kept.
fn require_complete(contents: &BackupContents) -> Result<(), CommandError> {
    if contents.unreadable.is_empty() {
        return Ok(());
    }
    for place in &contents.unreadable {
        console::print_problem(&place.to_string());
    }
    Err(CommandError::BackupIncomplete(contents.unreadable.len()))
}

/// Writes a backup to a pipe or other stream. The output cannot be read back, so a second thread
/// checks a copy of the bytes while the backup is written.
fn write_and_check(
    store: &StoreLocation,
    out: &mut (dyn Write + Send),
) -> Result<BackupContents, CommandError> {
    let (sender, chunks) = mpsc::sync_channel(MAX_QUEUED_CHUNKS);
    thread::scope(|scope| {
        let check = scope.spawn(move || {
            let mut reader = ChunkReader {
                chunks,
                chunk: Bytes::new(),
            };
            let contents = archive::check(&mut reader);
            // After the last file, the end marker of the archive remains to be read.
            let _ = io::copy(&mut reader, &mut io::sink());
            contents
        });
        let written = write(store, &mut Tee { out, sender });
        let checked = check.join();
        written?;
        match checked {
            Ok(contents) => Ok(contents?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A writer that also sends a copy of all bytes to the checking thread.
struct Tee<'a> {
    out: &'a mut (dyn Write + Send),
    sender: SyncSender<Bytes>,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let written_bytes = bytes.get(..written).unwrap_or_default();
        // Sending fails only if the checking thread has panicked. The panic is handled when the
        // thread is joined.
        let _ = self.sender.send(Bytes::copy_from_slice(written_bytes));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads the bytes that a [`Tee`] sends.
struct ChunkReader {
    chunks: Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.chunk = chunk,
                Err(_) => return Ok(0),
            }
        }
        let read = self.chunk.split_to(self.chunk.len().min(buffer.len()));
        if let Some(part) = buffer.get_mut(..read.len()) {
            part.copy_from_slice(&read);
        }
        Ok(read.len())
    }
}

/// Returns a file name such as `prefd-1795645000.tar`. The number is the time in seconds since
/// 1970, so the names sort by time.
fn file_name(seconds: u64) -> String {
    format!("prefd-{seconds}.tar")
}

fn report(
    options: &BackupOptions,
    path: &Path,
    contents: &BackupContents,
) -> Result<(), CommandError> {
    let bytes = fs::metadata(path).map_or(0, |file| file.len());
    if options.json {
        return console::print_json(&json!({
            "path": path,
            "bytes": bytes,
            "documents": contents.documents,
            "revision": contents.revision,
            "damaged_frames": contents.damaged_frames,
            "created_ms": contents.created_ms,
        }));
    }
    console::print(&console::table(&[
        ("backup", path.display().to_string()),
        ("bytes", console::bytes(bytes)),
        ("documents", contents.documents.to_string()),
        ("damaged frames", contents.damaged_frames.to_string()),
        ("revision", contents.revision.to_string()),
    ]))
}

fn write(store: &StoreLocation, out: &mut (dyn Write + Send)) -> Result<(), CommandError> {
    match &store.data_dir {
        Some(data_dir) => owner::as_reader(data_dir, || write_offline(data_dir, out))?,
        None => block_on(write_online(&store.admin, out)),
    }
}

fn write_offline(data_dir: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
    let store = open_data_dir_read_only(data_dir)?;
    let snapshot = store.snapshot()?;
    let mut bar = ProgressBar::new(LABEL);
    archive::write(&snapshot, out, &mut |progress| bar.show(progress))?;
    drop(snapshot);
    Ok(store.close()?)
}

async fn write_online(admin: &AdminOptions, out: &mut dyn Write) -> Result<(), CommandError> {
    let mut download = admin.download("/backup", &TAR).await?;
    // The total of the progress display is the size of the store files in the archive, without the
    // tar headers.
    let total_bytes = download.headers.get(TOTAL_BYTES);
    let total_bytes = total_bytes.and_then(|total| total.to_str().ok()?.parse().ok());
    let mut out = ProgressStream::new(out, LABEL, total_bytes.unwrap_or(0));
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes).map_err(ArchiveError::Send)?;
    }
    Ok(())
}
