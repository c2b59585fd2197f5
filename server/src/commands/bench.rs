//! `prefd bench`: measures the speed of the store on a disk, and the speed of a plain file on the
//! same disk for comparison. All files are created in a temporary directory, so no data directory
//! is changed.

mod document;
mod workload;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::console;
use crate::commands::error::CommandError;
use crate::io_error::io_error;
use crate::store::{BlockingStore, offline};
use workload::{Action, Measurement, Workload};

/// Options of `prefd bench`.
#[derive(Debug, Args)]
pub(super) struct BenchOptions {
    /// Directory on the disk to measure. The benchmark needs up to 2 GiB in a temporary directory
    /// prefd-bench-…, which is removed at the end. If prefd is killed, remove the temporary
    /// directory yourself
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Approximate duration of the measurement for each row of the result, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    seconds: Duration,
    /// Numbers of threads that write at the same time. The result has one row for each number
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,16,64"
    )]
    writers: Vec<NonZeroUsize>,
    /// Document sizes to measure, in bytes or with the suffix KiB or MiB, up to 10MiB. The result
    /// has two rows for each size: put and get
    #[arg(
        long,
        value_name = "SIZE",
        value_delimiter = ',',
        default_value = "100,1KiB,64KiB,1MiB,10MiB",
        value_parser = size
    )]
    sizes: Vec<usize>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Maximum size of a benchmark document, in bytes. The default limit for the length of one value is
/// also 10 MiB, so the store accepts every benchmark document.
const MAX_SIZE: usize = 10 * MIB;
/// Document size in bytes, in the rows that do not depend on `--sizes`.
const USUAL_BYTES: usize = KIB;
const MAX_SECONDS: f64 = 3600.0;

fn seconds(text: &str) -> Result<Duration, String> {
    let expected = format!("expected a number from 0.001 to {MAX_SECONDS}");
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=MAX_SECONDS).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(expected),
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
        .ok_or_else(|| format!("expected a size from {} to 10MiB", document::MIN_BYTES))
}

/// Runs all workloads, and prints a row for each.
pub(super) fn run(options: &BenchOptions) -> Result<(), CommandError> {
    let directory = tempfile::Builder::new()
        .prefix("prefd-bench-")
        .tempdir_in(&options.dir)
        .map_err(io_error("create a directory in", &options.dir))?;
    let outcome = measure(options, directory.path());
    let path = directory.path().to_owned();
    let removed = directory.close().map_err(io_error("remove", &path));
    // If both the measurement and the cleanup fail, the error of the measurement is reported.
    let rows = outcome?;
    removed?;
    if options.json {
        let rows: Vec<_> = rows.iter().map(row_json).collect();
        return console::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "dir": options.dir,
            "rows": rows,
        }));
    }
    console::print(&table(&rows))
}

type BenchRow = (Workload, Measurement);

fn measure(options: &BenchOptions, dir: &Path) -> Result<Vec<BenchRow>, CommandError> {
    let seconds = options.seconds;
    let mut rows = Vec::new();
    let bare = Workload::new("bare append + fdatasync", Action::Append, USUAL_BYTES, 1);
    rows.push((bare, workload::append(&dir.join("bare"), &bare, seconds)?));

    let data_dir = dir.join("data");
    let store = offline::open_for_bench(&data_dir, true)?;
    let mut run = |store: &BlockingStore, workload: Workload| -> Result<(), CommandError> {
        rows.push((workload, workload::run(store, &workload, seconds)?));
        Ok(())
    };
    let usual = |name, act, threads| Workload::new(name, act, USUAL_BYTES, threads);
    for writers in &options.writers {
        run(
            &store,
            usual("durable put", Action::DurablePut, writers.get()),
        )?;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    run(
        &store,
        usual("put without sync", Action::BufferedPut, cores),
    )?;
    run(
        &store,
        usual("get, in the document cache", Action::Get, cores),
    )?;
    for bytes in &options.sizes {
        run(
            &store,
            Workload::new("durable put", Action::DurablePut, *bytes, 1),
        )?;
    }
    store.close()?;
    drop(store);

    let store = offline::open_for_bench(&data_dir, false)?;
    run(
        &store,
        usual("get, past the document cache", Action::Get, cores),
    )?;
    for bytes in &options.sizes {
        let get = Workload::new("get, past the document cache", Action::Get, *bytes, 1);
        run(&store, get)?;
    }
    store.close()?;
    Ok(rows)
}

fn row_json((workload, measurement): &BenchRow) -> Value {
    json!({
        "what": workload.name,
        "bytes": workload.bytes,
        "threads": workload.threads,
        "operations": measurement.operations,
        "seconds": measurement.seconds,
        "per_second": measurement.per_second(),
        "p50_us": measurement.micros(0.5),
        "p99_us": measurement.micros(0.99),
        "p999_us": measurement.micros(0.999),
    })
}

fn table(rows: &[BenchRow]) -> String {
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
    for (workload, measurement) in rows {
        lines.push([
            workload.name.to_owned(),
            console::bytes(workload.bytes as u64),
            workload.threads.to_string(),
            format!("{:.0}", measurement.per_second()),
            format!("{:.1}", measurement.per_second() * workload.megabytes()),
            duration(measurement.micros(0.5)),
            duration(measurement.micros(0.99)),
            duration(measurement.micros(0.999)),
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
            // The first column, which names the row, is left-aligned. All other columns are
            // right-aligned.
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

/// Formats a number of microseconds as a duration in microseconds or milliseconds.
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
    fn size_is_a_number_with_an_optional_unit() {
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
    fn seconds_must_be_positive_and_finite() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
