//! The accounts of the upload budget: which uploads hold memory and disk space, which requests wait
//! for memory, and which uploads must end.
//!
//! Users share the budget. While requests of other users wait, a user whose uploads hold more than
//! the user's share loses uploads: first the newest upload that has stalled, and if none has
//! stalled, the newest upload. The share of a user is a quarter of the budget, or less if the
//! budget has more than four users.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

/// Minimum number of users among whom the budget is divided. A single user can hold the complete
/// budget, but while other users wait, only a quarter of the budget.
const MIN_SHARES: u64 = 4;

/// The id of an upload. A newer upload has a higher id.
pub(super) type UploadId = u64;

/// Why an upload must end before its body is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Eviction {
    /// Another request waits for memory, and the client has sent data too slowly.
    Stalled = 1,
    /// Requests of other users wait for memory, and the user holds more than its share.
    Memory = 2,
    /// The unfinished uploads need too much disk space.
    Disk = 3,
}

/// The signals from the ledger to one upload.
#[derive(Debug, Default)]
pub(super) struct UploadSignal {
    /// The upload has received its memory.
    pub(super) granted: Notify,
    /// The upload must end; see [`Self::eviction`].
    pub(super) evicted: Notify,
    /// The number of an [`Eviction`], or 0.
    eviction: AtomicU8,
}

impl UploadSignal {
    /// Returns why the upload must end, or `None` if it may continue.
    pub(super) fn eviction(&self) -> Option<Eviction> {
        let reason = self.eviction.load(Ordering::Acquire);
        [Eviction::Stalled, Eviction::Memory, Eviction::Disk]
            .into_iter()
            .find(|eviction| *eviction as u8 == reason)
    }

    fn evict(&self, reason: Eviction) {
        self.eviction.store(reason as u8, Ordering::Release);
        self.evicted.notify_one();
    }
}

/// The state of an upload that holds memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadState {
    /// The upload is receiving its body.
    Receiving,
    /// The upload is receiving its body, but its client has sent almost nothing for some time.
    Stalled,
    /// The upload has been told to end.
    Ending,
    /// The body is complete, so the upload ends soon.
    Received,
}

/// An upload that holds memory.
#[derive(Debug)]
struct Upload {
    memory: u64,
    disk: u64,
    state: UploadState,
    signal: Arc<UploadSignal>,
}

impl Upload {
    fn can_be_evicted(&self) -> bool {
        matches!(self.state, UploadState::Receiving | UploadState::Stalled)
    }
}

/// A request that waits for memory.
#[derive(Debug)]
struct Waiter {
    memory: u64,
    signal: Arc<UploadSignal>,
}

/// The uploads and waiting requests of one user.
#[derive(Debug, Default)]
struct Account {
    uploads: BTreeMap<UploadId, Upload>,
    waiters: BTreeMap<UploadId, Waiter>,
    /// Memory of all uploads of the user.
    memory: u64,
}

impl Account {
    /// The uploads that can be evicted, the oldest first.
    fn active(&self) -> impl DoubleEndedIterator<Item = (UploadId, &Upload)> {
        let uploads = self.uploads.iter().map(|(id, upload)| (*id, upload));
        uploads.filter(|(_, upload)| upload.can_be_evicted())
    }

    fn newest_stalled(&self) -> Option<UploadId> {
        let stalled = |(_, upload): &(UploadId, &Upload)| upload.state == UploadState::Stalled;
        self.active().rfind(stalled).map(|(id, _)| id)
    }
}

/// The outcome of a request for disk space.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DiskOutcome {
    Reserved,
    /// Other uploads have been told to end. Ask again once an upload has ended.
    Wait,
    /// The upload that asked must end.
    Refused,
}

/// The uploads and waiting requests of all users.
#[derive(Debug)]
pub(super) struct Ledger {
    memory: u64,
    free_memory: u64,
    disk: u64,
    used_disk: u64,
    users: HashMap<Arc<str>, Account>,
    next_id: UploadId,
}

impl Ledger {
    /// Creates a ledger for `memory` bytes of memory and `disk` bytes of disk space.
    pub(super) fn new(memory: u64, disk: u64) -> Self {
        Self {
            memory,
            free_memory: memory,
            disk,
            used_disk: 0,
            users: HashMap::new(),
            next_id: 0,
        }
    }

