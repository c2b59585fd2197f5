//! Stores a document, replaces it with a precondition, reads it back, and lists the documents of
//! the user.
//!
//! `cargo run --example put_get -- /tmp/prefd-example`

use std::io::{self, Write};

use prefd_engine::{Config, Engine, Precondition, WriteOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args_os().nth(1).ok_or("usage: put_get DIR")?;
    let engine = Engine::open(Config::new(dir))?;
    let settings = engine.namespace("alice", "editor")?;

    // When this call returns, the document is on stable storage (fdatasync has returned).
    let revision = settings.write(
        br#"{"theme": "dark", "tab_width": 4}"#,
        WriteOptions::default(),
    )?;

    // Replace the document only if no other write has happened since. After another write, the call
    // fails with `Error::PreconditionFailed`.
    let if_unchanged = WriteOptions {
        precondition: Precondition::matches(revision.ok_or("no document is stored")?),
        ..WriteOptions::default()
    };
    settings.write(br#"{"theme": "light", "tab_width": 4}"#, if_unchanged)?;

    // Read the whole document, and then a single value.
    let mut out = io::stdout().lock();
    if let Some(document) = settings.get()? {
        out.write_all(&document.read()?)?;
        writeln!(out)?;
        if let Some(value) = document.value("tab_width") {
            for chunk in value {
                out.write_all(&chunk?)?;
            }
            writeln!(out)?;
        }
    }
    for entry in engine.list("alice", None, 100)? {
        let usage = entry.stat.usage;
        writeln!(
            out,
            "{}: {} keys, {} bytes",
            entry.client, usage.keys, usage.bytes
        )?;
    }
    engine.close()?;
    Ok(())
}
