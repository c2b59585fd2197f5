//! `prefd verify`, `stats` and `compact`: what an operator asks of a data directory that
//! no server has open. The engine does it; this prints it, for people or as JSON.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::commands::console::{Bar, bytes, print, table, write};
use crate::store::offline::Compacted;
use crate::store::{
    CatalogueCheck, Damage, Error, Impact, OpenError, Problem, Stats, cause, offline,
};

/// Which directory, and how to say what was found.
#[derive(Debug, Args)]
pub(super) struct StoreOptions {
    /// The data directory
    #[arg(
        long,
        value_name = "DIR",
        env = "PREFD_DATA_DIR",
        default_value = "prefd-data"
    )]
    data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum StoreError {
    #[error("{0}{cause}", cause = cause(.0))]
    Engine(#[from] Error),
    #[error("{count} found in {}", path.display())]
    Problems { path: PathBuf, count: String },
    #[error("the data directory is damaged: {0}")]
    Damaged(String),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Checks everything, and says what is wrong.
pub(crate) fn verify(options: &StoreOptions) -> Result<(), StoreError> {
    let mut bar = Bar::new("verifying");
    let found = offline::verify(&options.data_dir, &mut |progress| bar.show(progress))?;
    bar.clear();
    let catalogue = match found.catalogue {
        CatalogueCheck::Agrees => "agrees",
        CatalogueCheck::Differs => "differs",
        _ => "to be rebuilt",
    };
    if options.json {
        print(&json!({
            "clean": found.problems.is_empty(),
            "segments": found.segments,
            "frames": found.frames,
            "documents": found.documents,
            "bytes": found.bytes,
            "torn_bytes": found.torn_bytes,
            "unnamed_blobs": found.unnamed_blobs,
            "catalogue": catalogue,
            "problems": found.problems.iter().map(problem_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = table(&[
            ("segments", found.segments.to_string()),
            ("frames", found.frames.to_string()),
            ("documents", found.documents.to_string()),
            ("bytes read", bytes(found.bytes)),
            ("torn tail", bytes(found.torn_bytes)),
            ("unnamed blobs", found.unnamed_blobs.to_string()),
            ("catalogue", catalogue.to_owned()),
        ]);
        for problem in &found.problems {
            text.push_str(&problem_text(problem, &options.data_dir));
        }
        write(&text)?;
    }
    match found.problems.len() {
        0 => Ok(()),
        n => Err(StoreError::Problems {
            path: options.data_dir.clone(),
            count: format!("{n} problem{}", if n == 1 { " was" } else { "s were" }),
        }),
    }
}

fn harm(problem: &Problem) -> &'static str {
    match problem.impact {
        Impact::Document => "document",
        Impact::Derived => "derived",
        _ => "nothing",
    }
}

fn problem_json(problem: &Problem) -> Value {
    let (user, client) = problem.namespace.clone().unzip();
    json!({
        "file": problem.path,
        "offset": problem.offset,
        "what": problem.what,
        "harm": harm(problem),
        "user": user,
        "client": client,
    })
}

fn problem_text(problem: &Problem, dir: &Path) -> String {
    let path = problem.path.strip_prefix(dir).unwrap_or(&problem.path);
    let meaning = match (problem.impact, &problem.namespace) {
        (Impact::Document, Some((user, client))) => {
            format!("the document of user {user:?}, client {client:?} cannot be read")
        }
        (Impact::Document, None) => "documents cannot be read, or not told apart".to_owned(),
        (Impact::Derived, _) => "it is made again when the store is opened".to_owned(),
        _ => "no current document is touched".to_owned(),
    };
    let (path, offset, what) = (path.display(), problem.offset, &problem.what);
    format!("{path} at byte {offset}: {what}: {meaning}\n")
}

/// Counts what is there.
pub(crate) fn stats(options: &StoreOptions) -> Result<(), StoreError> {
    let stats = offline::stats(&options.data_dir)?;
    if options.json {
        print(&stats_json(&stats))?;
        return refuse_damaged(&stats);
    }
    write(&table(&[
        ("documents", stats.documents.to_string()),
        ("users", stats.users.to_string()),
        ("bytes of documents", bytes(stats.document_bytes)),
        ("log", bytes(stats.log_bytes)),
        ("  segments", stats.segments.to_string()),
        ("  live", bytes(stats.live_bytes)),
        ("  dead", bytes(stats.dead_bytes)),
        ("  tombstones", stats.tombstones.to_string()),
        ("  damaged frames", stats.damaged_frames.to_string()),
        ("blobs", bytes(stats.blob_bytes)),
        ("  files", stats.blobs.to_string()),
        ("catalogue", bytes(stats.catalogue_bytes)),
        ("memory of the table", bytes(stats.table_bytes)),
    ]))?;
    refuse_damaged(&stats)
}

/// Names what is damaged, after everything else was counted.
fn refuse_damaged(stats: &Stats) -> Result<(), StoreError> {
    if stats.damage.is_empty() {
        return Ok(());
    }
    let places: Vec<_> = stats.damage.iter().map(ToString::to_string).collect();
    Err(StoreError::Damaged(places.join("; ")))
}

fn stats_json(stats: &Stats) -> Value {
    json!({
        "documents": stats.documents,
        "users": stats.users,
        "document_bytes": stats.document_bytes,
        "log_bytes": stats.log_bytes,
        "segments": stats.segments,
        "live_bytes": stats.live_bytes,
        "dead_bytes": stats.dead_bytes,
        "tombstones": stats.tombstones,
        "damaged_frames": stats.damaged_frames,
        "blobs": stats.blobs,
        "blob_bytes": stats.blob_bytes,
        "catalogue_bytes": stats.catalogue_bytes,
        "table_bytes": stats.table_bytes,
        "damage": stats.damage.iter().map(damage_json).collect::<Vec<_>>(),
    })
}

fn damage_json(damage: &Damage) -> Value {
    json!({ "path": damage.path, "offset": damage.offset, "what": damage.what })
}

/// Rewrites what holds anything stale.
pub(crate) fn compact(options: &StoreOptions) -> Result<(), StoreError> {
    let mut bar = Bar::new("compacting");
    let compacted = offline::compact(&options.data_dir, &mut |progress| bar.show(progress));
    bar.clear();
    let Compacted {
        before,
        after,
        outcome,
    } = compacted?;
    if options.json {
        print(&json!({ "before": stats_json(&before), "after": stats_json(&after) }))?;
    } else {
        let change = |before, after| format!("{} -> {}", bytes(before), bytes(after));
        write(&table(&[
            ("log", change(before.log_bytes, after.log_bytes)),
            ("  dead", change(before.dead_bytes, after.dead_bytes)),
            ("blobs", change(before.blob_bytes, after.blob_bytes)),
        ]))?;
    }
    outcome?;
    refuse_damaged(&after)
}
