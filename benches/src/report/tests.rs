//! Tests of the tables and of the JSON lines.

use std::collections::BTreeMap;
use std::path::Path;

use clap::ValueEnum;

use super::*;
use crate::contender::Contender;
use crate::machine::Machine;
use crate::phase_result::PhaseResult;
use crate::plan::ComparisonPlan;
use crate::scenario::{Scenario, WorkloadSize};

fn result(contender: Contender, phase: &str, operations: u64) -> PhaseResult {
    PhaseResult {
        contender,
        phase: phase.to_owned(),
        round: 0,
        operations,
        seconds: 1.0,
        document_bytes: operations * 1024,
        p50_us: 1.0,
        p99_us: 2.0,
        p999_us: 3.0,
        cpu_seconds: 0.5,
        written_bytes: operations * 2048,
        rss_bytes: 1 << 20,
        anonymous_bytes: 1 << 19,
        peak_bytes: 1 << 21,
        disk_bytes: 1 << 20,
        folders: BTreeMap::new(),
    }
}

fn report() -> Report {
    let plan = ComparisonPlan {
        contenders: Contender::value_variants().to_vec(),
        scenarios: vec![Scenario::Durable, Scenario::Http],
        size: WorkloadSize::TINY,
        rounds: 1,
        dir: ".".into(),
        prefd: None,
    };
    let machine = Machine::current(Path::new(".")).unwrap();
    let mut report = Report::new(machine, &plan);
    let http = "HTTP durable PUT 1 KiB, 64 connections, ES256";
    report.results = vec![
        result(Contender::Prefd, "durable put, 64 writers", 90),
        result(Contender::Lmdb, "durable put, 64 writers", 10),
        result(Contender::Redb, "durable put, 64 writers", 12),
        result(Contender::Prefd, http, 60),
        result(Contender::Webdis, http, 50),
    ];
    report
}

#[test]
fn tables_have_columns_only_for_contenders_with_figures() {
    let markdown = markdown(&report());
    let (_, tables) = markdown.split_once("\n## Storage\n").unwrap();
    let (storage, http) = tables.split_once("\n## HTTP\n").unwrap();
    assert!(storage.contains("| prefd | redb | LMDB |"), "{storage}");
    assert!(http.contains("| prefd | webdis, Redis |"), "{http}");
    assert!(!storage.contains("HTTP"), "{storage}");
}

#[test]
fn target_can_compare_with_another_phase() {
    let markdown = markdown(&report());
    let row = "prefd / best of redb, fjall, LMDB, SQLite (in process, 64 writers) \
               | ≥ 4.00 | 5.00 | yes |";
    assert!(markdown.contains(row), "{markdown}");
}

#[test]
fn written_report_reads_back_equal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("comparison.jsonl");
    let report = report();
    report.write(&path).unwrap();
    let read = Report::read(&path).unwrap();
    assert_eq!(markdown(&read), markdown(&report));
}
