//! What commands show: their progress on a terminal, and what they found, for people or as
//! JSON.

use std::io::{self, IsTerminal, Write};

use prefd_engine::Progress;
use serde_json::Value;

/// How far a command has come, on a terminal and nowhere else.
pub(crate) struct Bar {
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

    pub(crate) fn show(&mut self, progress: Progress) {
        let percent = progress.done_bytes.saturating_mul(100) / progress.total_bytes.max(1);
        if self.is_terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            let total = bytes(progress.total_bytes);
            // Nobody is served by a command that stops because its progress is not shown.
            let _ = write!(io::stderr(), "\r{} {percent:3} % of {total} ", self.what);
        }
    }

    pub(crate) fn clear(&self) {
        if self.shown.is_some() {
            // To the start of the line, and erase it (ECMA-48, EL).
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

pub(crate) fn print(value: &Value) -> io::Result<()> {
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
