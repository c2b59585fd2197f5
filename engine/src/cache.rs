//! Documents that were read lately, in memory, up to a budget in bytes.

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::document::Document;
use crate::names::NamespaceHash;

/// Bytes of a typical document: the cache sizes its index by it.
const TYPICAL_DOCUMENT_BYTES: u64 = 1024;

pub(crate) struct DocumentCache(Cache<NamespaceHash, Document, DocumentWeight>);

/// Weighs documents in bytes.
#[derive(Clone)]
struct DocumentWeight;

impl Weighter<NamespaceHash, Document> for DocumentWeight {
    fn weight(&self, _: &NamespaceHash, document: &Document) -> u64 {
        document.weight()
    }
}

impl DocumentCache {
    pub(crate) fn new(bytes: u64) -> Self {
        let documents = usize::try_from(bytes / TYPICAL_DOCUMENT_BYTES).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(documents, bytes, DocumentWeight))
    }

    /// The document, where it is the one at this revision that is here.
    pub(crate) fn get(&self, hash: NamespaceHash, revision: u64) -> Option<Document> {
        self.0
            .get(&hash)
            .filter(|document| document.stat().revision.get() == revision)
    }

    pub(crate) fn insert(&self, hash: NamespaceHash, document: &Document) {
        // A document with blobs holds files open, which are scarcer than memory.
        if document.in_memory().is_some() {
            self.0.insert(hash, document.clone());
        }
    }
}
