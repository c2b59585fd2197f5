//! Unit tests of the ledger.

use super::*;

/// An upload, or a request that waits for memory.
struct Opened {
    user: Arc<str>,
    id: UploadId,
    signal: Arc<UploadSignal>,
}

impl Opened {
    fn eviction(&self) -> Option<Eviction> {
        self.signal.eviction()
    }
}

impl Ledger {
    fn add(&mut self, user: &str, memory: u64) -> Opened {
        let (user, id, signal) = self.open(user, memory);
        Opened { user, id, signal }
    }

    fn add_many(&mut self, count: usize, user: &str, memory: u64) -> Vec<Opened> {
        (0..count).map(|_| self.add(user, memory)).collect()
    }

    fn holds_memory(&self, upload: &Opened) -> bool {
        let account = self.users.get(&upload.user);
        account.is_some_and(|account| account.uploads.contains_key(&upload.id))
    }

    fn end(&mut self, upload: &Opened) {
        self.close(&upload.user, upload.id);
    }

    /// Ends all uploads that were told to end, until no further upload is told to end.
    fn settle(&mut self, uploads: &mut Vec<Opened>) {
        while let Some(index) = uploads.iter().position(|u| u.eviction().is_some()) {
            let ended = uploads.remove(index);
            self.end(&ended);
        }
    }

    fn ask_disk(&mut self, upload: &Opened, bytes: u64) -> DiskOutcome {
        self.reserve_disk(&upload.user, upload.id, bytes)
    }

    fn set(&mut self, upload: &Opened, state: UploadState) {
        self.set_state(&upload.user, upload.id, state);
    }

    /// Checks that the sums match the uploads.
    fn check(&self) {
        let uploads = || self.users.values().flat_map(|user| user.uploads.values());
        let memory: u64 = uploads().map(|upload| upload.memory).sum();
        assert_eq!(memory + self.free_memory, self.memory);
        assert_eq!(
            uploads().map(|upload| upload.disk).sum::<u64>(),
            self.used_disk
        );
        for account in self.users.values() {
            let memory: u64 = account.uploads.values().map(|upload| upload.memory).sum();
            assert_eq!(memory, account.memory);
        }
    }
}

const UNLIMITED: u64 = u64::MAX;

#[test]
fn single_user_can_hold_the_complete_budget() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let mut uploads = ledger.add_many(10, "a", 10);
    let waiting = ledger.add("a", 10);
    assert!(uploads.iter().all(|upload| ledger.holds_memory(upload)));
    assert!(!ledger.holds_memory(&waiting));
    assert!(uploads.iter().all(|upload| upload.eviction().is_none()));
    let first = uploads.remove(0);
    ledger.end(&first);
    assert!(ledger.holds_memory(&waiting));
    ledger.check();
}

#[test]
fn user_above_a_quarter_loses_its_newest_uploads_to_other_users() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let mut hog = ledger.add_many(10, "hog", 10);
    let mut guests = Vec::new();
    for count in 1..=7 {
        let guest = ledger.add("guest", 10);
        let evicted: Vec<_> = hog.iter().filter(|u| u.eviction().is_some()).collect();
        assert_eq!(evicted.len(), 1, "{count}");
        assert_eq!(evicted[0].id, hog.last().unwrap().id);
        assert_eq!(evicted[0].eviction(), Some(Eviction::Memory));
        assert!(!ledger.holds_memory(&guest));
        ledger.settle(&mut hog);
        assert!(ledger.holds_memory(&guest), "{count}");
        guests.push(guest);
        ledger.check();
    }
    // The user now holds 30, and loses one more upload, because 30 is more than a quarter of 100.
    guests.push(ledger.add("guest", 10));
    ledger.settle(&mut hog);
    assert_eq!(hog.len(), 2);
    // 20 is less than a quarter. The next request waits.
    let waiting = ledger.add("guest", 10);
    ledger.settle(&mut hog);
    assert_eq!(hog.len(), 2);
    assert!(!ledger.holds_memory(&waiting));
    ledger.check();
}

#[test]
fn stalled_uploads_of_a_user_above_the_share_end_first() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let mut hog = ledger.add_many(10, "hog", 10);
    for index in [2, 4] {
        ledger.set(&hog[index], UploadState::Stalled);
    }
    for expected in [4, 2, 7] {
        ledger.add("guest", 10);
        let evicted = hog.iter().position(|u| u.eviction().is_some());
        assert_eq!(evicted, Some(expected));
        assert_eq!(hog[expected].eviction(), Some(Eviction::Memory));
        ledger.settle(&mut hog);
    }
    ledger.check();
}

#[test]
fn requests_of_a_user_with_much_memory_wait_behind_those_of_other_users() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let mut hog = ledger.add_many(10, "hog", 10);
    let queued = ledger.add_many(50, "hog", 10);
    let guest = ledger.add("guest", 10);
    ledger.settle(&mut hog);
    assert!(ledger.holds_memory(&guest));
    assert!(queued.iter().all(|upload| !ledger.holds_memory(upload)));
    ledger.end(&guest);
    assert!(ledger.holds_memory(&queued[0]));
    ledger.check();
}

#[test]
fn share_shrinks_if_more_than_four_users_need_the_budget() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let mut uploads: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .flat_map(|user| ledger.add_many(5, user, 5))
        .collect();
    assert_eq!(ledger.used_memory(), 100);
    let guest = ledger.add("e", 5);
    ledger.settle(&mut uploads);
    assert!(ledger.holds_memory(&guest));
    assert_eq!(uploads.len(), 19);
    ledger.check();
}

