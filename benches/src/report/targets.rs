//! What prefd is to reach beside the others, and what it reached in this run.

use std::fmt::Write;

use super::Report;
use super::table::number;
use crate::contender::Contender;
use crate::play::PhaseResult;
use crate::scenario::{DOCUMENTS, SMALL_VALUE_BYTES, VALUE_BYTES};

/// Two segments of the log, of the default length.
const TWO_SEGMENTS: f64 = 2.0 * 64.0 * 1024.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
const SYNCING: &[Contender] = &[
    Contender::Redb,
    Contender::Fjall,
    Contender::Lmdb,
    Contender::Sqlite,
];
const PEERS: &[Contender] = &[
    Contender::Sled,
    Contender::Redb,
    Contender::Fjall,
    Contender::Lmdb,
    Contender::Sqlite,
    Contender::Rocksdb,
];
const WITHOUT_CACHE: &[Contender] = &[
    Contender::Redb,
    Contender::Fjall,
    Contender::Sled,
    Contender::Rocksdb,
];

/// What is compared with what.
enum Criterion {
    /// prefd's throughput, for the best of these: at least so many times that.
    Best(&'static [Contender], f64),
    /// The same beside what they do in another phase.
    BestAt(&'static str, &'static [Contender], f64),
    /// A figure of prefd's own: at most so much.
    Own(fn(&PhaseResult) -> f64, f64),
}

struct PerformanceTarget {
    phase: &'static str,
    what: &'static str,
    criterion: Criterion,
}

const TARGETS: &[PerformanceTarget] = &[
    PerformanceTarget {
        phase: "durable put, 64 writers",
        what: "times RocksDB",
        criterion: Criterion::Best(&[Contender::Rocksdb], 1.2),
    },
    PerformanceTarget {
        phase: "durable put, 64 writers",
        what: "times the best of redb, fjall, LMDB, SQLite",
        criterion: Criterion::Best(SYNCING, 5.0),
    },
    PerformanceTarget {
        phase: "durable put, 1 writer",
        what: "of a bare append and fdatasync",
        criterion: Criterion::Best(&[Contender::Bare], 1.0 / 1.3),
    },
    PerformanceTarget {
        phase: "put without sync, a burst",
        what: "times the best peer",
        criterion: Criterion::Best(PEERS, 1.0),
    },
    PerformanceTarget {
        phase: "put without sync, 2 M documents, 512 MiB of memory",
        what: "times the best peer",
        criterion: Criterion::Best(PEERS, 1.0),
    },
    PerformanceTarget {
        phase: "get, hot, uniform",
        what: "times LMDB",
        criterion: Criterion::Best(&[Contender::Lmdb], 2.0),
    },
    PerformanceTarget {
        phase: "get, little cache, uniform",
        what: "times the best of redb, fjall, sled, RocksDB; prefd without its cache",
        criterion: Criterion::Best(WITHOUT_CACHE, 1.0),
    },
    PerformanceTarget {
        phase: "durable put, 10 MiB",
        what: "of a bare write and fdatasync",
        criterion: Criterion::Best(&[Contender::Bare], 0.5),
    },
    PerformanceTarget {
        phase: "get, 10 MiB",
        what: "of a bare read",
        criterion: Criterion::Best(&[Contender::Bare], 0.7),
    },
    PerformanceTarget {
        phase: "churn",
        what: "of twice what is live, and two segments, on the disk",
        criterion: Criterion::Own(
            |o| {
                let live = (DOCUMENTS as usize * VALUE_BYTES) as f64;
                o.disk_bytes as f64 / (2.0 * live + TWO_SEGMENTS)
            },
            1.0,
        ),
    },
    PerformanceTarget {
        phase: "load of small documents",
        what: "bytes of log/ for each byte of a document",
        criterion: Criterion::Own(
            |o| {
                let log = o.folders.get("log").copied().unwrap_or(u64::MAX);
                log as f64 / (o.operations * SMALL_VALUE_BYTES as u64) as f64
            },
            1.4,
        ),
    },
    PerformanceTarget {
        phase: "open, to the first document, after SIGKILL",
        what: "of the time allowed: 0.6 s for 1 M documents, 5 s for 10 M",
        criterion: Criterion::Own(of_time_allowed, 1.0),
    },
    PerformanceTarget {
        phase: "open, to the first document, after a clean close",
        what: "of the time allowed: 0.6 s for 1 M documents, 5 s for 10 M",
        criterion: Criterion::Own(of_time_allowed, 1.0),
    },
    PerformanceTarget {
        phase: "open, gets, and the first listing, after SIGKILL",
        what: "MiB of memory, at most, the catalogue included (of 10 M documents)",
        criterion: Criterion::Own(|o| o.peak_bytes as f64 / MIB, 1.2 * 1024.0),
    },
    PerformanceTarget {
        phase: "open, gets, and the first listing, after a clean close",
        what: "MiB of memory, at most, the catalogue included (of 10 M documents)",
        criterion: Criterion::Own(|o| o.peak_bytes as f64 / MIB, 1.2 * 1024.0),
    },
    PerformanceTarget {
        phase: "HTTP GET 1 KiB, 32 connections, RS256",
        what: "of hyper's constant answer; one worker each",
        criterion: Criterion::Best(&[Contender::Hyper], 0.75),
    },
    PerformanceTarget {
        phase: "HTTP GET 1 KiB, 32 connections, RS256",
        what: "times nginx; one worker each",
        criterion: Criterion::Best(&[Contender::Nginx], 1.0),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 1 KiB, 64 connections, ES256",
        what: "times the best of redb, fjall, LMDB, SQLite by 64 writers",
        criterion: Criterion::BestAt("durable put, 64 writers", SYNCING, 4.0),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 1 KiB, 64 connections, ES256",
        what: "of RocksDB by 64 writers",
        criterion: Criterion::BestAt("durable put, 64 writers", &[Contender::Rocksdb], 0.7),
    },
    PerformanceTarget {
        phase: "HTTP durable PUT 10 MiB, 1 connection",
        what: "of a bare write and fdatasync",
        criterion: Criterion::BestAt("durable put, 10 MiB", &[Contender::Bare], 0.4),
    },
    PerformanceTarget {
        phase: "HTTP GET 10 MiB, 4 connections",
        what: "of nginx",
        criterion: Criterion::Best(&[Contender::Nginx], 0.6),
    },
    PerformanceTarget {
        phase: "HTTP start, empty",
        what: "milliseconds",
        criterion: Criterion::Own(|o| o.seconds_each() * 1e3, 20.0),
    },
    PerformanceTarget {
        phase: "HTTP start, empty",
        what: "MiB of memory, idle",
        criterion: Criterion::Own(|o| o.rss_bytes as f64 / MIB, 20.0),
    },
    PerformanceTarget {
        phase: "HTTP 16 PUTs of 100 MB at once",
        what: "MiB of memory, at most",
        criterion: Criterion::Own(|o| o.peak_bytes as f64 / MIB, 256.0),
    },
];

fn of_time_allowed(open: &PhaseResult) -> f64 {
    let millions = open.document_bytes as f64 / SMALL_VALUE_BYTES as f64 / 1e6;
    open.seconds / if millions > 1.0 { millions / 2.0 } else { 0.6 }
}

/// The table, as far as what it compares was measured.
pub(super) fn table(report: &Report, text: &mut String) {
    let mut rows = String::new();
    for target in TARGETS {
        let Some((found, bound, met)) = held(report, target) else {
            continue;
        };
        let _ = writeln!(
            rows,
            "| {} | {} | {bound} | {} | {} |",
            target.phase,
            target.what,
            number(found),
            if met { "yes" } else { "**no**" },
        );
    }
    if !rows.is_empty() {
        let _ = write!(
            text,
            "\n## Targets of prefd, from medians of this run\n\n\
             | phase | figure | target | found | met |\n| --- | --- | ---: | ---: | --- |\n{rows}"
        );
    }
}

fn best(
    report: &Report,
    target: &PerformanceTarget,
    phase: &str,
    contenders: &[Contender],
    least: f64,
) -> Option<(f64, String, bool)> {
    let of = |contender: &Contender| report.throughput(*contender, phase);
    let best = contenders.iter().filter_map(of).max_by(f64::total_cmp)?;
    let ratio = report.throughput(Contender::Prefd, target.phase)? / best;
    Some((ratio, format!("≥ {}", number(least)), ratio >= least))
}

fn held(report: &Report, target: &PerformanceTarget) -> Option<(f64, String, bool)> {
    match target.criterion {
        Criterion::Best(contenders, least) => best(report, target, target.phase, contenders, least),
        Criterion::BestAt(phase, contenders, least) => {
            best(report, target, phase, contenders, least)
        }
        Criterion::Own(figure, most) => {
            let found = report
                .summary(Contender::Prefd, target.phase, figure)?
                .median;
            Some((found, format!("≤ {}", number(most)), found <= most))
        }
    }
}
