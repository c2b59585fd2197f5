//! The document cache: which documents stay in memory, up to a budget in bytes. The table
//! holds them, where reads find them; here is the order in which they go.
//!
//! Those that have just come wait in a short queue. What was read again by the time that
//! it gets to the front goes to the end of a long one, where the same is asked over and
//! over; what was not, goes. So one pass over many documents takes little from those that
//! are read often (as in S3-FIFO, Yang et al., SOSP 2023), and a read changes nothing
//! here: it marks the document.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::index::document::Document;
use crate::index::table::Table;
use crate::model::names::NamespaceHash;

/// Of the budget, what those have that were read once.
const NEW_SHARE: u64 = 10;
/// Documents that one that comes looks at, at most, to find some to go: where all were
/// read again and again, no read looks at all of them.
const MAX_LOOKS: usize = 64;

pub(crate) struct DocumentCache {
    max_bytes: u64,
    queues: Mutex<EvictionQueues>,
}

#[derive(Default)]
struct EvictionQueues {
    new: EvictionQueue,
    proven: EvictionQueue,
}

/// Documents in the order in which they are looked at.
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

/// Bytes that a document takes here: its own, and its place in a queue.
fn weight(document: &Document) -> u64 {
    document.weight() + size_of::<(NamespaceHash, Document)>() as u64
}

impl EvictionQueues {
    fn bytes(&self) -> u64 {
        self.new.bytes + self.proven.bytes
    }

    /// The documents that go, so that the others take no more than `max_bytes`.
    fn evict(&mut self, max_bytes: u64) -> Vec<(NamespaceHash, Document)> {
        let mut gone = Vec::new();
        let mut looks = 0;
        while self.bytes() > max_bytes {
            let is_new = self.new.bytes > max_bytes / NEW_SHARE || self.proven.bytes == 0;
            let queue = if is_new {
                &mut self.new
            } else {
                &mut self.proven
            };
            let Some((hash, document)) = queue.pop() else {
                break;
            };
            looks += 1;
            // Only held here, it was replaced or deleted.
            let stays = document.take_mark() && !document.is_held_once() && looks <= MAX_LOOKS;
            if stays {
                self.proven.push(hash, document);
            } else {
                gone.push((hash, document));
            }
        }
        gone
    }
}

impl DocumentCache {
    pub(crate) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            queues: Mutex::default(),
        }
    }

    /// Memory that the documents take.
    pub(crate) fn bytes(&self) -> u64 {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.bytes()
    }

    /// Holds nothing of these namespaces any longer. Walks all that it has.
    pub(crate) fn forget(&self, table: &Table, hashes: &HashSet<NamespaceHash>) {
        let mut gone = Vec::new();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let EvictionQueues { new, proven } = &mut *queues;
        for queue in [new, proven] {
            let documents = std::mem::take(queue).documents;
            for (hash, document) in documents {
                if hashes.contains(&hash) {
                    gone.push((hash, document));
                } else {
                    queue.push(hash, document);
                }
            }
        }
        drop(queues);
        for (hash, document) in gone {
            table.let_go(hash, &document);
        }
    }

    /// Keeps a document that was just read, and lets others go for it.
    pub(crate) fn keep(&self, table: &Table, hash: NamespaceHash, document: &Document) {
        // One with blobs holds files open, which are scarcer than memory.
        let fits = weight(document) <= self.max_bytes && document.in_memory().is_some();
        if !fits || !table.hold(hash, document) {
            return;
        }
        let gone = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.new.push(hash, document.clone());
            queues.evict(self.max_bytes)
        };
        for (hash, document) in gone {
            table.let_go(hash, &document);
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

        /// Whether it was in memory. It is afterwards.
        fn get(&self, n: u64, revision: u64) -> bool {
            if let (_, Some(found)) = self.table.newest_held(hash(n)) {
                assert_eq!(found.stat().revision.get(), revision);
                found.mark();
                return true;
            }
            self.cache.keep(&self.table, hash(n), &document(revision));
            false
        }

        fn held(&self) -> u64 {
            let queues = self.cache.queues.lock().unwrap();
            let held = queues.new.documents.len() + queues.proven.documents.len();
            assert!(queues.bytes() <= self.cache.max_bytes);
            assert_eq!(queues.bytes(), weight(&document(0)) * held as u64);
            held as u64
        }
    }

    #[test]
    fn it_stays_within_its_budget_and_the_table_holds_what_it_has() {
        let store = Store::with_room_for(10);
        for n in 0..100 {
            store.put(n, n + 1);
            assert!(!store.get(n, n + 1));
            assert!(store.get(n, n + 1), "the last one stays");
        }
        assert_eq!(store.held(), 10);
        let in_table = (0..100).filter(|n| store.table.newest_held(hash(*n)).1.is_some());
        assert_eq!(in_table.count(), 10);
    }

    #[test]
    fn a_pass_over_many_leaves_those_that_are_read_often() {
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
        // Each once, and those that are read often in between, as seldom as it can be.
        for n in 100..1000 {
            assert!(!store.get(n, n + 1));
            if n % 5 == 0 {
                let again = often.start + (n / 5) % 10;
                assert!(store.get(again, again + 1), "{again} at {n}");
            }
        }
        // One pass of the same size over what nobody else reads takes no more.
        assert_eq!(store.held(), 20);
    }

    #[test]
    fn what_was_replaced_is_not_found_and_goes_first() {
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
            assert!(!store.get(n, 100 + n), "{n} was replaced");
        }
        for n in 5..10 {
            assert!(store.get(n, n + 1), "{n} was not");
        }
        for n in 0..5 {
            assert!(store.get(n, 100 + n), "there is room where {n} was");
        }
        assert_eq!(store.held(), 10);
    }

    #[test]
    fn what_is_forgotten_is_in_memory_no_more() {
        let store = Store::with_room_for(10);
        for n in 0..10 {
            store.put(n, n + 1);
            store.get(n, n + 1);
        }
        // Replaced, so that only the cache has it.
        store.put(3, 100);
        let forgotten = [3, 5].map(hash).into_iter().collect();
        store.cache.forget(&store.table, &forgotten);
        assert_eq!(store.held(), 8);
        assert!(store.get(4, 5) && !store.get(5, 6));
    }

    #[test]
    fn without_a_budget_it_holds_nothing() {
        let store = Store::with_room_for(0);
        store.put(1, 1);
        assert!(!store.get(1, 1) && !store.get(1, 1));
        assert_eq!(store.held(), 0);
    }
}
