//! Compares a closed catalogue with the stored documents from which it was derived.

use std::ops::ControlFlow;
use std::path::Path;

use crate::catalogue::marker::{self, CatalogueIdentity};
use crate::catalogue::row::{DocumentVisitor, key};
use crate::catalogue::tree::{Tree, TreeError};
use crate::model::error::Result;

/// The result of the audit of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    /// The catalogue lists exactly the stored documents.
    Agrees,
    /// The catalogue was not closed cleanly, or its files have changed since the last clean close.
    /// The next open rebuilds the catalogue.
    Unclean,
    /// The marker is valid, but the catalogue differs from the stored documents or cannot be read.
    /// The text describes the first difference or the error.
    Differs(String),
}

/// A function that calls a [`DocumentVisitor`] for each stored document.
pub(crate) type VisitDocuments<'a> =
    dyn Fn(&mut DocumentVisitor<'_>) -> Result<ControlFlow<()>> + 'a;

/// Compares the catalogue in `dir` with the stored documents. The marker is removed before the tree
/// is opened, because opening the tree may change sled's files. If the catalogue agrees with the
/// documents, the marker is written again. If the marker cannot be written, the next open rebuilds
/// the catalogue.
pub(crate) fn audit(
    dir: &Path,
    cache_bytes: u64,
    identity: CatalogueIdentity,
    documents: &VisitDocuments<'_>,
) -> Result<AuditOutcome> {
    if !marker::is_trusted(dir, identity) {
        return Ok(AuditOutcome::Unclean);
    }
    if !marker::verify_and_remove(dir, identity) {
        return Ok(AuditOutcome::Unclean);
    }
    let outcome = compare(dir, cache_bytes, documents)?;
    if outcome == AuditOutcome::Agrees {
        let _ = marker::write(dir, identity);
    }
    Ok(outcome)
}

fn compare(dir: &Path, cache_bytes: u64, documents: &VisitDocuments<'_>) -> Result<AuditOutcome> {
    let tree = match Tree::open(&dir.join("sled"), cache_bytes) {
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
        next_revision: 9,
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
            Ok(match visit("u", "a", value(1)) {
                ControlFlow::Continue(()) => visit("u", "b", value(2)),
                end @ ControlFlow::Break(()) => end,
            })
        };
        let outcome = audit(dir.path(), 1024 * 1024, IDENTITY, &documents).unwrap();
        assert_eq!(
            marker::is_trusted(dir.path(), IDENTITY),
            outcome == AuditOutcome::Agrees
        );
        outcome
    }

    #[test]
    fn audit_requires_exactly_the_stored_documents() {
        assert_eq!(audited(&[("a", 1), ("b", 2)]), AuditOutcome::Agrees);
        for wrong in [
            &[("a", 1)][..],
            &[("a", 1), ("b", 1)],
            &[("a", 1), ("b", 2), ("c", 3)],
        ] {
            assert!(
                matches!(audited(wrong), AuditOutcome::Differs(_)),
                "{wrong:?}"
            );
        }
    }
}
