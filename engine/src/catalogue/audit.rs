//! Compares a closed catalogue with the stored documents from which it was derived.

use std::ops::ControlFlow;
use std::path::Path;

use crate::catalogue::marker::{self, CatalogueIdentity};
use crate::catalogue::row::{DocumentVisitor, Visited, key};
use crate::catalogue::temporary_copy::TemporaryCopy;
use crate::catalogue::tree::{Tree, TreeError, wait_for_lock_release};
use crate::model::error::{Error, Result};

/// The directory of the tree in the directory of the catalogue.
const TREE_FOLDER: &str = "sled";

/// The result of the audit of a catalogue.
#[derive(Debug)]
pub(crate) enum AuditOutcome {
    /// The catalogue lists exactly the stored documents.
    Agrees,
    /// The catalogue was not closed cleanly, or its files have changed since the last clean close.
    /// The next open rebuilds the catalogue.
    Unclean,
    /// Nothing was compared, because the process may not read the files of the catalogue, or
    /// because the files could not be copied.
    Unchecked,
    /// Some stored documents could not be read, so the catalogue was not compared with them.
    Skipped(Error),
    /// The marker is valid, but the catalogue differs from the stored documents or cannot be read.
    /// The text describes the first difference or the error.
    Differs(String),
}

/// A function that calls a [`DocumentVisitor`] for each stored document.
pub(crate) type VisitDocuments<'a> = dyn Fn(&mut DocumentVisitor<'_>) -> Result<Visited> + 'a;

/// Compares the catalogue in `dir` with the stored documents. Opens a copy of the catalogue,
/// because opening the tree may change sled's files.
pub(crate) fn audit(
    dir: &Path,
    cache_bytes: u64,
    identity: CatalogueIdentity,
    documents: &VisitDocuments<'_>,
) -> Result<AuditOutcome> {
    if !marker::is_trusted(dir, identity) {
        return Ok(if marker::is_access_denied(dir) {
            AuditOutcome::Unchecked
        } else {
            AuditOutcome::Unclean
        });
    }
    let Ok(copy) = TemporaryCopy::of(dir) else {
        return Ok(AuditOutcome::Unchecked);
    };
    let outcome = compare(copy.path(), cache_bytes, documents);
    // sled's threads may use the copy for a short time after the tree is closed.
    wait_for_lock_release(&copy.path().join(TREE_FOLDER));
    outcome
}

fn compare(dir: &Path, cache_bytes: u64, documents: &VisitDocuments<'_>) -> Result<AuditOutcome> {
    let tree = match Tree::open(&dir.join(TREE_FOLDER), cache_bytes) {
        Ok(tree) => tree,
        Err(TreeError(reason)) => return Ok(AuditOutcome::Differs(reason)),
    };
    let mut count = 0;
    let mut difference = None;
    let visited = documents(&mut |user, client, value| {
        count += 1;
        difference = match tree.get(&key(user, client)) {
            Ok(Some(found)) if found == value => return ControlFlow::Continue(()),
            Ok(Some(_)) => Some(format!(
                "the entry of user {user:?} and client {client:?} differs from the document"
            )),
            Ok(None) => Some(format!(
                "the entry of user {user:?} and client {client:?} is missing"
            )),
            Err(TreeError(reason)) => Some(reason),
        };
        ControlFlow::Break(())
    });
    match (difference, visited) {
        (Some(what), _) => Ok(AuditOutcome::Differs(what)),
        (None, Err(error)) => Err(error),
        (
            None,
            Ok(Visited {
                skipped: Some(error),
                ..
            }),
        ) => Ok(AuditOutcome::Skipped(error)),
        (None, Ok(_)) => Ok(match tree.len() {
            Ok(len) if len == count => AuditOutcome::Agrees,
            Ok(len) => AuditOutcome::Differs(format!(
                "the catalogue has {len} entries, but the store has {count} documents"
            )),
            Err(TreeError(reason)) => AuditOutcome::Differs(reason),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::row::CatalogueValue;
    use crate::model::limits::Usage;

    const IDENTITY: CatalogueIdentity = CatalogueIdentity {
        store: 7,
        reserved_revision: 9,
    };

    fn value(revision: u64) -> CatalogueValue {
        CatalogueValue {
            revision,
            modified_ms: 1,
            usage: Usage { keys: 1, bytes: 9 },
        }
    }

    /// Creates a catalogue with an entry for each pair of client and revision in `entries`, all for
    /// user `u`, and audits it. The stored documents are client `a` at revision 1 and client `b` at
    /// revision 2.
    fn audited(entries: &[(&str, u64)]) -> AuditOutcome {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(&dir.path().join("sled"), 1024 * 1024).unwrap();
        for (client, revision) in entries {
            tree.insert(&key("u", client), value(*revision)).unwrap();
        }
        tree.flush().unwrap();
        drop(tree);
        marker::write(dir.path(), IDENTITY).unwrap();
        let documents = |visit: &mut DocumentVisitor<'_>| {
            let flow = match visit("u", "a", value(1)) {
                ControlFlow::Continue(()) => visit("u", "b", value(2)),
                end @ ControlFlow::Break(()) => end,
            };
            Ok(Visited {
                flow,
                skipped: None,
            })
        };
        let outcome = audit(dir.path(), 1024 * 1024, IDENTITY, &documents).unwrap();
        assert!(
            marker::is_trusted(dir.path(), IDENTITY),
            "an audit changes no file"
        );
        outcome
    }

    #[test]
    fn audit_requires_exactly_the_stored_documents() {
        let right = audited(&[("a", 1), ("b", 2)]);
        assert!(matches!(right, AuditOutcome::Agrees), "{right:?}");
        for wrong in [
            &[("a", 1)][..],
            &[("a", 1), ("b", 1)],
            &[("a", 1), ("b", 2), ("c", 3)],
            // The number of entries is right.
            &[("a", 1), ("c", 3)],
        ] {
            assert!(
                matches!(audited(wrong), AuditOutcome::Differs(_)),
                "{wrong:?}"
            );
        }
    }
}
