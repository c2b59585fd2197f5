//! The plots, in SVG. Each phase is a group of bars, one for each contender. The colours are
//! readable on light and on dark backgrounds.

use std::fmt::Write;

use super::data::Report;
use super::statistics::format_number;
use crate::contender::Contender;

// Lengths in pixels.
const WIDTH: f64 = 760.0;
/// Width of the contenders' names.
const LABEL: f64 = 185.0;
/// Width of the numbers to the right of the bars.
const FIGURE: f64 = 80.0;
/// Height of a bar.
const BAR: f64 = 16.0;
/// Distance between bars.
const GAP: f64 = 4.0;
/// Height of a phase's title.
const TITLE: f64 = 30.0;

/// The file name and the phases of each plot.
const PLOTS: &[(&str, &[&str])] = &[
    (
        "durable.svg",
        &[
            "durable put, 1 writer",
            "durable put, 16 writers",
            "durable put, 64 writers",
        ],
    ),
    (
        "plain.svg",
        &[
            "put without sync, a burst",
            "put without sync, 2 M documents, 512 MiB of memory",
            "churn",
        ],
    ),
    (
        "reads.svg",
        &[
            "get, hot, uniform",
            "get, little cache, uniform",
            "get, from the disk, uniform",
        ],
    ),
    ("large.svg", &["durable put, 10 MiB", "get, 10 MiB"]),
    (
        "http.svg",
        &[
            "HTTP GET 1 KiB, 32 connections, RS256",
            "HTTP GET 1 KiB, 32 connections, 10,000 namespaces, ES256",
            "HTTP durable PUT 1 KiB, 1 connection, ES256",
            "HTTP durable PUT 1 KiB, 64 connections, ES256",
            "HTTP durable PUT 10 MiB, 1 connection",
            "HTTP GET 10 MiB, 4 connections",
        ],
    ),
];

/// Draws the plots. Returns the file name and the SVG of each plot that has figures for
/// prefd.
pub fn plots(report: &Report) -> Vec<(&'static str, String)> {
    let has_figure = |phase: &&&str| report.median_throughput(Contender::Prefd, phase).is_some();
    PLOTS
        .iter()
        .map(|(name, phases)| (*name, phases.iter().filter(has_figure).collect::<Vec<_>>()))
        .filter(|(_, phases)| !phases.is_empty())
        .map(|(name, phases)| (name, draw_plot(report, &phases)))
        .collect()
}

fn draw_plot(report: &Report, phases: &[&&str]) -> String {
    let mut body = String::new();
    let mut y = 0.0;
    for phase in phases {
        let _ = writeln!(
            body,
            "<text x=\"0\" y=\"{:.0}\" class=\"title\">{phase}: operations per second</text>",
            y + TITLE - 10.0
        );
        y += TITLE;
        let figures: Vec<(Contender, f64)> = report
            .contenders()
            .filter_map(|contender| Some((contender, report.median_throughput(contender, phase)?)))
            .collect();
        let max = figures.iter().map(|(_, f)| *f).fold(1.0, f64::max);
        for (contender, figure) in figures {
            draw_bar(contender, figure, max, y, &mut body);
            y += BAR + GAP;
        }
        y += GAP * 2.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y:.0}\" \
         width=\"{WIDTH}\" height=\"{y:.0}\" role=\"img\">\n\
         <style>text{{font:13px sans-serif;fill:#808080}}.title{{font-weight:bold}}\
         .prefd{{fill:#d9541e}}.bare{{fill:#b0b0b0}}.peer{{fill:#4a7fb5}}</style>\n{body}</svg>\n"
    )
}

fn draw_bar(contender: Contender, figure: f64, max: f64, y: f64, body: &mut String) {
    let width = (WIDTH - LABEL - FIGURE) * figure / max;
    let class = match contender {
        Contender::Prefd => "prefd",
        Contender::Bare | Contender::Hyper => "bare",
        _ => "peer",
    };
    let base = y + BAR - 4.0;
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{base:.0}\" text-anchor=\"end\">{}</text>\
         <rect x=\"{LABEL}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR}\" class=\"{class}\"/>\
         <text x=\"{:.0}\" y=\"{base:.0}\">{}</text>",
        LABEL - 6.0,
        contender.name(),
        LABEL + width + 6.0,
        format_number(figure),
    );
}
