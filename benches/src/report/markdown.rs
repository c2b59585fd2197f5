//! The report as Markdown tables.

use std::fmt::Write;

use super::data::Report;
use super::statistics::{FigureSummary, format_number};
use super::targets;
use crate::contender::Contender;
use crate::phase_result::PhaseResult;

const MIB: f64 = 1024.0 * 1024.0;
/// Prefix of the names of phases that servers run.
const HTTP: &str = "HTTP ";

/// A figure that one table shows for each phase and contender.
struct Metric {
    title: &'static str,
    /// The figure of a phase, or `None` if the table does not have the phase.
    figure: fn(&PhaseResult) -> Option<f64>,
}

const METRICS: &[Metric] = &[
    Metric {
        title: "Operations per second: median (minimum, maximum)",
        figure: |r| (!is_opening(r)).then(|| r.throughput()),
    },
    Metric {
        title: "Seconds to open a store and read the first document, or to start a server",
        figure: |r| is_opening(r).then(|| r.seconds_per_operation()),
    },
    Metric {
        title: "Latency in microseconds, p50",
        figure: |r| (!is_opening(r)).then_some(r.p50_us),
    },
    Metric {
        title: "Latency in microseconds, p99",
        figure: |r| (!is_opening(r)).then_some(r.p99_us),
    },
    Metric {
        title: "Latency in microseconds, p99.9",
        figure: |r| (!is_opening(r)).then_some(r.p999_us),
    },
    Metric {
        title: "Processor time per operation, in microseconds",
        figure: |r| (!is_start(r)).then(|| r.cpu_seconds / r.operations.max(1) as f64 * 1e6),
    },
    Metric {
        title: "Bytes written to the disk per byte of documents put",
        figure: |r| {
            let written = r.written_bytes as f64 / r.document_bytes.max(1) as f64;
            (!is_opening(r) && !is_get(r)).then_some(written)
        },
    },
    Metric {
        title: "Resident memory at the end of the phase, in MiB",
        figure: |r| Some(r.rss_bytes as f64 / MIB),
    },
    Metric {
        title: "Resident memory without file pages, in MiB",
        figure: |r| Some(r.anonymous_bytes as f64 / MIB),
    },
    Metric {
        title: "Peak resident memory since the start, in MiB",
        figure: |r| {
            r.phase
                .starts_with(HTTP)
                .then_some(r.peak_bytes as f64 / MIB)
        },
    },
    Metric {
        title: "Disk space at the end of the phase, in MiB",
        figure: |r| Some(r.disk_bytes as f64 / MIB),
    },
];

/// Whether the phase opens a store or starts a server.
fn is_opening(result: &PhaseResult) -> bool {
    result.phase.starts_with("open") || is_start(result)
}

/// Whether the phase starts servers. Processor time is not known for it, because the
/// measurement begins after the start.
fn is_start(result: &PhaseResult) -> bool {
    result.phase.starts_with("HTTP start")
}

/// Whether the phase only reads.
fn is_get(result: &PhaseResult) -> bool {
    result.phase.starts_with("get") || result.phase.starts_with("HTTP GET")
}

/// Formats the whole report.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.metadata.machine;
    let _ = write!(
        text,
        "# Comparison\n\n{} ({} threads), {:.1} GiB of memory, Linux {}, {}. Rounds: {}, \
         interleaved.\n\n| contender | version | durable | without sync |\n\
         | --- | --- | --- | --- |\n",
        machine.processor,
        machine.cores,
        machine.memory_bytes as f64 / MIB / 1024.0,
        machine.kernel,
        machine.file_system,
        report.metadata.rounds,
    );
    for (contender, info) in &report.metadata.contenders {
        let name = contender.name();
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            info.version, info.durable, info.plain
        );
    }
    if !report.failures.is_empty() {
        text.push_str("\n## Failed runs\n\n");
    }
    for failure in &report.failures {
        let (name, scenario) = (failure.contender.name(), failure.scenario);
        let _ = writeln!(
            text,
            "- {name}, {scenario:?}, round {}: {}",
            failure.round, failure.error
        );
    }
    targets::write_targets(report, &mut text);
    write_syncs(report, &mut text);
    for (title, is_http) in [("Storage", false), ("HTTP", true)] {
        let mut tables = String::new();
        for metric in METRICS {
            write_table(report, metric, is_http, &mut tables);
        }
        if !tables.is_empty() {
            let _ = write!(text, "\n## {title}\n{tables}");
        }
    }
    text
}

/// Writes the table of a metric, for either the phases over HTTP or all other phases.
/// Phases and contenders without a figure are left out.
fn write_table(report: &Report, metric: &Metric, is_http: bool, text: &mut String) {
    let shown: Vec<&PhaseResult> = report
        .results
        .iter()
        .filter(|r| r.phase.starts_with(HTTP) == is_http && (metric.figure)(r).is_some())
        .collect();
    if shown.is_empty() {
        return;
    }
    let mut contenders: Vec<Contender> = report.contenders().collect();
    contenders.retain(|contender| shown.iter().any(|r| r.contender == *contender));
    let names: Vec<&str> = contenders.iter().map(|c| c.name()).collect();
    let rule = " ---: |".repeat(names.len());
    let _ = writeln!(
        text,
        "\n### {}\n\n| | {} |\n| --- |{rule}",
        metric.title,
        names.join(" | ")
    );
    let mut phases = report.phases();
    phases.retain(|phase| shown.iter().any(|r| r.phase == *phase));
    for phase in phases {
        let _ = write!(text, "| {phase} ");
        for contender in &contenders {
            let figure = |r: &PhaseResult| (metric.figure)(r).unwrap_or_default();
            let cell = report
                .summary(*contender, phase, figure)
                .map_or("–".into(), format_summary);
            let _ = write!(text, "| {cell} ");
        }
        text.push_str("|\n");
    }
}

/// Writes the number of syncs per durable put.
fn write_syncs(report: &Report, text: &mut String) {
    if report.syncs.is_empty() {
        return;
    }
    text.push_str(
        "\n## Syncs per acknowledged durable put, counted with strace\n\n\
         The sum of the calls of fsync, fdatasync and msync, and the writes to files \
         opened with O_DSYNC. Calls of sync_file_range are not included, because they do not \
         flush the disk's own cache.\n\n\
         | contender | phase | puts | syncs per put | calls |\n| --- | --- | ---: | ---: | --- |\n",
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
            counted.per_put(),
            calls.join(", "),
        );
    }
}

fn format_summary(summary: FigureSummary) -> String {
    let FigureSummary { min, median, max } = summary;
    if min.total_cmp(&max).is_eq() {
        return format_number(median);
    }
    format!(
        "{} ({}, {})",
        format_number(median),
        format_number(min),
        format_number(max)
    )
}
