//! `prefd bench`: what the engine gives on an operator's own disk, beside what the disk
//! gives by itself. In a folder of its own, so that no store is ever touched.

mod document;
mod error;
mod phase;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::console;
use crate::store::{Bulk, offline};
use error::BenchError;
use phase::{Act, Figures, Phase};

/// What is to be measured, and where.
#[derive(Debug, Args)]
pub(super) struct BenchOptions {
    /// A directory on the disk that is to be measured. A temporary folder is made in it
    /// (prefd-bench-…), takes up to 2 GiB, and is removed at the end; it is left behind
    /// where this process is killed
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Seconds that each row takes, roughly
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// Numbers of threads that put at once
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,16,64"
    )]
    writers: Vec<NonZeroUsize>,
    /// Lengths of documents, in bytes or with KiB or MiB behind them, up to 10 MiB
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "100,1KiB,64KiB,1MiB,10MiB",
        value_parser = size
    )]
    sizes: Vec<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Of one value, and so of the largest document that has but one.
const MAX_SIZE: usize = 10 * MIB;
/// The document that writers are counted with.
const USUAL_BYTES: usize = KIB;
const MAX_SECONDS: f64 = 3600.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = format!("between 0.001 and {MAX_SECONDS} is wanted");
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(wanted),
    }
}

fn size(text: &str) -> Result<usize, String> {
    let units = [("KiB", KIB), ("MiB", MIB), ("B", 1), ("", 1)];
    let bytes = units.iter().find_map(|(unit, bytes)| {
        let count: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        count.checked_mul(*bytes)
    });
    bytes
        .filter(|bytes| (document::MIN_BYTES..=MAX_SIZE).contains(bytes))
        .ok_or_else(|| format!("between {} bytes and 10MiB is wanted", document::MIN_BYTES))
}

/// Measures everything, and prints it.
pub(crate) fn run(options: &BenchOptions) -> Result<(), BenchError> {
    let at = |op, path: &Path| {
        let path = path.to_owned();
        move |source| BenchError::Io { op, path, source }
    };
    let folder = tempfile::Builder::new()
        .prefix("prefd-bench-")
        .tempdir_in(&options.dir)
        .map_err(at("make a folder in", &options.dir))?;
    let outcome = measure(options, folder.path());
    let path = folder.path().to_owned();
    // What failed first is what is told.
    let removed = folder.close().map_err(at("remove", &path));
    let rows = outcome?;
    removed?;
    if options.json {
        let rows: Vec<_> = rows.iter().map(row_json).collect();
        let report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "dir": options.dir,
            "rows": rows,
        });
        Ok(console::print(&report)?)
    } else {
        Ok(console::write(&table(&rows))?)
    }
}

type Row = (Phase, Figures);

fn measure(options: &BenchOptions, dir: &Path) -> Result<Vec<Row>, BenchError> {
    let seconds = options.seconds;
    let mut rows = Vec::new();
    let bare = Phase::new("bare append + fdatasync", Act::Append, USUAL_BYTES, 1);
    rows.push((bare, phase::append(&dir.join("bare"), &bare, seconds)?));

    let data_dir = dir.join("data");
    let store = offline::open_to_measure(&data_dir, true)?;
    let mut play = |store: &Bulk, phase: Phase| -> Result<(), BenchError> {
        rows.push((phase, phase::run(store, &phase, seconds)?));
        Ok(())
    };
    let usual = |name, act, threads| Phase::new(name, act, USUAL_BYTES, threads);
    for writers in &options.writers {
        play(&store, usual("durable put", Act::DurablePut, writers.get()))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    play(&store, usual("put without sync", Act::PlainPut, cores))?;
    play(&store, usual("get, in the document cache", Act::Get, cores))?;
    for bytes in &options.sizes {
        play(
            &store,
            Phase::new("durable put", Act::DurablePut, *bytes, 1),
        )?;
    }
    store.close()?;
    drop(store);

    let store = offline::open_to_measure(&data_dir, false)?;
    play(
        &store,
        usual("get, past the document cache", Act::Get, cores),
    )?;
    for bytes in &options.sizes {
        let get = Phase::new("get, past the document cache", Act::Get, *bytes, 1);
        play(&store, get)?;
    }
    store.close()?;
    Ok(rows)
}

fn row_json((phase, figures): &Row) -> Value {
    json!({
        "what": phase.name,
        "bytes": phase.bytes,
        "threads": phase.threads,
        "operations": figures.operations,
        "seconds": figures.seconds,
        "per_second": figures.per_second(),
        "p50_us": figures.micros(0.5),
        "p99_us": figures.micros(0.99),
        "p999_us": figures.micros(0.999),
    })
}

fn table(rows: &[Row]) -> String {
    let head = [
        "",
        "size",
        "threads",
        "per second",
        "MB/s",
        "p50",
        "p99",
        "p99.9",
    ];
    let mut lines = vec![head.map(str::to_owned)];
    for (phase, figures) in rows {
        lines.push([
            phase.name.to_owned(),
            console::bytes(phase.bytes as u64),
            phase.threads.to_string(),
            format!("{:.0}", figures.per_second()),
            format!("{:.1}", figures.per_second() * phase.megabytes()),
            duration(figures.micros(0.5)),
            duration(figures.micros(0.99)),
            duration(figures.micros(0.999)),
        ]);
    }
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|l| l.get(column))
            .map(String::len)
            .max()
    };
    let widths: Vec<usize> = (0..head.len()).map(|c| width(c).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // The first one says what the others are of.
            let cell = match column {
                0 => format!("{cell:width$}"),
                _ => format!("  {cell:>width$}"),
            };
            text.push_str(&cell);
        }
        text.push('\n');
    }
    text
}

/// Microseconds for people.
fn duration(micros: f64) -> String {
    if micros < 1000.0 {
        format!("{micros:.1} us")
    } else {
        format!("{:.1} ms", micros / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        assert_eq!(size("100"), Ok(100));
        assert_eq!(size("100B"), Ok(100));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("10 MiB"), Ok(10_485_760));
        for wrong in [
            "",
            "KiB",
            "1KB",
            "-1",
            "11MiB",
            "1",
            "99999999999999999999MiB",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_are_more_than_none() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
