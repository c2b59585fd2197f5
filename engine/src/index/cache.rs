//! The document cache keeps documents in memory, up to a budget in bytes. The cached documents are
//! stored in the table, where reads find them. This module decides the order in which documents are
//! evicted.
//!
//! The algorithm is similar to S3-FIFO (Yang et al., SOSP 2023). A new document enters the small
//! queue. While the cache exceeds its budget, it examines the document at the front of one of the
//! queues. A document from the small queue moves to the main queue if it was read again, and is
//! evicted otherwise. A document from the main queue returns to the end of that queue if it was
//! read since it was last examined, and is evicted otherwise. Therefore, reading many documents
//! once evicts few of the frequently read documents. A read only marks the document as read, and
//! does not change the queues.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::index::document::Document;
use crate::index::table::Table;
use crate::model::names::NamespaceHash;

/// The target size of the small queue is the cache budget divided by this number. Documents are
/// evicted from the small queue if it exceeds its target size or the main queue is empty, and from
/// the main queue otherwise.
const SMALL_QUEUE_DIVISOR: u64 = 10;
/// Maximum number of documents whose read marks one insertion considers. After this number, the
/// insertion evicts documents even if they are marked as read. The maximum keeps insertions fast if
/// all documents are read frequently.
const MAX_EXAMINED: usize = 64;

/// The queues of the document cache. The cached documents are also in the [`Table`].
pub(crate) struct DocumentCache {
    max_bytes: u64,
    queues: Mutex<EvictionQueues>,
}

/// The small queue and the main queue of S3-FIFO.
#[derive(Default)]
struct EvictionQueues {
    small: EvictionQueue,
    main: EvictionQueue,
}

/// Documents in the order in which they are considered for eviction.
#[derive(Default)]
struct EvictionQueue {
    documents: VecDeque<(NamespaceHash, Document)>,
    bytes: u64,
}

impl EvictionQueue {
    fn push(&mut self, hash: NamespaceHash, document: Document) {
        self.bytes += weight(&document);
        self.documents.push_back((hash, document));
    }

    fn pop(&mut self) -> Option<(NamespaceHash, Document)> {
        let (hash, document) = self.documents.pop_front()?;
        self.bytes -= weight(&document);
        Some((hash, document))
    }
}

/// Returns the approximate memory of a cached document in bytes, including its queue entry.
fn weight(document: &Document) -> u64 {
    document.weight() + size_of::<(NamespaceHash, Document)>() as u64
}

impl EvictionQueues {
    fn bytes(&self) -> u64 {
        self.small.bytes + self.main.bytes
    }

    /// Removes documents from the queues until the remaining documents use at most `max_bytes`.
    /// Returns the removed documents. The caller must detach the returned documents from the table.
    fn evict(&mut self, max_bytes: u64) -> Vec<(NamespaceHash, Document)> {
        let mut evicted = Vec::new();
        let mut examined = 0;
        while self.bytes() > max_bytes {
            let is_new = self.small.bytes > max_bytes / SMALL_QUEUE_DIVISOR || self.main.bytes == 0;
            let queue = if is_new {
                &mut self.small
            } else {
                &mut self.main
            };
            let Some((hash, document)) = queue.pop() else {
                break;
            };
            examined += 1;
            // If the queue owns the only reference, the document was replaced or deleted.
            let stays =
                document.take_read_mark() && !document.is_unshared() && examined <= MAX_EXAMINED;
            if stays {
                self.main.push(hash, document);
            } else {
                evicted.push((hash, document));
            }
        }
        evicted
    }
}

