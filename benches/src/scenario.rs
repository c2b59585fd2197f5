//! The scenarios, their sizes and their constants.
//!
//! One process runs one scenario with one contender, beginning with an empty folder. A
//! scenario consists of phases, and each phase is measured by itself.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a contender is measured at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Durable puts of 1 KiB to 10,000 documents, by 1, 16 and 64 threads.
    Durable,
    /// A burst of puts without sync, then gets of these documents: from large caches, from
    /// small caches and from the disk. Last, a mix of gets and durable puts.
    Reads,
    /// 10,000 documents, each replaced many times, and the disk space in use afterwards.
    Churn,
    /// Durable puts and gets of documents from 100 B to 10 MiB.
    Sizes,
    /// Many distinct documents, put without sync with little memory.
    Bulk,
    /// Many small documents: memory, disk space, and the time to open the store again.
    Scale,
    /// Servers over loopback: gets and durable puts of 1 KiB and 10 MiB. For prefd also the
    /// time to start, and many large puts at once.
    Http,
}

/// Durations and document counts of the scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSize {
    /// Duration of a phase that has no fixed number of operations, in seconds.
    pub phase_seconds: f64,
    /// Number of documents in [`Scenario::Reads`].
    pub read_documents: u64,
    /// How often [`Scenario::Churn`] replaces each document.
    pub churn_rounds: u64,
    /// Number of documents in [`Scenario::Bulk`].
    pub bulk_documents: u64,
    /// Number of documents in [`Scenario::Scale`].
    pub scale_documents: u64,
    /// Duration of a phase of [`Scenario::Http`]. wrk accepts whole seconds only.
    pub http_seconds: u64,
    /// Size of each value in the large puts of [`Scenario::Http`], in bytes.
    pub upload_value_bytes: usize,
    /// Whether only durable puts run. This is for counting their syncs.
    pub puts_only: bool,
    /// Whether long phases that add little information are left out.
    pub short: bool,
}

impl WorkloadSize {
    /// Every phase, long enough to compare the figures.
    pub const FULL: Self = Self {
        phase_seconds: 2.0,
        read_documents: 200_000,
        churn_rounds: 20,
        bulk_documents: 2_000_000,
        scale_documents: 1_000_000,
        http_seconds: 4,
        upload_value_bytes: 10_000_000,
        puts_only: false,
        short: false,
    };
    /// The comparison with this size finishes in under three minutes.
    pub const SHORT: Self = Self {
        phase_seconds: 1.0,
        read_documents: 100_000,
        churn_rounds: 5,
        bulk_documents: 200_000,
        scale_documents: 100_000,
        http_seconds: 1,
        upload_value_bytes: 10_000_000,
        puts_only: false,
        short: true,
    };
    /// Every phase, but too short to measure anything. This is for tests.
    pub const TINY: Self = Self {
        phase_seconds: 0.02,
        read_documents: 200,
        churn_rounds: 2,
        bulk_documents: 500,
        scale_documents: 500,
        http_seconds: 1,
        upload_value_bytes: 100_000,
        puts_only: false,
        short: false,
    };
}

/// Size of a document in most phases.
pub const VALUE_BYTES: usize = KIB;
/// Number of documents in the phases of durable puts, in [`Scenario::Churn`] and in
/// [`Scenario::Http`].
pub const DOCUMENTS: u64 = 10_000;
/// Size of a document in [`Scenario::Scale`].
pub const SMALL_VALUE_BYTES: usize = 300;
/// Size of each engine's cache, unless a phase sets another size.
pub const CACHE_BYTES: u64 = 64 * MIB as u64;
/// Size of a cache that holds all documents of [`Scenario::Reads`].
pub const LARGE_CACHE_BYTES: u64 = 512 * MIB as u64;
/// Memory limit of [`Scenario::Bulk`], including the page cache.
pub const BULK_MEMORY_BYTES: u64 = 512 * MIB as u64;
/// Time limit of [`Scenario::Bulk`], in seconds. Documents that remain are not put.
pub const BULK_SECONDS: f64 = 60.0;
/// Numbers of threads that put durably, one phase each.
pub const WRITERS: &[usize] = &[1, 16, 64];
/// Number of threads in phases that are limited by the processor.
pub const THREADS: usize = 2;
/// Number of threads in the mix of gets and durable puts.
pub const MIX_THREADS: usize = 16;
/// The label, the size in bytes and the number of the documents of each phase of
/// [`Scenario::Sizes`].
pub const SIZES: &[(&str, usize, u64)] = &[
    ("100 B", 100, 10_000),
    ("1 KiB", KIB, 10_000),
    ("64 KiB", 64 * KIB, 1_000),
    ("1 MiB", MIB, 64),
    ("10 MiB", 10 * MIB, 8),
];
/// Size of the large document of [`Scenario::Http`].
pub const LARGE_BYTES: usize = 10 * MIB;
/// Number of connections for gets over HTTP.
pub const GET_CONNECTIONS: usize = 32;
/// Number of connections for gets of the large document over HTTP.
pub const LARGE_GET_CONNECTIONS: usize = 4;
/// Numbers of connections for durable puts over HTTP, one phase each.
pub const PUT_CONNECTIONS: &[usize] = &[1, 64];
