//! Comparing a closed catalogue with the documents that it is derived from.

use std::ops::ControlFlow;
use std::path::Path;

use crate::catalogue::marker::{self, CatalogueIdentity};
use crate::catalogue::row::{DocumentVisitor, key};
use crate::catalogue::tree::{Tree, TreeError};
use crate::model::error::Result;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AuditOutcome {
    Agrees,
    /// It is not what a clean close left, so nobody will believe it.
    Unclean,
    /// It would be believed, and says something else.
    Differs(String),
}

/// Has a function called for each document.
pub(crate) type VisitDocuments<'a> =
    dyn Fn(&mut DocumentVisitor<'_>) -> Result<ControlFlow<()>> + 'a;

/// Looks up every document. The marker is taken, since sled may write while it is open,
/// and put again: were that to fail, the catalogue is built again at the next open.
pub(crate) fn audit(
    dir: &Path,
    cache_bytes: u64,
    identity: CatalogueIdentity,
    documents: &VisitDocuments<'_>,
) -> Result<AuditOutcome> {
    if !marker::is_trusted(dir, identity) {
        return Ok(AuditOutcome::Unclean);
    }
    if !marker::take(dir, identity) {
        return Ok(AuditOutcome::Unclean);
    }
    let outcome = compare(dir, cache_bytes, documents)?;
    if outcome == AuditOutcome::Agrees {
        let _ = marker::put(dir, identity);
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
            Ok(Some(_)) => Some(format!("it has old values for {user:?} {client:?}")),
            Ok(None) => Some(format!("it lacks {user:?} {client:?}")),
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
                "it has {len} entries, and there are {count} documents"
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

    /// What is said of a catalogue that has these clients of one user, at these
    /// revisions, where `a` and `b` at 1 and 2 are the documents.
    fn audited(entries: &[(&str, u64)]) -> AuditOutcome {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(&dir.path().join("sled"), 1024 * 1024).unwrap();
        for (client, revision) in entries {
            tree.insert(&key("u", client), value(*revision)).unwrap();
        }
        tree.flush().unwrap();
        drop(tree);
        marker::put(dir.path(), IDENTITY).unwrap();
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
    fn a_catalogue_must_have_every_document_as_it_is_and_nothing_else() {
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
