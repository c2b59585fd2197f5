//! The performance targets of prefd, and whether a run has met them.

use std::fmt::Write;

use super::data::Report;
use super::statistics::format_number;
use crate::contender::Contender;
use crate::phase_result::PhaseResult;
use crate::scenario::{DOCUMENTS, SMALL_VALUE_BYTES, VALUE_BYTES};

/// Size of two segments of the log, with their default length, in bytes.
const TWO_SEGMENTS_BYTES: f64 = 2.0 * 64.0 * 1024.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
/// Engines that sync each durable put.
const SYNCING: &[Contender] = &[
    Contender::Redb,
    Contender::Fjall,
    Contender::Lmdb,
    Contender::Sqlite,
];
/// All other storage engines.
const PEERS: &[Contender] = &[
    Contender::Sled,
    Contender::Redb,
    Contender::Fjall,
    Contender::Lmdb,
    Contender::Sqlite,
    Contender::Rocksdb,
];
/// Engines that prefd without its document cache is compared with.
const WITHOUT_CACHE: &[Contender] = &[
    Contender::Redb,
    Contender::Fjall,
    Contender::Sled,
    Contender::Rocksdb,
];

/// How a target is evaluated.
enum Criterion {
    /// prefd's throughput divided by the best throughput of these contenders is at least this
    /// ratio.
    Best(&'static [Contender], f64),
    /// Like `Best`, but the throughput of the other contenders is from the named phase.
    BestInPhase(&'static str, &'static [Contender], f64),
    /// A figure of prefd is at most this.
    Own(fn(&PhaseResult) -> f64, f64),
}

/// One target.
struct PerformanceTarget {
    /// The phase of prefd.
    phase: &'static str,
    /// The figure that is compared, as the table names it.
    figure: &'static str,
    criterion: Criterion,
}

const TARGETS: &[PerformanceTarget] = &[
    PerformanceTarget {
        phase: "durable put, 64 writers",
        figure: "prefd / RocksDB",
        criterion: Criterion::Best(&[Contender::Rocksdb], 1.2),
    },
    PerformanceTarget {
        phase: "durable put, 64 writers",
        figure: "prefd / best of redb, fjall, LMDB, SQLite",
        criterion: Criterion::Best(SYNCING, 5.0),
    },
    PerformanceTarget {
        phase: "durable put, 1 writer",
        figure: "prefd / bare append with fdatasync",
        criterion: Criterion::Best(&[Contender::Bare], 1.0 / 1.3),
    },
    PerformanceTarget {
        phase: "put without sync, a burst",
        figure: "prefd / best peer",
        criterion: Criterion::Best(PEERS, 1.0),
    },
    PerformanceTarget {
        phase: "put without sync, 2 M documents, 512 MiB of memory",
        figure: "prefd / best peer",
        criterion: Criterion::Best(PEERS, 1.0),
    },
    PerformanceTarget {
        phase: "get, hot, uniform",
        figure: "prefd / LMDB",
        criterion: Criterion::Best(&[Contender::Lmdb], 2.0),
    },
    PerformanceTarget {
        phase: "get, little cache, uniform",
        figure: "prefd without its document cache / best of redb, fjall, sled, RocksDB",
        criterion: Criterion::Best(WITHOUT_CACHE, 1.0),
    },
    PerformanceTarget {
        phase: "durable put, 10 MiB",
        figure: "prefd / bare write with fdatasync",
        criterion: Criterion::Best(&[Contender::Bare], 0.5),
    },
    PerformanceTarget {
        phase: "get, 10 MiB",
        figure: "prefd / bare read",
        criterion: Criterion::Best(&[Contender::Bare], 0.7),
    },
    PerformanceTarget {
        phase: "churn",
        figure: "disk space / (2 × live bytes + 2 segments)",
        criterion: Criterion::Own(
            |r| {
                let live = (DOCUMENTS as usize * VALUE_BYTES) as f64;
                r.disk_bytes as f64 / (2.0 * live + TWO_SEGMENTS_BYTES)
            },
            1.0,
        ),
    },
    PerformanceTarget {
        phase: "load of small documents",
        figure: "bytes of log/ per byte of a document",
        criterion: Criterion::Own(
            |r| {
                let log = r.folders.get("log").copied().unwrap_or(u64::MAX);
                log as f64 / (r.operations * SMALL_VALUE_BYTES as u64) as f64
            },
            1.4,
        ),
    },
    PerformanceTarget {
        phase: "open, to the first document, after SIGKILL",
        figure: "time / limit (0.6 s for 1 M documents, 5 s for 10 M)",
        criterion: Criterion::Own(open_time_ratio, 1.0),
    },
    PerformanceTarget {
        phase: "open, to the first document, after a clean close",
        figure: "time / limit (0.6 s for 1 M documents, 5 s for 10 M)",
        criterion: Criterion::Own(open_time_ratio, 1.0),
    },
    PerformanceTarget {
        phase: "open, gets, and the first listing, after SIGKILL",
        figure: "peak memory in MiB, including the catalogue (limit for 10 M documents)",
        criterion: Criterion::Own(|r| r.peak_bytes as f64 / MIB, 1.2 * 1024.0),
    },
    PerformanceTarget {
        phase: "open, gets, and the first listing, after a clean close",
        figure: "peak memory in MiB, including the catalogue (limit for 10 M documents)",
        criterion: Criterion::Own(|r| r.peak_bytes as f64 / MIB, 1.2 * 1024.0),
    },
    PerformanceTarget {
        phase: "HTTP GET 1 KiB, 32 connections, RS256",
        figure: "prefd / hyper's constant response (one worker each)",
        criterion: Criterion::Best(&[Contender::Hyper], 0.75),
    },
    PerformanceTarget {
        phase: "HTTP GET 1 KiB, 32 connections, RS256",
        figure: "prefd / nginx (one worker each)",
        criterion: Criterion::Best(&[Contender::Nginx], 1.0),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 1 KiB, 64 connections, ES256",
        figure: "prefd / best of redb, fjall, LMDB, SQLite (in process, 64 writers)",
        criterion: Criterion::BestInPhase("durable put, 64 writers", SYNCING, 4.0),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 1 KiB, 64 connections, ES256",
        figure: "prefd / RocksDB (in process, 64 writers)",
        criterion: Criterion::BestInPhase("durable put, 64 writers", &[Contender::Rocksdb], 0.7),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 10 MiB, 1 connection",
        figure: "prefd / bare write with fdatasync",
        criterion: Criterion::BestInPhase("durable put, 10 MiB", &[Contender::Bare], 0.4),
    },
    PerformanceTarget {
        phase: "HTTP GET 10 MiB, 4 connections",
        figure: "prefd / nginx",
        criterion: Criterion::Best(&[Contender::Nginx], 0.6),
    },
    PerformanceTarget {
        phase: "HTTP start, empty",
        figure: "time in ms",
        criterion: Criterion::Own(|r| r.seconds_per_operation() * 1e3, 20.0),
    },
    PerformanceTarget {
        phase: "HTTP start, empty",
        figure: "memory when idle, in MiB",
        criterion: Criterion::Own(|r| r.rss_bytes as f64 / MIB, 20.0),
    },
    PerformanceTarget {
        phase: "HTTP 16 PUTs of 100 MB at once",
        figure: "peak memory in MiB",
        criterion: Criterion::Own(|r| r.peak_bytes as f64 / MIB, 256.0),
    },
];

/// The ratio of the time to open a store to its limit, which depends on the number of
/// documents: 0.6 s for up to 1 M documents, otherwise 0.5 s for each million.
fn open_time_ratio(open: &PhaseResult) -> f64 {
    let millions = open.document_bytes as f64 / SMALL_VALUE_BYTES as f64 / 1e6;
    let limit = if millions > 1.0 { millions / 2.0 } else { 0.6 };
    open.seconds / limit
}

/// A target, and the figure that prefd reached.
struct TargetResult {
    found: f64,
    /// The limit, as the table shows it.
    limit: String,
    is_met: bool,
}

impl PerformanceTarget {
    /// Evaluates the target. Returns `None` if one of the figures was not measured.
    fn evaluate(&self, report: &Report) -> Option<TargetResult> {
        match self.criterion {
            Criterion::Best(contenders, min) => {
                self.compare_with_best(report, self.phase, contenders, min)
            }
            Criterion::BestInPhase(phase, contenders, min) => {
                self.compare_with_best(report, phase, contenders, min)
            }
            Criterion::Own(figure, max) => {
                let found = report.summary(Contender::Prefd, self.phase, figure)?.median;
                Some(TargetResult {
                    found,
                    limit: format!("≤ {}", format_number(max)),
                    is_met: found <= max,
                })
            }
        }
    }

