//! What is measured: scenarios, each of which one process plays with one contender, from
//! an empty folder on, and the phases that it reports.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What a scenario is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Durable puts of 1 KiB over 10,000 documents, by one writer and by many.
    Durable,
    /// A burst of puts without sync, then reads of what was put: hot, with little cache,
    /// and from the disk; and reads and durable puts mixed.
    Reads,
    /// The same documents replaced over and over, and what the disk holds then.
    Churn,
    /// Durable puts, and gets, of documents from 100 B to 10 MiB.
    Sizes,
    /// Many distinct documents put without sync, in little memory.
    Bulk,
    /// Many small documents: memory, disk, and the time to open them again.
    Scale,
    /// Servers, asked over loopback: gets and durable puts of 1 KiB and of 10 MiB; and
    /// what prefd takes to start, and for many large puts at once.
    Http,
}

/// How much of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSize {
    /// Seconds that a phase takes which is not a number of operations.
    pub seconds: f64,
    /// Documents of [`Scenario::Reads`].
    pub reads: u64,
    /// Rounds of [`Scenario::Churn`].
    pub rounds: u64,
    /// Documents of [`Scenario::Bulk`].
    pub bulk: u64,
    /// Documents of [`Scenario::Scale`].
    pub scale: u64,
    /// Seconds of a phase of [`Scenario::Http`]: wrk takes whole ones.
    pub http_seconds: u64,
    /// Bytes of each value of the many large puts of [`Scenario::Http`].
    pub upload_value_bytes: usize,
    /// Whether only durable puts are played, so that their syncs can be counted.
    pub puts_only: bool,
    /// Whether phases are left out that take long and tell little more.
    pub short: bool,
}

impl WorkloadSize {
    /// All of it.
    pub const FULL: Self = Self {
        seconds: 2.0,
        reads: 200_000,
        rounds: 20,
        bulk: 2_000_000,
        scale: 1_000_000,
        http_seconds: 4,
        upload_value_bytes: 10_000_000,
        puts_only: false,
        short: false,
    };
    /// What takes under three minutes.
    pub const SHORT: Self = Self {
        seconds: 1.0,
        reads: 100_000,
        rounds: 5,
        bulk: 200_000,
        scale: 100_000,
        http_seconds: 1,
        upload_value_bytes: 10_000_000,
        puts_only: false,
        short: true,
    };
    /// What shows that everything works, and measures nothing.
    pub const TINY: Self = Self {
        seconds: 0.02,
        reads: 200,
        rounds: 2,
        bulk: 500,
        scale: 500,
        http_seconds: 1,
        upload_value_bytes: 100_000,
        puts_only: false,
        short: false,
    };
}

/// The document of most phases.
pub const VALUE_BYTES: usize = KIB;
/// Documents that durable puts and churn go over, and namespaces of requests.
pub const DOCUMENTS: u64 = 10_000;
/// Of [`Scenario::Scale`].
pub const SMALL_VALUE_BYTES: usize = 300;
/// The cache that every engine gets, but where a phase says otherwise.
pub const CACHE_BYTES: u64 = 64 * MIB as u64;
/// A cache that holds all of [`Scenario::Reads`].
pub const LARGE_CACHE_BYTES: u64 = 512 * MIB as u64;
/// What [`Scenario::Bulk`] may take of memory, the page cache included.
pub const BULK_MEMORY_BYTES: u64 = 512 * MIB as u64;
/// Longer than this [`Scenario::Bulk`] does not go on, however much is missing.
pub const BULK_SECONDS: f64 = 60.0;
/// Writers of durable puts, in the order of the phases.
pub const WRITERS: &[usize] = &[1, 16, 64];
/// Threads of what is bound by the processor.
pub const THREADS: usize = 2;
/// Threads of the mix.
pub const MIX_THREADS: usize = 16;
/// The lengths of [`Scenario::Sizes`], and how many documents of each there are.
pub const SIZES: &[(&str, usize, u64)] = &[
    ("100 B", 100, 10_000),
    ("1 KiB", KIB, 10_000),
    ("64 KiB", 64 * KIB, 1_000),
    ("1 MiB", MIB, 64),
    ("10 MiB", 10 * MIB, 8),
];
/// The large document of [`Scenario::Http`].
pub const LARGE_BYTES: usize = 10 * MIB;
/// Connections of gets over HTTP.
pub const GET_CONNECTIONS: usize = 32;
/// The same of large documents.
pub const LARGE_GET_CONNECTIONS: usize = 4;
/// Connections of durable puts over HTTP, in the order of the phases.
pub const PUT_CONNECTIONS: &[usize] = &[1, 64];
