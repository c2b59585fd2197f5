//! `prefd export`, `import` and `erase`, of a running server or of a directory that no
//! server has open.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::admin::{UNSAVED, erased_json};
use crate::commands::admin_client::{AdminError, AdminOptions};
use crate::commands::console::{self, Bar, Shown};
use crate::commands::whole_file::WholeFile;
use crate::http::{Body, BodyWriter};
use crate::settings::{Settings, SettingsError, SettingsSources};
use crate::store::{Error, OpenError, cause, limits, offline};
use crate::transfer::{LineError, READ_BYTES, RefusedLine, read_lines, write_lines};

/// The path that stands for standard input or output.
const STANDARD: &str = "-";

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum TransferError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("{0}{cause}", cause = cause(.0))]
    Store(#[from] Error),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Refused(#[from] RefusedLine),
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    #[error("not everything of the user could be removed: {0}")]
    Incomplete(String),
    #[error("the export is incomplete: {0}")]
    Unsaved(String),
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> TransferError {
    move |source| TransferError::System { what, source }
}

/// Which store.
#[derive(Debug, Args)]
pub(crate) struct Access {
    /// A data directory that no server has open, instead of a running server's
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminOptions,
}

/// What to export.
#[derive(Debug, Args)]
pub(super) struct ExportOptions {
    #[command(flatten)]
    access: Access,
    /// Of this user only
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The file to write, which must not be there; - for standard output
    #[arg(long, value_name = "FILE", default_value = STANDARD)]
    to: PathBuf,
}

/// What to import.
#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    #[command(flatten)]
    access: Access,
    /// The file to read; - for standard input
    #[arg(long, value_name = "FILE", default_value = STANDARD)]
    from: PathBuf,
    /// Leave documents as they are that are there
    #[arg(long)]
    keep_existing: bool,
    /// With --data-dir: a TOML file with settings of serve, whose limits count instead of the
    /// default ones
    #[arg(long, value_name = "FILE", env = "PREFD_CONFIG")]
    config: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whom to erase.
#[derive(Debug, Args)]
pub(super) struct EraseOptions {
    #[command(flatten)]
    access: Access,
    /// The user, as tokens name it
    #[arg(long, value_name = "USER")]
    user: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exports documents.
pub(crate) fn export(options: &ExportOptions) -> Result<(), TransferError> {
    if options.to.as_os_str() == STANDARD {
        return export_to(options, &mut io::stdout().lock());
    }
    let mut file =
        WholeFile::begin(&options.to, ".prefd-export-").map_err(system("make the file"))?;
    let unsaved = match export_to(options, file.file()) {
        Err(TransferError::Unsaved(unsaved)) => Some(unsaved),
        outcome => outcome.map(|()| None)?,
    };
    file.keep().map_err(system("keep the file"))?;
    unsaved.map_or(Ok(()), |unsaved| Err(TransferError::Unsaved(unsaved)))
}

/// Writes everything that can be read. [`TransferError::Unsaved`] names the rest.
fn export_to(options: &ExportOptions, out: &mut dyn Write) -> Result<(), TransferError> {
    let mut out = BufWriter::new(Shown::new(out, "exporting", 0));
    let user = options.user.as_deref();
    let unsaved = if let Some(data_dir) = &options.access.data_dir {
        let store = offline::open(data_dir)?;
        let written = write_lines(&store, user, &mut out)?;
        store.close()?;
        (!written.is_empty()).then(|| written.to_string())
    } else {
        let path = user.map_or("/documents".to_owned(), |user| {
            format!("{}/documents", path_of(user))
        });
        let admin = &options.access.admin;
        let trailers = wait_for(admin.get(
            &path,
            |_| {},
            |piece| out.write_all(&piece).map_err(system("write")),
        ))?;
        trailers.get(UNSAVED).map(|unsaved| {
            let unsaved = percent_decode(unsaved.as_bytes());
            unsaved.decode_utf8_lossy().into_owned()
        })
    };
    out.flush().map_err(system("write"))?;
    unsaved.map_or(Ok(()), |unsaved| Err(TransferError::Unsaved(unsaved)))
}

/// Imports documents.
pub(crate) fn import(options: &ImportOptions) -> Result<(), TransferError> {
    let (from, total_bytes): (Box<dyn Read + Send>, u64) = if options.from.as_os_str() == STANDARD {
        (Box::new(io::stdin()), 0)
    } else {
        let file = File::open(&options.from).map_err(system("open the file"))?;
        let bytes = file.metadata().map_or(0, |file| file.len());
        (Box::new(file), bytes)
    };
    let from = Shown::new(from, "importing", total_bytes);
    let (documents, kept) = match &options.access.data_dir {
        Some(data_dir) => import_closed(data_dir, options, from),
        None => import_online(options, from),
    }?;
    let told = if options.json {
        console::print(&json!({"documents": documents, "kept": kept}))
    } else {
        let rows = [
            ("imported", documents.to_string()),
            ("left as they were", kept.to_string()),
        ];
        console::write(&console::table(&rows))
    };
    told.map_err(system("write to standard output"))
}

fn import_closed(
    data_dir: &Path,
    options: &ImportOptions,
    from: impl Read,
) -> Result<(u64, u64), TransferError> {
    let given = SettingsSources {
        flags: Settings::default(),
        file: options.config.clone(),
    };
    let store = offline::open_to_fill(data_dir, limits(&given.settings()?))?;
    let mut lines = BufReader::with_capacity(READ_BYTES, from);
    let counts = read_lines(&store, options.keep_existing, &mut lines);
    store.close()?;
    Ok(counts?)
}

fn import_online(
    options: &ImportOptions,
    mut from: impl Read + Send + 'static,
) -> Result<(u64, u64), TransferError> {
    let path = if options.keep_existing {
        "/documents?keep-existing"
    } else {
        "/documents"
    };
    let (pipe, pieces) = BodyWriter::new();
    wait_for(async {
        let sending = tokio::task::spawn_blocking(move || {
            pipe.write(|out| io::copy(&mut from, out).map(drop))
        });
        let asked = options
            .access
            .admin
            .send(Method::POST, path, Body::channel(pieces));
        let response = asked.await?;
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(AdminError::from)?;
        let told: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        // What could not be read of the file is told, and not what came of that.
        if let Ok(Err(error)) = sending.await {
            return Err(system("read the file")(error));
        }
        let count = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or_default();
        Ok((count("documents"), count("kept")))
    })
}

/// Erases a user.
pub(crate) fn erase(options: &EraseOptions) -> Result<(), TransferError> {
    let told = if let Some(data_dir) = &options.access.data_dir {
        let store = offline::open(data_dir)?;
        let mut bar = Bar::new("erasing");
        let erased = store.erase(&options.user, &mut |progress| bar.show(progress));
        bar.clear();
        store.close()?;
        erased_json(&erased?)
    } else {
        let path = path_of(&options.user);
        let admin = &options.access.admin;
        wait_for(async {
            let body = admin.ask(Method::DELETE, &path).await?.into_body();
            let body = body.collect().await.map_err(AdminError::from)?;
            Ok(serde_json::from_slice(&body.to_bytes()).unwrap_or_default())
        })?
    };
    let shown = if options.json {
        console::print(&told)
    } else {
        let documents = told
            .get("documents")
            .and_then(Value::as_u64)
            .unwrap_or_default();
        console::write(&console::table(&[(
            "documents erased",
            documents.to_string(),
        )]))
    };
    shown.map_err(system("write to standard output"))?;
    if told.get("complete") == Some(&Value::Bool(true)) {
        return Ok(());
    }
    Err(TransferError::Incomplete(told.to_string()))
}

fn path_of(user: &str) -> String {
    format!("/users/{}", utf8_percent_encode(user, NON_ALPHANUMERIC))
}

fn wait_for<T>(work: impl Future<Output = Result<T, TransferError>>) -> Result<T, TransferError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(system("start"))?;
    let outcome = runtime.block_on(work);
    // What still waits for standard input ends with the process.
    runtime.shutdown_background();
    outcome
}