    /// Adds an upload that needs `memory` bytes. The upload holds the memory once `granted` has
    /// been notified. No upload receives more than the complete budget.
    pub(super) fn open(
        &mut self,
        user: &str,
        memory: u64,
    ) -> (Arc<str>, UploadId, Arc<UploadSignal>) {
        let id = self.next_id;
        self.next_id += 1;
        let signal = Arc::<UploadSignal>::default();
        let waiter = Waiter {
            memory: memory.min(self.memory),
            signal: Arc::clone(&signal),
        };
        let user = self
            .users
            .get_key_value(user)
            .map_or_else(|| user.into(), |(user, _)| Arc::clone(user));
        let account = self.users.entry(Arc::clone(&user)).or_default();
        account.waiters.insert(id, waiter);
        self.balance();
        (user, id, signal)
    }

    /// Removes an upload, or a request that waits for memory.
    pub(super) fn close(&mut self, user: &str, id: UploadId) {
        let Some(account) = self.users.get_mut(user) else {
            return;
        };
        account.waiters.remove(&id);
        if let Some(upload) = account.uploads.remove(&id) {
            account.memory -= upload.memory;
            self.free_memory += upload.memory;
            self.used_disk -= upload.disk;
        }
        if account.uploads.is_empty() && account.waiters.is_empty() {
            self.users.remove(user);
        }
        self.balance();
    }

    /// Changes the state of an upload that has not been told to end.
    pub(super) fn set_state(&mut self, user: &str, id: UploadId, state: UploadState) {
        let account = self.users.get_mut(user);
        if let Some(upload) = account.and_then(|account| account.uploads.get_mut(&id))
            && upload.can_be_evicted()
        {
            upload.state = state;
        }
        if state == UploadState::Stalled {
            self.balance();
        }
    }

    /// Reserves further disk space for an upload. If not enough space is free, other uploads are
    /// told to end, or the upload itself must end.
    pub(super) fn reserve_disk(&mut self, user: &str, id: UploadId, bytes: u64) -> DiskOutcome {
        let needed = (self.used_disk + bytes).saturating_sub(self.disk);
        if needed == 0 {
            let account = self.users.get_mut(user);
            if let Some(upload) = account.and_then(|account| account.uploads.get_mut(&id)) {
                upload.disk += bytes;
                self.used_disk += bytes;
            }
            return DiskOutcome::Reserved;
        }
        while self.ending(|upload| upload.disk) < needed {
            match self.disk_victim(id) {
                Some((owner, newest)) if newest != id => {
                    self.evict(&owner, newest, Eviction::Disk);
                }
                _ => return DiskOutcome::Refused,
            }
        }
        DiskOutcome::Wait
    }

    /// Memory that uploads hold, in bytes.
    pub(super) fn used_memory(&self) -> u64 {
        self.memory - self.free_memory
    }

    /// Size of the memory budget in bytes.
    pub(super) fn max_memory(&self) -> u64 {
        self.memory
    }

    /// Disk space that uploads hold, in bytes.
    pub(super) fn used_disk(&self) -> u64 {
        self.used_disk
    }

    /// Maximum disk space of all uploads in bytes.
    pub(super) fn max_disk(&self) -> u64 {
        self.disk
    }

    /// Grants memory to the requests that wait. The user with the least memory comes first. If the
    /// free memory is not enough for the next request, tells uploads to end.
    fn balance(&mut self) {
        while let Some((user, id, memory)) = self.next_waiter() {
            if memory > self.free_memory {
                self.evict_for(&user, memory - self.free_memory);
                return;
            }
            let Some(account) = self.users.get_mut(&user) else {
                return;
            };
            if let Some(waiter) = account.waiters.remove(&id) {
                waiter.signal.granted.notify_one();
                account.memory += memory;
                self.free_memory -= memory;
                let upload = Upload {
                    memory,
                    disk: 0,
                    state: UploadState::Receiving,
                    signal: waiter.signal,
                };
                account.uploads.insert(id, upload);
            }
        }
    }

