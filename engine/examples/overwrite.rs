//! What compaction costs a writer: overwrites documents again and again with short
//! segments, durably, once with compaction in the background and once without, and
//! prints the latencies of the puts and what the directory takes in the end.
//!
//! `cargo run --release -p prefd-engine --example overwrite -- [DOCUMENTS [ROUNDS [THREADS]]]`

#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints what it measured"
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
            let began = Instant::now();
            latencies.extend(overwrite(&engine, documents, round, threads)?);
            if round + 1 == rounds {
                let rate = documents as f64 / began.elapsed().as_secs_f64();
                println!("compaction {background_compaction}: {rate:.0} puts/s in the last round");
            }
        }
        latencies.sort_unstable();
        let at = |share: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the length"
            )]
            let index = (latencies.len() as f64 * share) as usize;
            latencies.get(index).or(latencies.last()).copied()
        };
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            println!("  {name}: {:?}", at(share).unwrap_or_default());
        }
        let live = documents * (VALUE_BYTES + "{\"value\":\"\"}".len());
        let taken = || -> Result<u64, Box<dyn Error>> {
            Ok(bytes_in(&dir.path().join("log"))? + bytes_in(&dir.path().join("blobs"))?)
        };
        println!(
            "  documents: {live} bytes; log/ and blobs/: {} bytes",
            taken()?
        );
        engine.close()?;
        let problems = verify(&config, &mut |_| {})?.problems;
        println!("  closed: {} bytes; verify: {problems:?}", taken()?);
    }
    Ok(())
}

/// One put of each document, spread over threads; how long each took.
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
                    let mine = (thread..documents).step_by(threads);
                    mine.map(|index| {
                        let index = shuffled(index, round, documents);
                        let namespace = engine.namespace(&format!("user-{index}"), "app")?;
                        let began = Instant::now();
                        namespace.write(body.as_bytes(), WriteOptions::default())?;
                        Ok(began.elapsed())
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

/// Another order in each round, so that a segment dies bit by bit. (The primes divide
/// no count of documents that anybody would ask for.)
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
