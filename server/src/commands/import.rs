//! `prefd import`: stores documents from JSON Lines, in a running server or in a data
//! directory that no server has open.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::commands::admin_client::block_on;
use crate::commands::console::{self, ProgressStream};
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_error};
use crate::http::{Body, BodyWriter};
use crate::io_error::io_error;
use crate::settings::{Settings, SettingsSources};
use crate::store::{limits, offline, owner};
use crate::transfer::{READ_BYTES, import_lines};

/// The value of `--from` that means standard input.
const STANDARD_INPUT: &str = "-";

/// Options of `prefd import`.
#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// File with the lines to import. Use - for standard input
    #[arg(long, value_name = "FILE", default_value = STANDARD_INPUT)]
    from: PathBuf,
    /// Keep documents that already exist instead of replacing them
    #[arg(long)]
    keep_existing: bool,
    /// Configuration file with the limits for an import with --data-dir. Without the file, an
    /// import with --data-dir uses the default limits. A running server uses its own limits
    #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
    config: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    store: StoreLocation,
}

/// The number of stored documents, and the number of existing documents that were kept.
type Counts = (u64, u64);

/// Imports the lines up to the first one that is refused.
pub(super) fn run(options: &ImportOptions) -> Result<(), CommandError> {
    let (from, total_bytes) = open(&options.from)?;
    let from = ProgressStream::new(from, "importing", total_bytes);
    let (documents, kept) = match &options.store.data_dir {
        Some(data_dir) => owner::as_owner(data_dir, || import_offline(data_dir, options, from))?,
        None => import_online(options, from),
    }?;
    if options.json {
        return console::print_json(&json!({"documents": documents, "kept": kept}));
    }
    console::print(&console::table(&[
        ("imported", documents.to_string()),
        ("kept", kept.to_string()),
    ]))
}

/// Opens the input. Returns the input and its length in bytes. The length is 0 if it is unknown.
fn open(path: &Path) -> Result<(Box<dyn Read + Send>, u64), CommandError> {
    if path.as_os_str() == STANDARD_INPUT {
        return Ok((Box::new(io::stdin()), 0));
    }
    let file = File::open(path).map_err(io_error("open", path))?;
    let bytes = file.metadata().map_or(0, |file| file.len());
    Ok((Box::new(file), bytes))
}

fn import_offline(
    data_dir: &Path,
    options: &ImportOptions,
    from: impl Read,
) -> Result<Counts, CommandError> {
    let sources = SettingsSources {
        flags: Settings::default(),
        file: options.config.clone(),
    };
    let limits = limits(&sources.settings()?).map_err(CommandError::serve)?;
    let store = offline::open_for_import(data_dir, limits).map_err(open_error)?;
    let mut lines = BufReader::with_capacity(READ_BYTES, from);
    let counts = import_lines(&store, options.keep_existing, &mut lines);
    store.close()?;
    Ok(counts?)
}

fn import_online(
    options: &ImportOptions,
    from: impl Read + Send + 'static,
) -> Result<Counts, CommandError> {
    let path = if options.keep_existing {
        "/documents?keep-existing"
    } else {
        "/documents"
    };
    let (writer, chunks) = BodyWriter::new();
    let failure = ReadFailure::default();
    let mut from = InputReader {
        from,
        failure: Arc::clone(&failure),
    };
    block_on(async {
        tokio::task::spawn_blocking(move || writer.write(|out| io::copy(&mut from, out).map(drop)));
        let lines = Body::channel(chunks);
        let counts = options
            .store
            .admin
            .send_for_json(Method::POST, path, lines, &["documents", "kept"])
            .await;
        // A failed read aborts the request, so the error of the request is only a consequence.
        let failure = failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(error) = failure {
            return Err(io_error("read", &options.from)(error).into());
        }
        let counts = counts?;
        let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok((count("documents"), count("kept")))
    })
}

/// The error of a failed read, if any.
type ReadFailure = Arc<Mutex<Option<io::Error>>>;

/// A reader of the input. The body of a request cannot transport the error of a failed read, so the
/// reader keeps it.
struct InputReader<R> {
    from: R,
    failure: ReadFailure,
}

impl<R: Read> Read for InputReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.read(buffer).map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(error);
            }
            kind.into()
        })
    }
}