impl DocumentCache {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            queues: Mutex::default(),
        }
    }

    /// Returns the memory that the cached documents use, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.bytes()
    }

    /// Removes the documents of the given namespaces from the cache. The function iterates over all
    /// cached documents.
    pub(crate) fn remove_namespaces(&self, table: &Table, hashes: &HashSet<NamespaceHash>) {
        let mut evicted = Vec::new();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let EvictionQueues { small, main } = &mut *queues;
        for queue in [small, main] {
            let documents = std::mem::take(queue).documents;
            for (hash, document) in documents {
                if hashes.contains(&hash) {
                    evicted.push((hash, document));
                } else {
                    queue.push(hash, document);
                }
            }
        }
        drop(queues);
        for (hash, document) in evicted {
            table.detach_document(hash, &document);
        }
    }

    /// Adds a document that was just read, and evicts other documents if necessary.
    pub(crate) fn insert(&self, table: &Table, hash: NamespaceHash, document: &Document) {
        // A document that is stored in blobs is not cached, because it keeps its blob files open,
        // and file descriptors are scarcer than memory.
        let fits = weight(document) <= self.max_bytes && document.in_memory().is_some();
        if !fits || !table.attach_document(hash, document) {
            return;
        }
        let evicted = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.small.push(hash, document.clone());
            queues.evict(self.max_bytes)
        };
        for (hash, document) in evicted {
            table.detach_document(hash, &document);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::header::EntryKind;
    use crate::format::location::FrameLocation;
    use crate::model::limits::Usage;
    use crate::model::stat::Stat;

    struct Store {
        table: Table,
        cache: DocumentCache,
    }

    const BODY: &[u8] = &[b' '; 1000];

    fn hash(n: u64) -> NamespaceHash {
        NamespaceHash::of(&[7; 16], &n.to_string(), "client")
    }

    fn document(revision: u64) -> Document {
        let stat = Stat::new(revision, 0, Usage::default());
        Document::in_memory_only(stat, BODY)
    }

    impl Store {
        fn with_room_for(documents: u64) -> Self {
            Self {
                table: Table::default(),
                cache: DocumentCache::new(weight(&document(0)) * documents),
            }
        }

        fn put(&self, n: u64, revision: u64) {
            let entry = FrameLocation {
                revision,
                segment: crate::model::ids::SegmentId::FIRST,
                offset: crate::model::ids::Offset::from_u32(0),
                bytes: 0,
                kind: EntryKind::Put,
            };
            self.table.advance(hash(n), entry);
        }

        /// Reads a document, and returns true if the document was cached. A document that was not
        /// cached is added to the cache, if the budget allows.
        fn get(&self, n: u64, revision: u64) -> bool {
            if let (_, Some(found)) = self.table.newest_cached(hash(n)) {
                assert_eq!(found.stat().revision.get(), revision);
                found.mark_read();
                return true;
            }
            self.cache.insert(&self.table, hash(n), &document(revision));
            false
        }

        fn cached(&self) -> u64 {
            let queues = self.cache.queues.lock().unwrap();
            let cached = queues.small.documents.len() + queues.main.documents.len();
            assert!(queues.bytes() <= self.cache.max_bytes);
            assert_eq!(queues.bytes(), weight(&document(0)) * cached as u64);
            cached as u64
        }
    }

    #[test]
    fn cache_stays_within_its_budget_and_the_table_agrees() {
        let store = Store::with_room_for(10);
        for n in 0..100 {
            store.put(n, n + 1);
            assert!(!store.get(n, n + 1));
            assert!(
                store.get(n, n + 1),
                "document {n} must be cached after a read"
            );
        }
        assert_eq!(store.cached(), 10);
        let in_table = (0..100).filter(|n| store.table.newest_cached(hash(*n)).1.is_some());
        assert_eq!(in_table.count(), 10);
    }

    #[test]
    fn scan_does_not_evict_frequently_read_documents() {
        let store = Store::with_room_for(20);
        for n in 0..1000 {
            store.put(n, n + 1);
        }
        let often = 0..10;
        for _ in 0..3 {
            for n in often.clone() {
                store.get(n, n + 1);
            }
        }
        // The documents from 100 to 999 are read once. During this scan, the frequently read
        // documents are read just often enough to stay in the cache.
        for n in 100..1000 {
            assert!(!store.get(n, n + 1));
            if n % 5 == 0 {
                let again = often.start + (n / 5) % 10;
                assert!(store.get(again, again + 1), "{again} at {n}");
            }
        }
        // The scan filled the cache, but did not exceed the cache's budget.
        assert_eq!(store.cached(), 20);
    }

    #[test]
    fn replaced_documents_are_not_found_and_evicted_first() {
        let store = Store::with_room_for(10);
        for n in 0..10 {
            store.put(n, n + 1);
            store.get(n, n + 1);
            store.get(n, n + 1);
        }
        for n in 0..5 {
            store.put(n, 100 + n);
        }
        for n in 0..5 {
            assert!(
                !store.get(n, 100 + n),
                "the replaced document {n} must not be cached"
            );
        }
        for n in 5..10 {
            assert!(
                store.get(n, n + 1),
                "the current document {n} must stay cached"
            );
        }
        for n in 0..5 {
            assert!(
                store.get(n, 100 + n),
                "the new document {n} must fit in the cache"
            );
        }
        assert_eq!(store.cached(), 10);
    }

    #[test]
    fn removed_namespaces_are_not_in_memory() {
        let store = Store::with_room_for(10);
        for n in 0..10 {
            store.put(n, n + 1);
            store.get(n, n + 1);
        }
        // The replaced document is no longer in the table, but is still in a queue of the cache.
        store.put(3, 100);
        let forgotten = [3, 5].map(hash).into_iter().collect();
        store.cache.remove_namespaces(&store.table, &forgotten);
        assert_eq!(store.cached(), 8);
        assert!(store.get(4, 5) && !store.get(5, 6));
    }

    #[test]
    fn zero_budget_caches_nothing() {
        let store = Store::with_room_for(0);
        store.put(1, 1);
        assert!(!store.get(1, 1) && !store.get(1, 1));
        assert_eq!(store.cached(), 0);
    }
}
