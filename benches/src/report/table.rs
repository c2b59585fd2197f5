//! The tables, in Markdown.

use std::fmt::Write;

use super::{FigureSummary, Report, targets};
use crate::contender::Contender;
use crate::play::PhaseResult;

const MIB: f64 = 1024.0 * 1024.0;
/// What the names of phases begin with that servers play.
const HTTP: &str = "HTTP ";

/// A figure that a table shows for each phase and contender.
struct Metric {
    title: &'static str,
    of: fn(&PhaseResult) -> Option<f64>,
}

const METRICS: &[Metric] = &[
    Metric {
        title: "Operations a second: median (least, most)",
        of: |o| (!is_opening(o)).then(|| o.throughput()),
    },
    Metric {
        title: "Seconds to open a store and read its first document, or to start a server",
        of: |o| is_opening(o).then(|| o.seconds_each()),
    },
    Metric {
        title: "Latency, p50, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p50_us),
    },
    Metric {
        title: "Latency, p99, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p99_us),
    },
    Metric {
        title: "Latency, p99.9, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p999_us),
    },
    Metric {
        title: "Microseconds of the processor for each operation",
        of: |o| (!is_start(o)).then(|| o.cpu_seconds / o.operations.max(1) as f64 * 1e6),
    },
    Metric {
        title: "Bytes written for each byte of a document that was put",
        of: |o| {
            let written = o.written_bytes as f64 / o.document_bytes.max(1) as f64;
            (!is_opening(o) && !is_get(o)).then_some(written)
        },
    },
    Metric {
        title: "Resident memory at the end, in MiB",
        of: |o| Some(o.rss_bytes as f64 / MIB),
    },
    Metric {
        title: "Resident memory that is no page of a file, in MiB",
        of: |o| Some(o.anonymous_bytes as f64 / MIB),
    },
    Metric {
        title: "The most memory that was resident up to then, in MiB",
        of: |o| {
            o.phase
                .starts_with(HTTP)
                .then_some(o.peak_bytes as f64 / MIB)
        },
    },
    Metric {
        title: "Space on the disk at the end, in MiB",
        of: |o| Some(o.disk_bytes as f64 / MIB),
    },
];

fn is_opening(outcome: &PhaseResult) -> bool {
    outcome.phase.starts_with("open") || is_start(outcome)
}

/// Of a server, which is only measured once it is there.
fn is_start(outcome: &PhaseResult) -> bool {
    outcome.phase.starts_with("HTTP start")
}

fn is_get(outcome: &PhaseResult) -> bool {
    outcome.phase.starts_with("get") || outcome.phase.starts_with("HTTP GET")
}

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.metadata.machine;
    let _ = write!(
        text,
        "# The comparison\n\n{} ({} threads), {:.1} GiB of memory, Linux {}, {}. Rounds: {}, \
         interleaved.\n\n| contender | version | durable | without sync |\n\
         | --- | --- | --- | --- |\n",
        machine.processor,
        machine.cores,
        machine.memory_bytes as f64 / MIB / 1024.0,
        machine.kernel,
        machine.file_system,
        report.metadata.rounds,
    );
    for (contender, modes) in &report.metadata.contenders {
        let name = contender.name();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            modes.version, modes.durable, modes.plain
        );
    }
    if !report.failures.is_empty() {
        text.push_str("\n## What failed\n\n");
    }
    for failure in &report.failures {
        let (name, scenario) = (failure.contender.name(), failure.scenario);
        let _ = writeln!(
            text,
            "- {name}, {scenario:?}, round {}: {}",
            failure.round, failure.what
        );
    }
    targets::table(report, &mut text);
    syncs(report, &mut text);
    for (title, is_http) in [("Storage", false), ("HTTP", true)] {
        let mut tables = String::new();
        for figure in METRICS {
            table(report, figure, is_http, &mut tables);
        }
        if !tables.is_empty() {
            let _ = write!(text, "\n## {title}\n{tables}");
        }
    }
    text
}

/// A figure of the phases over HTTP, or of the others, and of those who have one.
fn table(report: &Report, figure: &Metric, is_http: bool, text: &mut String) {
    let shown: Vec<&PhaseResult> = report
        .outcomes
        .iter()
        .filter(|o| o.phase.starts_with(HTTP) == is_http && (figure.of)(o).is_some())
        .collect();
    if shown.is_empty() {
        return;
    }
    let mut contenders: Vec<Contender> = report.contenders().collect();
    contenders.retain(|contender| shown.iter().any(|o| o.contender == *contender));
    let names: Vec<&str> = contenders.iter().map(|c| c.name()).collect();
    let rule = " ---: |".repeat(names.len());
    let _ = writeln!(
        text,
        "\n### {}\n\n| | {} |\n| --- |{rule}",
        figure.title,
        names.join(" | ")
    );
    let mut phases = report.phases();
    phases.retain(|phase| shown.iter().any(|o| o.phase == *phase));
    for phase in phases {
        let _ = write!(text, "| {phase} ");
        for contender in &contenders {
            let of = |o: &PhaseResult| (figure.of)(o).unwrap_or_default();
            let cell = report
                .summary(*contender, phase, of)
                .map_or("–".into(), cell);
            let _ = write!(text, "| {cell} ");
        }
        text.push_str("|\n");
    }
}

fn syncs(report: &Report, text: &mut String) {
    if report.syncs.is_empty() {
        return;
    }
    text.push_str(
        "\n## Syncs for each acknowledged durable put, counted with strace\n\n\
         Calls of fsync, fdatasync and msync, and writes to a file opened with O_DSYNC. \
         sync_file_range is not counted: it does not wait for the disk's own cache.\n\n\
         | contender | phase | puts | syncs a put | calls |\n| --- | --- | ---: | ---: | --- |\n",
    );
    for counted in &report.syncs {
        let calls: Vec<String> = counted
            .calls
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.3} | {} |",
            counted.contender.name(),
            counted.phase,
            counted.puts,
            counted.for_each_put(),
            calls.join(", "),
        );
    }
}

fn cell(spread: FigureSummary) -> String {
    let FigureSummary { min, median, max } = spread;
    if min.total_cmp(&max).is_eq() {
        return number(median);
    }
    format!("{} ({}, {})", number(median), number(min), number(max))
}

/// Three digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
