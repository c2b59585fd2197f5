//! The log, on standard error: lines of text or of JSON, from threads of their own, so that
//! whoever reads it slowly stops no request. What is wrong has one to itself: the many lines
//! of what is not must not push it out.

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
/// Lines that may wait to be written; what comes on top is not logged.
const WAITING_LINES: usize = 16 * 1024;

/// What is written still when it is dropped.
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    _writing: [WorkerGuard; 2],
}

/// Starts to log what `filter` lets pass.
pub(crate) fn start(filter: Option<&str>, format: LogFormat) -> Result<Log, ParseError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    // Many at once: flushed when no line is left.
    let (lines, ordinary) = behind("prefd-log", io::BufWriter::new(io::stderr()));
    let (alarms, alarming) = behind("prefd-alarm", io::stderr());
    let writer = alarms.with_max_level(Level::WARN).or_else(lines);
    let lines = fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // A second call in one process keeps the first log, which is as good.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    Ok(Log {
        filter: handle,
        _writing: [ordinary, alarming],
    })
}

fn behind(thread: &str, writer: impl Write + Send + 'static) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .thread_name(thread)
        .finish(writer)
}

pub(crate) fn parse(filter: Option<&str>) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(filter.unwrap_or(DEFAULT_FILTER))
}

impl Log {
    /// Logs what `filter` lets pass from now on.
    pub(crate) fn set_filter(&self, filter: Option<&str>) -> Result<(), ParseError> {
        let filter = parse(filter)?;
        // It fails only where the log of another call is the one that is used.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}