#[test]
fn single_upload_above_the_share_is_not_evicted() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let large = ledger.add("a", 1000);
    assert_eq!(ledger.used_memory(), 100);
    let waiting = ledger.add("b", 10);
    assert_eq!(large.eviction(), None);
    ledger.end(&large);
    assert!(ledger.holds_memory(&waiting));
    ledger.check();
}

#[test]
fn stalled_upload_is_evicted_for_a_user_with_at_most_as_much_memory() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let (small, large) = (ledger.add("small", 10), ledger.add("large", 90));
    let waiting = ledger.add("large", 10);
    ledger.set(&small, UploadState::Stalled);
    assert_eq!(small.eviction(), None);
    ledger.set(&large, UploadState::Stalled);
    assert_eq!(large.eviction(), Some(Eviction::Stalled));
    ledger.end(&large);
    assert!(ledger.holds_memory(&waiting));
    let waiting = ledger.add("other", 90);
    assert_eq!(small.eviction(), Some(Eviction::Stalled));
    ledger.end(&small);
    assert!(ledger.holds_memory(&waiting));
    ledger.check();
}

#[test]
fn upload_that_makes_progress_again_or_is_complete_is_not_evicted() {
    for state in [UploadState::Receiving, UploadState::Received] {
        let mut ledger = Ledger::new(100, UNLIMITED);
        let upload = ledger.add("a", 100);
        ledger.set(&upload, UploadState::Stalled);
        ledger.set(&upload, state);
        ledger.add("b", 10);
        assert_eq!(upload.eviction(), None, "{state:?}");
    }
}

#[test]
fn request_that_gives_up_waiting_leaves_the_queue() {
    let mut ledger = Ledger::new(100, UNLIMITED);
    let upload = ledger.add("a", 100);
    let (gone, waiting) = (ledger.add("b", 10), ledger.add("c", 10));
    ledger.end(&gone);
    ledger.end(&upload);
    assert!(!ledger.holds_memory(&gone));
    assert!(ledger.holds_memory(&waiting));
    ledger.end(&waiting);
    assert!(ledger.users.is_empty());
    ledger.check();
}

#[test]
fn disk_space_comes_from_the_newest_upload_of_the_user_with_the_most() {
    let mut ledger = Ledger::new(1000, 100);
    let hog = ledger.add_many(4, "hog", 1);
    let guest = ledger.add("guest", 1);
    for upload in &hog {
        assert_eq!(ledger.ask_disk(upload, 25), DiskOutcome::Reserved);
    }
    assert_eq!(ledger.ask_disk(&guest, 10), DiskOutcome::Wait);
    assert_eq!(hog[3].eviction(), Some(Eviction::Disk));
    assert!(hog[..3].iter().all(|upload| upload.eviction().is_none()));
    // Nothing more ends while the upload that was told to end frees enough.
    assert_eq!(ledger.ask_disk(&guest, 10), DiskOutcome::Wait);
    assert!(hog[..3].iter().all(|upload| upload.eviction().is_none()));
    ledger.end(&hog[3]);
    assert_eq!(ledger.ask_disk(&guest, 10), DiskOutcome::Reserved);
    // The same user gets no more space at the cost of another user. Its newest upload must end.
    assert_eq!(ledger.ask_disk(&hog[2], 20), DiskOutcome::Refused);
    assert_eq!(ledger.ask_disk(&hog[0], 20), DiskOutcome::Wait);
    assert_eq!(hog[2].eviction(), Some(Eviction::Disk));
    assert_eq!(guest.eviction(), None);
    ledger.check();
}

#[test]
fn oldest_upload_always_gets_disk_space() {
    let mut ledger = Ledger::new(1000, 100);
    let uploads: Vec<_> = ["a", "b", "c"].iter().map(|u| ledger.add(u, 1)).collect();
    for upload in &uploads {
        assert_eq!(ledger.ask_disk(upload, 33), DiskOutcome::Reserved);
    }
    // An upload that holds no space yet gets none at the cost of older uploads.
    let newest = ledger.add("d", 1);
    assert_eq!(ledger.ask_disk(&newest, 33), DiskOutcome::Refused);
    assert!(uploads.iter().all(|upload| upload.eviction().is_none()));
    ledger.end(&newest);
    // Each user has one upload. The newest upload ends, regardless of which upload needs more
    // space.
    assert_eq!(ledger.ask_disk(&uploads[2], 33), DiskOutcome::Refused);
    assert_eq!(ledger.ask_disk(&uploads[0], 67), DiskOutcome::Wait);
    assert_eq!(uploads[2].eviction(), Some(Eviction::Disk));
    assert_eq!(uploads[1].eviction(), Some(Eviction::Disk));
    ledger.end(&uploads[2]);
    ledger.end(&uploads[1]);
    assert_eq!(ledger.ask_disk(&uploads[0], 67), DiskOutcome::Reserved);
    ledger.check();
}

#[test]
fn disk_space_of_a_complete_upload_is_awaited() {
    let mut ledger = Ledger::new(1000, 100);
    let (complete, other) = (ledger.add("a", 1), ledger.add("b", 1));
    assert_eq!(ledger.ask_disk(&complete, 100), DiskOutcome::Reserved);
    ledger.set(&complete, UploadState::Received);
    assert_eq!(ledger.ask_disk(&other, 50), DiskOutcome::Wait);
    assert_eq!(complete.eviction(), None);
    ledger.end(&complete);
    assert_eq!(ledger.ask_disk(&other, 50), DiskOutcome::Reserved);
    ledger.check();
}