    fn compare_with_best(
        &self,
        report: &Report,
        phase: &str,
        contenders: &[Contender],
        min: f64,
    ) -> Option<TargetResult> {
        let throughput = |contender: &Contender| report.median_throughput(*contender, phase);
        let best = contenders
            .iter()
            .filter_map(throughput)
            .max_by(f64::total_cmp)?;
        let ratio = report.median_throughput(Contender::Prefd, self.phase)? / best;
        Some(TargetResult {
            found: ratio,
            limit: format!("≥ {}", format_number(min)),
            is_met: ratio >= min,
        })
    }
}

/// Writes the table of all targets whose figures were measured.
pub(super) fn write_targets(report: &Report, text: &mut String) {
    let mut rows = String::new();
    for target in TARGETS {
        let Some(result) = target.evaluate(report) else {
            continue;
        };
        let _ = writeln!(
            rows,
            "| {} | {} | {} | {} | {} |",
            target.phase,
            target.figure,
            result.limit,
            format_number(result.found),
            if result.is_met { "yes" } else { "**no**" },
        );
    }
    if !rows.is_empty() {
        let _ = write!(
            text,
            "\n## Targets of prefd, from the medians of this run\n\n\
             | phase | figure | target | found | met |\n| --- | --- | ---: | ---: | --- |\n{rows}"
        );
    }
}
