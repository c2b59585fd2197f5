//! What commands show: their progress on a terminal, and what they found, for people or as
//! JSON.

use std::io::{self, IsTerminal, Read, Write};

use serde_json::Value;

use crate::store::Progress;

/// How much is done from one time to the next that it is shown, where no total is known.
const UNKNOWN_STEP_BYTES: u64 = 1024 * 1024;

/// How far a command has come, on a terminal and nowhere else.
pub(super) struct Bar {
    what: &'static str,
    shown: Option<u64>,
    is_terminal: bool,
}

impl Bar {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            shown: None,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Shows how far it has come; with a total of 0, which is not known, how much was done.
    pub(crate) fn show(&mut self, progress: Progress) {
        let Progress {
            done_bytes,
            total_bytes,
        } = progress;
        let step = match total_bytes {
            0 => done_bytes / UNKNOWN_STEP_BYTES,
            total => done_bytes.saturating_mul(100) / total,
        };
        if !self.is_terminal || self.shown == Some(step) {
            return;
        }
        self.shown = Some(step);
        let what = self.what;
        // Nobody is served by a command that stops because its progress is not shown.
        let _ = if total_bytes == 0 {
            write!(io::stderr(), "\r{what} {} ", bytes(done_bytes))
        } else {
            write!(
                io::stderr(),
                "\r{what} {step:3} % of {} ",
                bytes(total_bytes)
            )
        };
    }

    pub(crate) fn clear(&self) {
        if self.shown.is_some() {
            // To the start of the line, and erase it (ECMA-48, EL).
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// What passes, shown as it passes.
pub(crate) struct Shown<T> {
    inner: T,
    bar: Bar,
    progress: Progress,
}

impl<T> Shown<T> {
    /// `total_bytes`: 0 where that is not known.
    pub(crate) fn new(inner: T, what: &'static str, total_bytes: u64) -> Self {
        let progress = Progress {
            done_bytes: 0,
            total_bytes,
        };
        Self {
            inner,
            bar: Bar::new(what),
            progress,
        }
    }

    fn pass(&mut self, bytes: usize) {
        self.progress.done_bytes += bytes as u64;
        self.bar.show(self.progress);
    }
}

impl<T> Drop for Shown<T> {
    fn drop(&mut self) {
        self.bar.clear();
    }
}

impl<T: Read> Read for Shown<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.pass(read);
        Ok(read)
    }
}

impl<T: Write> Write for Shown<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.pass(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(super) fn print(value: &Value) -> io::Result<()> {
    write(&format!("{value:#}\n"))
}

pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

pub(crate) fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = rows
        .iter()
        .map(|(name, value)| format!("{name:width$}  {value}"));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// A count of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
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
