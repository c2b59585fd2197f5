//! Measures the effect of background compaction on writers.
//!
//! The example overwrites the same documents many times, durably and with short segments. The first
//! run has no background compaction, the second run has. Each run prints the latencies of the puts
//! and the final disk usage.
//!
//! `cargo run --release -p prefd-engine --example overwrite -- [DOCUMENTS [ROUNDS [THREADS]]]`
//!
//! Defaults: 10,000 documents, 50 rounds, 1 thread.

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints approximate figures"
)]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use prefd_engine::{Config, Engine, WriteOptions, verify};

const VALUE_BYTES: usize = 1024;
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const DEFAULTS: [usize; 3] = [10_000, 50, 1];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut numbers = DEFAULTS;
    for number in &mut numbers {
        if let Some(argument) = arguments.next() {
            *number = argument.parse()?;
        }
    }
    let [documents, rounds, threads] = numbers;
    for background_compaction in [false, true] {
        let dir = tempfile::tempdir_in(".")?;
        let mut config = Config::new(dir.path());
        config.segment_bytes = SEGMENT_BYTES;
        config.background_compaction = background_compaction;
        let engine = Engine::open(config.clone())?;
        let mut latencies = Vec::with_capacity(documents * rounds);
        for round in 0..rounds {
            let start = Instant::now();
            latencies.extend(overwrite(&engine, documents, round, threads)?);
            if round + 1 == rounds {
                let rate = documents as f64 / start.elapsed().as_secs_f64();
                println!(
                    "background compaction {background_compaction}: {rate:.0} puts/s in the last round"
                );
            }
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the share is between 0 and 1"
            )]
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index).or(latencies.last()).copied()
        };
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            println!("  {name}: {:?}", at(share).unwrap_or_default());
        }
        let document_bytes = documents * (VALUE_BYTES + "{\"value\":\"\"}".len());
        let disk_bytes = || -> Result<u64, Box<dyn Error>> {
            Ok(bytes_in(&dir.path().join("log"))? + bytes_in(&dir.path().join("blobs"))?)
        };
        println!(
            "  documents: {document_bytes} bytes; log/ and blobs/: {} bytes",
            disk_bytes()?
        );
        engine.close()?;
        let problems = verify(&config, &mut |_| {})?.problems;
        println!(
            "  after close: {} bytes; problems: {problems:?}",
            disk_bytes()?
        );
    }
    Ok(())
}

/// Puts each document once, from `threads` threads. Returns the latency of each put.
fn overwrite(
    engine: &Engine,
    documents: usize,
    round: usize,
    threads: usize,
) -> Result<Vec<Duration>, prefd_engine::Error> {
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let text = format!("{round:08}{}", "v".repeat(VALUE_BYTES - 8));
                    let body = format!("{{\"value\":\"{text}\"}}");
                    let indexes = (thread..documents).step_by(threads);
                    indexes
                        .map(|index| {
                            let index = shuffled(index, round, documents);
                            let namespace = engine.namespace(format!("user-{index}"), "app")?;
                            let start = Instant::now();
                            namespace.write(body.as_bytes(), WriteOptions::default())?;
                            Ok(start.elapsed())
                        })
                        .collect::<Result<Vec<_>, prefd_engine::Error>>()
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for writer in writers {
            latencies.extend(writer.join().map_err(|_| prefd_engine::Error::Closed)??);
        }
        Ok(latencies)
    })
}

/// Maps the index of a document to another index, with a different mapping in each round. Documents
/// are thus overwritten in a different order each time, and the frames of a segment become stale
/// gradually. The mapping is a permutation unless one of the primes divides the number of
/// documents, which is unlikely for round numbers.
fn shuffled(index: usize, round: usize, documents: usize) -> usize {
    const PRIMES: [usize; 5] = [7919, 6151, 3079, 1543, 769];
    let prime = PRIMES.get(round % PRIMES.len()).copied().unwrap_or(1);
    index * prime % documents
}

fn bytes_in(dir: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum()
}