    fn next_waiter(&self) -> Option<(Arc<str>, UploadId, u64)> {
        let waiting = self.users.iter().filter_map(|(user, account)| {
            let (id, waiter) = account.waiters.first_key_value()?;
            Some((account.memory, *id, user, waiter.memory))
        });
        let (_, id, user, memory) = waiting.min_by_key(|(held, id, ..)| (*held, *id))?;
        Some((Arc::clone(user), id, memory))
    }

    /// Tells uploads to end until `needed` bytes of memory will become free, or until no further
    /// upload should end for a request of `waiting`.
    fn evict_for(&mut self, waiting: &str, needed: u64) {
        while self.ending(|upload| upload.memory) < needed {
            let Some((user, id, reason)) = self.memory_victim(waiting) else {
                return;
            };
            self.evict(&user, id, reason);
        }
    }

    /// Sums up a resource of the uploads that end soon.
    fn ending(&self, resource: impl Fn(&Upload) -> u64) -> u64 {
        let uploads = self.users.values().flat_map(|user| user.uploads.values());
        let ending = uploads.filter(|upload| !upload.can_be_evicted());
        ending.map(resource).sum()
    }

    /// Returns the upload that should end so that a request of the user `waiting` receives memory:
    /// an upload of a user who holds more than its share, or otherwise a stalled upload of a user
    /// who holds at least as much as `waiting`.
    fn memory_victim(&self, waiting: &str) -> Option<(Arc<str>, UploadId, Eviction)> {
        let others = self.users.iter().filter(|(user, _)| ***user != *waiting);
        if let Some((user, account)) =
            heaviest_above_share(others, self.memory, self.users.len(), |u| u.memory)
        {
            let newest = || account.active().next_back().map(|(id, _)| id);
            let id = account.newest_stalled().or_else(newest)?;
            return Some((Arc::clone(user), id, Eviction::Memory));
        }
        let held = self.users.get(waiting).map_or(0, |account| account.memory);
        let stalled = self.users.iter().filter_map(|(user, account)| {
            let id = account.newest_stalled()?;
            (account.memory >= held).then_some((account.memory, user, id))
        });
        let (_, user, id) = stalled.max_by_key(|(memory, _, id)| (*memory, *id))?;
        Some((Arc::clone(user), id, Eviction::Stalled))
    }

    /// Returns the upload that should end to free disk space: the newest upload of a user who holds
    /// more than its share, or otherwise the newest of all uploads that hold disk space. The upload
    /// `asking` counts as an upload that holds disk space.
    fn disk_victim(&self, asking: UploadId) -> Option<(Arc<str>, UploadId)> {
        let newest_of = |(user, account): (&Arc<str>, &Account)| {
            let holds_disk = |(id, upload): &(UploadId, &Upload)| upload.disk > 0 || *id == asking;
            let (id, _) = account.active().rfind(holds_disk)?;
            Some((Arc::clone(user), id))
        };
        let count = self.users.iter().filter_map(newest_of).count();
        match heaviest_above_share(self.users.iter(), self.disk, count, |upload| upload.disk) {
            Some(user) => newest_of(user),
            None => self
                .users
                .iter()
                .filter_map(newest_of)
                .max_by_key(|(_, id)| *id),
        }
    }

    fn evict(&mut self, user: &str, id: UploadId, reason: Eviction) {
        let account = self.users.get_mut(user);
        if let Some(upload) = account.and_then(|account| account.uploads.get_mut(&id)) {
            upload.state = UploadState::Ending;
            upload.signal.evict(reason);
        }
    }
}

/// Returns the user whose active uploads hold the most of a resource, if they hold more than the
/// user's share. A single upload may exceed the share, so users with one upload are skipped.
fn heaviest_above_share<'a>(
    users: impl Iterator<Item = (&'a Arc<str>, &'a Account)>,
    capacity: u64,
    count: usize,
    resource: impl Fn(&Upload) -> u64,
) -> Option<(&'a Arc<str>, &'a Account)> {
    let share = capacity / MIN_SHARES.max(count as u64);
    let above = users.filter_map(|(user, account)| {
        let held = account.active().map(|(_, upload)| resource(upload));
        let (uploads, held) = held
            .filter(|bytes| *bytes > 0)
            .fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        (uploads > 1 && held > share).then_some((held, user, account))
    });
    let (_, user, account) = above.max_by_key(|(held, ..)| *held)?;
    Some((user, account))
}

#[cfg(test)]
mod tests;
