//! `prefd export`: writes documents as JSON Lines. The documents come from a running server, or
//! from a data directory that no server has open.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use percent_encoding::percent_decode;

use crate::admin::UNSAVED;
use crate::commands::admin_client::block_on;
use crate::commands::atomic_file::AtomicFile;
use crate::commands::console::ProgressStream;
use crate::commands::erase::user_path;
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_data_dir};
use crate::io_error::io_error;
use crate::transfer::export_lines;

/// The value of `--to` that means standard output.
const STANDARD_OUTPUT: &str = "-";

/// Options of `prefd export`.
#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    /// Export only the documents of the user with this id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// File to create. The file must not exist yet. Use - for standard output
    #[arg(long, value_name = "FILE", default_value = STANDARD_OUTPUT)]
    to: PathBuf,
    #[command(flatten)]
    store: StoreLocation,
}

/// Exports all documents that can be read. If documents cannot be read, the error contains their
/// number and the names of the first ones.
pub(super) fn run(options: &ExportOptions) -> Result<(), CommandError> {
    let unreadable = if options.to.as_os_str() == STANDARD_OUTPUT {
        write(options, &mut io::stdout().lock())?
    } else {
        let mut file = AtomicFile::create(&options.to, ".prefd-export-")?;
        let unreadable = write(options, file.file())?;
        file.commit()?;
        unreadable
    };
    unreadable.map_or(Ok(()), |names| Err(CommandError::ExportIncomplete(names)))
}

/// Writes all documents that can be read. Returns a description of the missing documents, or `None`
/// if the export is complete.
fn write(options: &ExportOptions, out: &mut dyn Write) -> Result<Option<String>, CommandError> {
    let mut out = BufWriter::new(ProgressStream::new(out, "exporting", 0));
    let user = options.user.as_deref();
    let unreadable = if let Some(data_dir) = &options.store.data_dir {
        let store = open_data_dir(data_dir)?;
        let unreadable = export_lines(&store, user, &mut out)?;
        store.close()?;
        (!unreadable.is_empty()).then(|| unreadable.to_string())
    } else {
        block_on(download(options, &mut out))?
    };
    out.flush().map_err(io_error("write", &options.to))?;
    Ok(unreadable)
}

async fn download(
    options: &ExportOptions,
    out: &mut dyn Write,
) -> Result<Option<String>, CommandError> {
    let path = options.user.as_deref().map(user_path).unwrap_or_default() + "/documents";
    let mut download = options.store.admin.download(&path).await?;
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes)
            .map_err(io_error("write", &options.to))?;
    }
    Ok(download.trailers.get(UNSAVED).map(|unreadable| {
        let unreadable = percent_decode(unreadable.as_bytes());
        unreadable.decode_utf8_lossy().into_owned()
    }))
}
