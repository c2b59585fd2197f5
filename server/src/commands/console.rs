//! Output of commands: progress on a terminal, and results as a table or as JSON.

use std::io::{self, IsTerminal, Read, Write};

use serde_json::Value;

use crate::commands::error::CommandError;
use crate::io_error::io_error;
use crate::store::Progress;

/// If the total is unknown, the progress is printed again each time this many more bytes are done.
const UNKNOWN_TOTAL_STEP_BYTES: u64 = 1024 * 1024;

/// Shows the progress of a command in one line on standard error. Each update overwrites the line.
/// Prints nothing if standard error is not a terminal. The line is erased on drop.
pub(super) struct ProgressBar {
    label: &'static str,
    /// The percentage that was printed last. If the total is unknown, the last printed progress in
    /// units of [`UNKNOWN_TOTAL_STEP_BYTES`].
    printed_step: Option<u64>,
    is_terminal: bool,
}

impl ProgressBar {
    pub(super) fn new(label: &'static str) -> Self {
        Self {
            label,
            printed_step: None,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Prints the progress. A total of 0 bytes means that the total is unknown.
    pub(super) fn show(&mut self, progress: Progress) {
        let Progress {
            done_bytes,
            total_bytes,
        } = progress;
        let step = match total_bytes {
            0 => done_bytes / UNKNOWN_TOTAL_STEP_BYTES,
            total => done_bytes.min(total).saturating_mul(100) / total,
        };
        if !self.is_terminal || self.printed_step == Some(step) {
            return;
        }
        self.printed_step = Some(step);
        let label = self.label;
        // Errors of this write are ignored, because a command must not fail if its progress cannot
        // be printed.
        let _ = if total_bytes == 0 {
            write!(io::stderr(), "\r{label} {} ", bytes(done_bytes))
        } else {
            let total = bytes(total_bytes);
            write!(io::stderr(), "\r{label} {step:3} % of {total} ")
        };
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        if self.printed_step.is_some() {
            // Moves to the start of the line and erases the line (ECMA-48, CR and EL).
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// A reader or writer that shows how many bytes have passed through.
pub(super) struct ProgressStream<T> {
    inner: T,
    bar: ProgressBar,
    progress: Progress,
}

impl<T> ProgressStream<T> {
    /// A total of 0 bytes means that the total is unknown.
    pub(super) fn new(inner: T, label: &'static str, total_bytes: u64) -> Self {
        let progress = Progress {
            done_bytes: 0,
            total_bytes,
        };
        Self {
            inner,
            bar: ProgressBar::new(label),
            progress,
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.progress.done_bytes += bytes as u64;
        self.bar.show(self.progress);
    }
}

impl<T: Read> Read for ProgressStream<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.advance(read);
        Ok(read)
    }
}

impl<T: Write> Write for ProgressStream<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.advance(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Prints indented JSON to standard output.
pub(super) fn print_json(value: &Value) -> Result<(), CommandError> {
    print(&format!("{value:#}\n"))
}

/// Prints text to standard output.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(printed.map_err(io_error("write to", "standard output"))?)
}

/// Prints a problem to standard error, after the name of the program.
pub(super) fn print_problem(problem: &str) {
    // A command must not fail because a problem cannot be printed. The exit code reports failures.
    let _ = writeln!(io::stderr(), "prefd: {problem}");
}

/// Formats rows that consist of a name and a value. The values are aligned in a column.
pub(super) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Formats a number of bytes with a unit, such as `1.5 MiB`. The number is rounded down to one
/// decimal.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = count;
    let mut tenths = 0;
    while whole >= 1024 && unit + 1 < UNITS.len() {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{whole} {name}")
    } else {
        format!("{whole}.{tenths} {name}")
    }
}
