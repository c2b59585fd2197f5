//! Starts the log, and changes its filter.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::log::output::{LineBuffer, LogOutput, LogWriter, Urgency};
use crate::log::timestamp::TimestampFormat;
use crate::settings::LogFormat;

const DEFAULT_FILTER: &str = "info";

/// The log of this process. A process has only one global `tracing` subscriber, and so only one
/// log.
static OUTPUT: LogOutput = LogOutput::new();
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

thread_local! {
    static BUFFER: Arc<LineBuffer> = OUTPUT.register();
}

/// Why the log could not be started, or its filter could not be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the value of --log is not a valid log filter: {0}")]
    Filter(#[from] ParseError),
    #[error("cannot start the thread that writes the log: {0}")]
    Thread(io::Error),
}

/// The running log. Dropping a `Log` waits until all lines are written, but at most for about a
/// second.
pub(crate) struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    _writer: Option<LogWriter>,
}

/// Starts logging the events that match `filter`. If the log of this process was already started,
/// its filter and format stay in use.
///
/// # Errors
/// [`LogError`] if the filter is not valid, or if the thread that writes the log cannot be started.
pub(crate) fn start(filter: Option<&str>, format: LogFormat) -> Result<Log, LogError> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let writer = OUTPUT.start(io::stderr()).map_err(LogError::Thread)?;
    let format = *FORMAT.get_or_init(|| format);
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(layer(format, EventWriters))
        .try_init();
    Ok(Log {
        filter: handle,
        _writer: writer,
    })
}

/// The layer that formats `tracing` events as lines.
pub(super) fn layer<S, W>(format: LogFormat, writers: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer()
        .with_writer(writers)
        .with_timer(TimestampFormat)
        .with_ansi(false);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Parses a filter, such as `info,prefd::auth=debug`.
///
/// # Errors
/// [`LogError::Filter`] if the text is not a valid filter.
pub(crate) fn parse(filter: Option<&str>) -> Result<EnvFilter, LogError> {
    Ok(EnvFilter::try_new(filter.unwrap_or(DEFAULT_FILTER))?)
}

impl Log {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`LogError::Filter`] if the text is not a valid filter. After an error, the current filter
    /// stays in use.
    pub(crate) fn set_filter(&self, filter: Option<&str>) -> Result<(), LogError> {
        let filter = parse(filter)?;
        // The reload fails only if an earlier call to `start` in this process set the global log.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// Appends lines to the buffer of this thread. `write` must append complete lines.
pub(super) fn append(urgency: Urgency, write: impl FnOnce(LogFormat, &mut Vec<u8>)) {
    let format = FORMAT.get().copied().unwrap_or_default();
    // A thread that is ending may have no buffer any more. It logs nothing at this time.
    let _ = BUFFER.try_with(|buffer| {
        OUTPUT.append(buffer, urgency, |lines| write(format, lines));
    });
}

/// Creates an [`EventWriter`] for each event.
struct EventWriters;

impl MakeWriter<'_> for EventWriters {
    type Writer = EventWriter;

    fn make_writer(&self) -> EventWriter {
        EventWriter(Urgency::Soon)
    }

    fn make_writer_for(&self, event: &Metadata<'_>) -> EventWriter {
        let is_urgent = *event.level() <= Level::WARN;
        EventWriter(if is_urgent {
            Urgency::Now
        } else {
            Urgency::Soon
        })
    }
}

/// Appends the line of one event to the log. `tracing_subscriber` writes a line with one call.
struct EventWriter(Urgency);

impl Write for EventWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        append(self.0, |_, lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
