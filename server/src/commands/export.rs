//! `prefd export`: writes documents as JSON Lines. The documents come from a running server, or
//! from a data directory that no server has open.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use crate::admin::{NDJSON, UNSAVED};
use crate::commands::admin_client::{block_on, decoded};
use crate::commands::atomic_file::AtomicFile;
use crate::commands::console::{self, ProgressStream};
use crate::commands::erase::user_path;
use crate::commands::error::CommandError;
use crate::commands::store_location::{StoreLocation, open_data_dir_read_only};
use crate::io_error::io_error;
use crate::store::{Name, owner};
use crate::transfer::export_lines;

/// The value of `--to` that means standard output.
const STANDARD_OUTPUT: &str = "-";
/// Maximum number of unreadable places that an export from a data directory prints. This number
/// bounds the memory for their descriptions.
const MAX_PLACES: usize = 100_000;

/// Options of `prefd export`.
#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    /// Export only the documents of the user with this id
    #[arg(long, value_name = "USER", value_parser = Name::new)]
    user: Option<Name>,
    /// File to create. The file must not exist yet. Use - for standard output
    #[arg(long, value_name = "FILE", default_value = STANDARD_OUTPUT)]
    to: PathBuf,
    #[command(flatten)]
    store: StoreLocation,
}

/// Exports all documents that can be read. If documents cannot be read, prints their names and
/// places to standard error, and returns an error with their number.
pub(super) fn run(options: &ExportOptions) -> Result<(), CommandError> {
    let unreadable = if options.to.as_os_str() == STANDARD_OUTPUT {
        write(options, &mut io::stdout())?
    } else {
        let mut file = AtomicFile::create(&options.to, ".prefd-export-")?;
        let unreadable = write(options, file.file())?;
        file.commit([options.to.clone()])?;
        unreadable
    };
    let Some(unreadable) = unreadable else {
        return Ok(());
    };
    for place in &unreadable.places {
        console::print_problem(place);
    }
    Err(CommandError::ExportIncomplete(unreadable.summary))
}

/// A description of the documents that are missing from an export.
struct MissingDocuments {
    summary: String,
    places: Vec<String>,
}

/// Writes all documents that can be read. Returns a description of the missing documents, or `None`
/// if the export is complete.
fn write(
    options: &ExportOptions,
    out: &mut (dyn Write + Send),
) -> Result<Option<MissingDocuments>, CommandError> {
    let mut out = BufWriter::new(ProgressStream::new(out, "exporting", 0));
    let user = options.user.as_ref().map(Name::as_str);
    let unreadable = if let Some(data_dir) = &options.store.data_dir {
        let unreadable = owner::as_reader(data_dir, || {
            let store = open_data_dir_read_only(data_dir)?;
            let unreadable = export_lines(&store, user, MAX_PLACES, &mut out)?;
            store.close()?;
            Ok::<_, CommandError>(unreadable)
        })??;
        (!unreadable.is_empty()).then(|| MissingDocuments {
            summary: unreadable.summary(),
            places: unreadable.places().to_vec(),
        })
    } else {
        block_on(download(options, &mut out))?
    };
    out.flush().map_err(io_error("write", &options.to))?;
    Ok(unreadable)
}

async fn download(
    options: &ExportOptions,
    out: &mut dyn Write,
) -> Result<Option<MissingDocuments>, CommandError> {
    let path = options.user.as_ref().map(user_path).unwrap_or_default() + "/documents";
    let mut download = options.store.admin.download(&path, &NDJSON).await?;
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes)
            .map_err(io_error("write", &options.to))?;
    }
    Ok(download.trailers.get(UNSAVED).map(|unreadable| {
        let unreadable = decoded(unreadable);
        let mut lines = unreadable.lines().map(str::to_owned);
        MissingDocuments {
            summary: lines.next().unwrap_or_default(),
            places: lines.collect(),
        }
    }))
}
