//! Limits how many connections may be open at the same time. If the limit is reached and a new
//! client connects, the connection limit decides which connections are shed, which means that the
//! server closes them.
//!
//! Only connections that wait for their client can be shed. A connection is never shed while the
//! server works on its request. Connections are shed in this order:
//!
//! 1. *Untrusted* connections: no request was granted yet, or no request was granted after the last
//!    refused request.
//! 2. *New* connections: exactly one request was granted after the last refused request, if any.
//! 3. *Established* connections: at least two requests were granted after the last refused request,
//!    if any.
//!
//! Anybody can open thousands of untrusted connections. A request that needs no token, such as a
//! health check, does not make a connection trusted.
//!
//! Within a class, the connection that has waited longest for its client is shed first. A
//! connection can wait for a request head, for more of a body, or for the client to read a
//! response. All of these waiting times count in the same way. If a client sends or reads only
//! single bytes, the waiting time of its connection does not restart (see `minimum_rate`).
//!
//! A delay of the server itself does not count as waiting for the client. A connection begins to
//! wait when the task that serves it runs for the first time. Before connections are shed, their
//! tasks can read what the clients have sent (see `run_ready_tasks`).
//!
//! To update the state of its connection, a request needs no lock: it writes only two atomics. The
//! lock on the list of connections is acquired only when a connection opens, and for each round of
//! shedding. The connections are ranked only while the limit is reached. In a similar way, nginx
//! closes its reusable connections (`ngx_drain_connections`).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::timeout;

/// How long an untrusted connection may wait for its client before it can be shed. This time is
/// short, because a client usually sends its request head right after the TCP handshake.
const UNTRUSTED_GRACE: Duration = Duration::from_millis(100);
/// How long a new connection may wait for its client before it can be shed. This time is longer
/// than usual network round trips, and longer than a busy client usually needs between a response
/// and its next request.
const NEW_GRACE: Duration = Duration::from_secs(1);
/// How long an established connection may wait for its client before it can be shed. If this time
/// were not longer than `NEW_GRACE`, an established connection would be shed before a new one that
/// began to wait shortly after it.
const ESTABLISHED_GRACE: Duration = Duration::from_secs(2);
/// Pause between two rounds of shedding while a new client waits for a slot.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of connections that one round sheds. The number is greater than one, so that not
/// every new client causes a search through all connections.
const MAX_SHED_PER_ROUND: usize = 32;
/// One round sheds at most 1/`SHED_DIVISOR` of the connections that can be shed, but at least one
/// connection. If only a few connections can be shed, they are therefore not all shed at once.
const SHED_DIVISOR: usize = 8;
/// While untrusted connections that wait for their clients hold at least 1/`UNTRUSTED_DIVISOR` of
/// the slots, no trusted connection is shed, because these slots are soon free. If they held fewer
/// slots, anybody could delay all new clients: the clients would wait for these few slots, each of
/// which is free only once in `UNTRUSTED_GRACE`.
const UNTRUSTED_DIVISOR: usize = 4;
/// Minimum time between two log lines about the connection limit.
const WARN_INTERVAL: Duration = Duration::from_mins(1);

/// This value of `waiting_since_ms` means that the connection does not wait for its client.
const NOT_WAITING: u64 = u64::MAX;
/// This value of `waiting_since_ms` means that the connection was shed.
const SHED: u64 = u64::MAX - 1;

// The trust classes of connections. Connections of a lower class are shed first.
const UNTRUSTED: u8 = 0;
const NEW: u8 = 1;
const ESTABLISHED: u8 = 2;

/// The facts that decide whether a connection may be shed. The task that serves the connection
/// updates this state. While all slots are in use, the connection limit reads the state, and marks
/// the connections that it sheds.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// The time from which milliseconds are counted.
    epoch: Instant,
    /// The time at which the connection began to wait for its client, in milliseconds since
    /// `epoch`. `NOT_WAITING` and `SHED` are special values.
    waiting_since_ms: AtomicU64,
    /// One of `UNTRUSTED`, `NEW` and `ESTABLISHED`.
    class: AtomicU8,
}

/// The connection was shed to free its slot for another client.
#[derive(Debug)]
pub(crate) struct ConnectionShed;

