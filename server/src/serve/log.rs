//! The server log on standard error, as lines of text or JSON.
//!
//! Dedicated threads write the lines, so a slow reader of standard error does not delay requests.
//! Warnings and errors have a separate thread and queue, so that a flood of other lines cannot
//! displace them.

use std::io::{self, Write};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::writer::MakeWriterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::settings::LogFormat;

const DEFAULT_FILTER: &str = "info";
/// Maximum number of lines in the queue of each writer thread. If a queue is full, further lines
/// are dropped.
const MAX_QUEUED_LINES: usize = 16 * 1024;

/// The running log. Dropping a `Log` waits up to about a second for each writer thread to write its
/// queued lines.
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    _guards: [WorkerGuard; 2],
}

/// Starts logging the events that match `filter`.
pub(crate) fn start(filter: Option<&str>, format: LogFormat) -> Result<Log, ParseError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    // The writer thread flushes the buffer whenever its queue is empty.
    let (info, info_guard) = spawn_writer("prefd-log", io::BufWriter::new(io::stderr()));
    let (warnings, warnings_guard) = spawn_writer("prefd-alarm", io::stderr());
    let writer = warnings.with_max_level(Level::WARN).or_else(info);
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    // A process has only one global `tracing` subscriber. A subscriber that was already set stays
    // in use.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer)
        .try_init();
    Ok(Log {
        filter: handle,
        _guards: [info_guard, warnings_guard],
    })
}

/// Returns a writer that queues lines for a new thread, which writes them to `writer`.
fn spawn_writer(thread: &str, writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_QUEUED_LINES)
        .thread_name(thread)
        .finish(writer)
}

/// Parses a filter, such as `info,prefd::auth=debug`.
///
/// # Errors
/// [`ParseError`] if the text is not a valid filter.
pub(crate) fn parse(filter: Option<&str>) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(filter.unwrap_or(DEFAULT_FILTER))
}

impl Log {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`ParseError`] if the text is not a valid filter. After an error, the current filter stays
    /// in use.
    pub(crate) fn set_filter(&self, filter: Option<&str>) -> Result<(), ParseError> {
        let filter = parse(filter)?;
        // The reload fails only if an earlier call to `start` in this process set the global log.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}
