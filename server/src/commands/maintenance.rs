//! `prefd verify`, `stats` and `compact`: maintenance of a data directory that no server has open.
//! The store performs the operation, and this file prints the result as a table or as JSON.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::commands::console::{ProgressBar, bytes, print, print_json, table};
use crate::commands::error::{CommandError, joined};
use crate::store::offline::CompactionReport;
use crate::store::{CatalogueCheck, Damage, Impact, Problem, Stats, offline, owner};

/// Options of `prefd verify`, `stats` and `compact`.
#[derive(Debug, Args)]
pub(super) struct MaintenanceOptions {
    /// Data directory. The directory must not be open in any server
    #[arg(
        long,
        value_name = "DIR",
        env = "PREFD_DATA_DIR",
        default_value = "prefd-data"
    )]
    data_dir: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Printed if the end of the log would be dropped. It is not a problem, because a crash before the
/// sync of a write leaves the same bytes.
const TORN_TAIL_WARNING: &str = "warning: the next start drops the torn tail. It is a write that a \
                                 crash interrupted, or a damaged write of the last second before \
                                 the crash.\n";

/// Checks the data directory for damage, and prints each problem.
pub(super) fn verify(options: &MaintenanceOptions) -> Result<(), CommandError> {
    let mut bar = ProgressBar::new("verifying");
    let verified = owner::as_reader(&options.data_dir, || {
        offline::verify(&options.data_dir, &mut |progress| bar.show(progress))
    })?
    .map_err(CommandError::Open)?;
    drop(bar);
    let catalogue = match verified.catalogue {
        CatalogueCheck::Agrees => "agrees",
        CatalogueCheck::Differs => "differs",
        CatalogueCheck::Unchecked => "not checked",
        _ => "to be rebuilt",
    };
    if options.json {
        print_json(&json!({
            "clean": verified.problems.is_empty(),
            "segments": verified.segments,
            "frames": verified.frames,
            "documents": verified.documents,
            "bytes": verified.bytes,
            "torn_bytes": verified.torn_bytes,
            "unnamed_blobs": verified.unnamed_blobs,
            "catalogue": catalogue,
            "problems": verified.problems.iter().map(problem_json).collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = table(&[
            ("segments", verified.segments.to_string()),
            ("frames", verified.frames.to_string()),
            ("documents", verified.documents.to_string()),
            ("bytes read", bytes(verified.bytes)),
            ("torn tail", bytes(verified.torn_bytes)),
            ("unreferenced blobs", verified.unnamed_blobs.to_string()),
            ("catalogue", catalogue.to_owned()),
        ]);
        if verified.torn_bytes > 0 {
            text.push_str(TORN_TAIL_WARNING);
        }
        for problem in &verified.problems {
            text.push_str(&problem_text(problem, &options.data_dir));
        }
        print(&text)?;
    }
    match verified.problems.len() {
        0 => Ok(()),
        count => Err(CommandError::Problems {
            path: options.data_dir.clone(),
            count,
        }),
    }
}

/// Returns the name of a problem's impact in the JSON output.
fn impact_name(problem: &Problem) -> &'static str {
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
        "harm": impact_name(problem),
        "user": user,
        "client": client,
    })
}

fn problem_text(problem: &Problem, dir: &Path) -> String {
    let path = problem.path.strip_prefix(dir).unwrap_or(&problem.path);
    let impact = match (problem.impact, &problem.namespace) {
        (Impact::Document, Some((user, client))) => {
            format!("the document of user {user:?}, client {client:?} cannot be read")
        }
        (Impact::Document, None) => {
            "documents cannot be read, or it is unknown which documents exist".to_owned()
        }
        (Impact::Derived, _) => "rebuilt when the store is opened".to_owned(),
        _ => "no current document is affected".to_owned(),
    };
    let (path, offset, what) = (path.display(), problem.offset, &problem.what);
    format!("{path} at byte {offset}: {what}: {impact}\n")
}

/// Prints the statistics of the data directory.
pub(super) fn stats(options: &MaintenanceOptions) -> Result<(), CommandError> {
    let stats = owner::as_reader(&options.data_dir, || offline::stats(&options.data_dir))?
        .map_err(CommandError::Open)?;
    if options.json {
        print_json(&stats_json(&stats))?;
        return require_undamaged(&stats);
    }
    print(&table(&[
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
    require_undamaged(&stats)
}

/// Returns an error that names the damaged places, or `Ok` if nothing is damaged.
fn require_undamaged(stats: &Stats) -> Result<(), CommandError> {
    if stats.damage.is_empty() {
        return Ok(());
    }
    Err(CommandError::Damaged(joined(&stats.damage)))
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

/// Reclaims disk space from replaced and deleted documents, and prints the sizes before and after.
pub(super) fn compact(options: &MaintenanceOptions) -> Result<(), CommandError> {
    let mut bar = ProgressBar::new("compacting");
    let compacted = owner::as_owner(&options.data_dir, || {
        offline::compact(&options.data_dir, &mut |progress| bar.show(progress))
    })?;
    drop(bar);
    let CompactionReport {
        before,
        after,
        outcome,
    } = compacted.map_err(CommandError::Open)?;
    if options.json {
        print_json(&json!({ "before": stats_json(&before), "after": stats_json(&after) }))?;
    } else {
        let change = |before, after| format!("{} -> {}", bytes(before), bytes(after));
        print(&table(&[
            ("log", change(before.log_bytes, after.log_bytes)),
            ("  dead", change(before.dead_bytes, after.dead_bytes)),
            ("blobs", change(before.blob_bytes, after.blob_bytes)),
        ]))?;
    }
    outcome?;
    require_undamaged(&after)
}
