//! Writes and reads a large document as a stream, without ever having the complete document in
//! memory.
//!
//! This command stores one document with 8 values of 8 MiB each:
//!
//! `cargo run --release --example stream_large -- /tmp/prefd-example 8`

use std::io::{self, Write};

use prefd_engine::{Config, Engine, WriteOptions};

const VALUE_BYTES: usize = 8 * 1024 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let dir = arguments.next().ok_or("usage: stream_large DIR [VALUES]")?;
    let values: usize = match arguments.next() {
        Some(count) => count.to_string_lossy().parse()?,
        None => 4,
    };
    let engine = Engine::open(Config::new(dir))?;
    let namespace = engine.namespace("alice", "photo-album")?;

    // Chunks may be split anywhere. If the document exceeds a limit, the `write` of the first chunk
    // beyond the limit fails.
    let mut writer = engine.writer();
    let chunk = vec![b'x'; CHUNK_BYTES];
    for index in 0..values {
        let separator = if index == 0 { "{" } else { "," };
        writer.write(format!("{separator}\"album-{index}\":\"").as_bytes())?;
        for _ in 0..VALUE_BYTES / CHUNK_BYTES {
            writer.write(&chunk)?;
        }
        writer.write(b"\"")?;
    }
    writer.write(b"}")?;
    namespace.write(writer.finish()?, WriteOptions::default())?;

    // The checksums of each chunk are verified before the iterator returns it.
    let document = namespace.get()?.ok_or("no document is stored")?;
    let mut bytes = 0;
    for chunk in document.chunks() {
        bytes += chunk?.len();
    }
    writeln!(
        io::stdout(),
        "revision {}: {bytes} bytes",
        document.stat().revision
    )?;
    engine.close()?;
    Ok(())
}