impl ConnectionState {
    /// Creates the state of a connection that does not wait for its client yet.
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            waiting_since_ms: AtomicU64::new(NOT_WAITING),
            class: AtomicU8::new(UNTRUSTED),
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        elapsed_ms(self.epoch)
    }

    /// Records that the connection begins to wait for its client.
    pub(super) fn mark_waiting_now(&self) {
        self.mark_waiting(self.now_ms());
    }

    /// Records that the connection has been waiting for its client since `since_ms`. Does nothing
    /// if the connection is already waiting or was shed.
    pub(super) fn mark_waiting(&self, since_ms: u64) {
        let _ = self.waiting_since_ms.compare_exchange(
            NOT_WAITING,
            since_ms,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Records that the client has sent or read something. The connection cannot be shed until the
    /// next call of [`Self::mark_waiting`].
    pub(super) fn mark_active(&self) -> Result<(), ConnectionShed> {
        let before = self.waiting_since_ms.swap(NOT_WAITING, Ordering::Relaxed);
        if before == SHED {
            self.waiting_since_ms.store(SHED, Ordering::Relaxed);
            return Err(ConnectionShed);
        }
        Ok(())
    }

    /// Records that a request was granted. The body of the request may still be in transit.
    pub(crate) fn record_granted(&self) {
        match self.class.load(Ordering::Relaxed) {
            UNTRUSTED => self.class.store(NEW, Ordering::Relaxed),
            NEW => self.class.store(ESTABLISHED, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Records that a request was refused.
    pub(super) fn record_refused(&self) {
        self.class.store(UNTRUSTED, Ordering::Relaxed);
    }

    /// Marks the connection as shed if it is still waiting and its wait began at `since_ms`.
    /// Returns whether this call has marked the connection.
    fn try_shed(&self, since_ms: u64) -> bool {
        self.waiting_since_ms
            .compare_exchange(since_ms, SHED, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// The connection's position in the shedding order. `None` if the connection does not wait
    /// for its client, or was shed.
    fn shed_rank(&self) -> Option<ShedRank> {
        let since_ms = self.waiting_since_ms.load(Ordering::Relaxed);
        let class = self.class.load(Ordering::Relaxed);
        (since_ms < SHED).then_some(ShedRank { class, since_ms })
    }
}

/// Milliseconds since `epoch`. The result is never `NOT_WAITING` or `SHED`.
fn elapsed_ms(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_millis()).unwrap_or(SHED - 1)
}

/// A connection's position in the shedding order. The connection with the lowest rank is shed
/// first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ShedRank {
    class: u8,
    since_ms: u64,
}

impl ShedRank {
    fn is_past_grace(self, now_ms: u64) -> bool {
        let grace = match self.class {
            UNTRUSTED => UNTRUSTED_GRACE,
            NEW => NEW_GRACE,
            _ => ESTABLISHED_GRACE,
        };
        Duration::from_millis(now_ms.saturating_sub(self.since_ms)) >= grace
    }
}

/// One of the `max_connections` slots. Each connection that is being served holds a slot. Dropping
/// this value frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    state: Arc<ConnectionState>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionSlot {
    pub(super) fn state(&self) -> &Arc<ConnectionState> {
        &self.state
    }
}

/// Limits how many connections are open at the same time.
#[derive(Debug)]
pub(crate) struct ConnectionLimit {
    free_slots: Arc<Semaphore>,
    max_connections: usize,
    epoch: Instant,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    /// This list also contains connections that have ended. Ended connections are removed before
    /// connections are shed, and before a connection is added to a list that has at least twice as
    /// many entries as there are slots.
    connections: Vec<OpenConnection>,
    last_warning: Option<Instant>,
}

#[derive(Debug, Clone)]
struct OpenConnection {
    state: Arc<ConnectionState>,
    task: AbortHandle,
}

impl ConnectionLimit {
    pub(crate) fn new(max_connections: usize) -> Self {
        let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            free_slots: Arc::new(Semaphore::new(max_connections)),
            max_connections,
            epoch: Instant::now(),
            open: Mutex::default(),
        }
    }

    /// Waits for a free slot. While no slot is free, this function sheds connections that wait for
    /// their clients.
    pub(super) async fn acquire(&self) -> ConnectionSlot {
        let permit = match Arc::clone(&self.free_slots).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => loop {
                let waiting = self.longest_waiting();
                run_ready_tasks().await;
                self.shed(waiting);
                let permit = Arc::clone(&self.free_slots).acquire_owned();
                if let Ok(permit) = timeout(RETRY_INTERVAL, permit).await {
                    // The semaphore is never closed, so `permit` is always `Ok`.
                    break permit.ok();
                }
            },
        };
        ConnectionSlot {
            state: Arc::new(ConnectionState::new(self.epoch)),
            _permit: permit,
        }
    }

    /// Records the task that serves a connection, so that shedding can abort it.
    pub(super) fn register(&self, state: Arc<ConnectionState>, task: AbortHandle) {
        let mut open = self.lock();
        if open.connections.len() >= 2 * self.max_connections {
            open.connections.retain(|c| !c.task.is_finished());
        }
        open.connections.push(OpenConnection { state, task });
    }

    /// The connections that are first in the shedding order. Empty if none can be shed.
    fn longest_waiting(&self) -> Vec<(ShedRank, OpenConnection)> {
        let mut open = self.lock();
        open.connections.retain(|c| !c.task.is_finished());
        let now_ms = elapsed_ms(self.epoch);
        let ranked = |c: &OpenConnection| Some((c.state.shed_rank()?, c.clone()));
        let mut waiting: Vec<_> = open.connections.iter().filter_map(ranked).collect();
        retain_first_in_order(&mut waiting, self.max_connections, now_ms);
        waiting
    }

    /// Sheds those of the connections that have not stopped waiting since they were ranked.
    fn shed(&self, waiting: Vec<(ShedRank, OpenConnection)>) {
        let mut has_shed = false;
        for (rank, connection) in waiting {
            if connection.state.try_shed(rank.since_ms) {
                connection.task.abort();
                has_shed = true;
            }
        }
        if has_shed {
            self.warn();
        }
    }

    /// Logs that connections are being shed, unless that was logged recently.
    fn warn(&self) {
        let mut open = self.lock();
        let warned_recently = open
            .last_warning
            .is_some_and(|warned| warned.elapsed() < WARN_INTERVAL);
        if !warned_recently {
            open.last_warning = Some(Instant::now());
            tracing::warn!(
                max_connections = self.max_connections,
                "connection limit reached (--max-connections): closing idle connections, and \
                 connections with a slow client"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OpenConnections> {
        // A panic while the lock is held leaves the state consistent, because each change to it is
        // a single operation.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets a worker look for data that has arrived, and run the tasks that wait for the data. Each
/// yield runs the tasks that are ready, and then looks for data. The spawned task is necessary,
/// because the accept loop does not run on a worker. The task can fail only while the runtime is
/// shut down.
async fn run_ready_tasks() {
    let yield_twice = async {
        yield_now().await;
        yield_now().await;
    };
    let _ = tokio::spawn(yield_twice).await;
}

/// Removes all connections except those that one round sheds.
fn retain_first_in_order<T>(waiting: &mut Vec<(ShedRank, T)>, max_connections: usize, now_ms: u64) {
    let is_untrusted = |(rank, _): &&(ShedRank, T)| rank.class == UNTRUSTED;
    let untrusted = waiting.iter().filter(is_untrusted).count();
    let has_enough_untrusted = untrusted > 0 && untrusted >= max_connections / UNTRUSTED_DIVISOR;
    waiting.retain(|(rank, _)| {
        rank.is_past_grace(now_ms) && (rank.class == UNTRUSTED || !has_enough_untrusted)
    });
    waiting.sort_unstable_by_key(|(rank, _)| *rank);
    waiting.truncate((waiting.len() / SHED_DIVISOR).clamp(1, MAX_SHED_PER_ROUND));
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::Poll;

    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    use super::*;

    /// Returns the class of the connection that is shed first, and the time at which it is shed, in
    /// milliseconds. Each connection is given by its class and by the time at which it began to
    /// wait.
    fn first_shed(connections: &[(u8, u64)]) -> (u8, u64) {
        (0..)
            .find_map(|now_ms| {
                let waiting = connections
                    .iter()
                    .filter(|(_, since_ms)| *since_ms <= now_ms);
                let mut waiting = waiting
                    .map(|&(class, since_ms)| (ShedRank { class, since_ms }, class))
                    .collect();
                retain_first_in_order(&mut waiting, connections.len(), now_ms);
                Some((waiting.first()?.1, now_ms))
            })
            .unwrap()
    }

    #[test]
    fn connection_of_a_lower_class_is_shed_first_even_if_it_has_waited_less() {
        assert_eq!(first_shed(&[(ESTABLISHED, 0)]), (ESTABLISHED, 2000));
        assert_eq!(first_shed(&[(ESTABLISHED, 0), (NEW, 999)]), (NEW, 1999));
        assert_eq!(first_shed(&[(NEW, 0), (UNTRUSTED, 950)]), (UNTRUSTED, 1050));
        // A new connection that begins to wait later does not protect an established one.
        let late = [(ESTABLISHED, 0), (NEW, 1500)];
        assert_eq!(first_shed(&late), (ESTABLISHED, 2000));
    }

    /// Returns how many connections of each class one round sheds, if all of them have waited for
    /// an hour.
    fn shed_classes(untrusted: usize, established: usize) -> (usize, usize) {
        let rank = |class| (ShedRank { class, since_ms: 0 }, ());
        let mut waiting = vec![rank(UNTRUSTED); untrusted];
        waiting.resize(untrusted + established, rank(ESTABLISHED));
        retain_first_in_order(&mut waiting, untrusted + established, 3_600_000);
        let shed = |class| {
            waiting
                .iter()
                .filter(|(rank, ())| rank.class == class)
                .count()
        };
        (shed(UNTRUSTED), shed(ESTABLISHED))
    }

    #[test]
    fn few_untrusted_connections_do_not_protect_idle_established_ones() {
        assert_eq!(shed_classes(1, 127), (1, 15));
        assert_eq!(shed_classes(31, 97), (16, 0));
        assert_eq!(shed_classes(32, 96), (4, 0));
        assert_eq!(shed_classes(0, 128), (0, 16));
        assert_eq!(shed_classes(1, 1), (1, 0));
    }

    /// Opens a connection that ends only if it is shed.
    async fn open(limit: &ConnectionLimit) -> Arc<ConnectionState> {
        let slot = limit.acquire().await;
        let state = Arc::clone(slot.state());
        let task = tokio::spawn(async move {
            slot.state().mark_waiting_now();
            std::future::pending::<()>().await;
        });
        limit.register(Arc::clone(&state), task.abort_handle());
        state
    }

    #[tokio::test]
    async fn connection_that_processes_a_request_is_not_shed() {
        let limit = ConnectionLimit::new(1);
        let state = open(&limit).await;
        yield_now().await;
        state.record_granted();
        assert!(state.mark_active().is_ok());
        let past_any_grace = ESTABLISHED_GRACE + UNTRUSTED_GRACE;
        assert!(timeout(past_any_grace, limit.acquire()).await.is_err());
        state.mark_waiting_now();
        let _slot = limit.acquire().await;
        assert!(state.mark_active().is_err(), "it was shed");
        assert!(state.mark_active().is_err(), "it stays shed");
    }

    #[tokio::test]
    async fn connection_active_after_ranking_is_not_shed() {
        let state = ConnectionState::new(Instant::now());
        state.mark_waiting_now();
        let seen = state.shed_rank().map(|rank| rank.since_ms);
        assert!(state.mark_active().is_ok());
        assert!(!state.try_shed(seen.unwrap_or_default()));
        assert!(state.mark_active().is_ok());
    }

    /// Keeps the worker busy until the result is dropped.
    fn block_worker() -> mpsc::Sender<()> {
        let (blocked, is_blocked) = mpsc::channel();
        let (release, released) = mpsc::channel();
        tokio::spawn(async move {
            blocked.send(()).unwrap();
            assert!(released.recv().is_err());
        });
        is_blocked.recv().unwrap();
        release
    }

    /// Regression test. On a busy machine, the server shed connections of clients that had sent
    /// their requests, before it had read the requests.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn connection_that_the_server_had_no_time_to_read_is_not_shed() {
        for waits_before in [false, true] {
            let limit = ConnectionLimit::new(1);
            let slot = limit.acquire().await;
            let state = Arc::clone(slot.state());
            let (mut client, stream) = std::os::unix::net::UnixStream::pair().unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = UnixStream::from_std(stream).unwrap();
            let serve = async move {
                slot.state().mark_waiting_now();
                stream.read_u8().await.unwrap();
                slot.state().mark_active().unwrap();
                std::future::pending::<()>().await;
            };
            let (task, busy) = if waits_before {
                let task = tokio::spawn(serve);
                while state.shed_rank().is_none() {
                    yield_now().await;
                }
                (task, block_worker())
            } else {
                let busy = block_worker();
                (tokio::spawn(serve), busy)
            };
            limit.register(Arc::clone(&state), task.abort_handle());
            client.write_all(b"x").unwrap();
            std::thread::sleep(2 * UNTRUSTED_GRACE);
            let mut next = pin!(limit.acquire());
            let once = poll_fn(|context| Poll::Ready(next.as_mut().poll(context)));
            assert!(once.await.is_pending());
            drop(busy);
            let outcome = timeout(UNTRUSTED_GRACE, next).await;
            assert!(outcome.is_err(), "was it waiting before? {waits_before}");
        }
    }

    #[tokio::test]
    async fn ended_connections_are_removed_from_the_list() {
        let limit = ConnectionLimit::new(2);
        for _ in 0..100 {
            let slot = limit.acquire().await;
            let state = Arc::clone(slot.state());
            let task = tokio::spawn(async move { drop(slot) });
            limit.register(state, task.abort_handle());
            assert!(task.await.is_ok());
        }
        assert!(limit.lock().connections.len() <= 4);
    }
}
