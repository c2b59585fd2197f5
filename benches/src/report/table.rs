//! The tables, in Markdown.

use std::fmt::Write;

use super::{Report, Spread, targets};
use crate::play::Outcome;
use crate::stores::Engine;

const MIB: f64 = 1024.0 * 1024.0;

/// A figure that a table shows for each phase and engine.
struct Figure {
    title: &'static str,
    of: fn(&Outcome) -> Option<f64>,
}

const FIGURES: &[Figure] = &[
    Figure {
        title: "Operations a second: median (least, most)",
        of: |o| (!is_opening(o)).then(|| o.throughput()),
    },
    Figure {
        title: "Seconds to open a store and read its first document",
        of: |o| is_opening(o).then_some(o.seconds),
    },
    Figure {
        title: "Latency, p50, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p50_us),
    },
    Figure {
        title: "Latency, p99, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p99_us),
    },
    Figure {
        title: "Latency, p99.9, in microseconds",
        of: |o| (!is_opening(o)).then_some(o.p999_us),
    },
    Figure {
        title: "Microseconds of the processor for each operation",
        of: |o| Some(o.cpu_seconds / o.operations.max(1) as f64 * 1e6),
    },
    Figure {
        title: "Bytes written for each byte of a document that was put",
        of: |o| {
            let written = o.written_bytes as f64 / o.document_bytes.max(1) as f64;
            (!is_opening(o) && !o.phase.starts_with("get")).then_some(written)
        },
    },
    Figure {
        title: "Resident memory at the end, in MiB",
        of: |o| Some(o.rss_bytes as f64 / MIB),
    },
    Figure {
        title: "Resident memory that is no page of a file, in MiB",
        of: |o| Some(o.anonymous_bytes as f64 / MIB),
    },
    Figure {
        title: "Space on the disk at the end, in MiB",
        of: |o| Some(o.disk_bytes as f64 / MIB),
    },
];

fn is_opening(outcome: &Outcome) -> bool {
    outcome.phase.starts_with("open")
}

/// The whole report.
pub fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.setting.machine;
    let _ = write!(
        text,
        "# Storage engines\n\n{} ({} threads), {:.1} GiB of memory, Linux {}, {}. Rounds: {}, \
         interleaved.\n\n| engine | version | durable | without sync |\n\
         | --- | --- | --- | --- |\n",
        machine.processor,
        machine.cores,
        machine.memory_bytes as f64 / MIB / 1024.0,
        machine.kernel,
        machine.file_system,
        report.setting.rounds,
    );
    for (engine, modes) in &report.setting.engines {
        let name = engine.name();
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
        let (name, topic) = (failure.engine.name(), failure.topic);
        let _ = writeln!(
            text,
            "- {name}, {topic:?}, round {}: {}",
            failure.round, failure.what
        );
    }
    targets::table(report, &mut text);
    syncs(report, &mut text);
    for figure in FIGURES {
        table(report, figure, &mut text);
    }
    text
}

fn header(report: &Report, text: &mut String) {
    let names: Vec<&str> = report.engines().map(Engine::name).collect();
    let rule = " ---: |".repeat(names.len());
    let _ = writeln!(text, "| | {} |\n| --- |{rule}", names.join(" | "));
}

fn table(report: &Report, figure: &Figure, text: &mut String) {
    let shows = |phase: &str| {
        let mut of_phase = report.outcomes.iter().filter(|o| o.phase == phase);
        of_phase.any(|outcome| (figure.of)(outcome).is_some())
    };
    let phases: Vec<&str> = report.phases().into_iter().filter(|p| shows(p)).collect();
    if phases.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n## {}\n", figure.title);
    header(report, text);
    for phase in phases {
        let _ = write!(text, "| {phase} ");
        for engine in report.engines() {
            let of = |o: &Outcome| (figure.of)(o).unwrap_or_default();
            let cell = report.spread(engine, phase, of).map_or("–".into(), cell);
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
         | engine | phase | puts | syncs a put | calls |\n| --- | --- | ---: | ---: | --- |\n",
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
            counted.engine.name(),
            counted.phase,
            counted.puts,
            counted.for_each_put(),
            calls.join(", "),
        );
    }
}

fn cell(spread: Spread) -> String {
    let Spread { min, median, max } = spread;
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
        _ => format!("{value:.2}"),
    }
}
