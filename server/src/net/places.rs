//! Places: how many connections there are at a time, and which of them goes where all
//! places are taken and another client waits for one.
//!
//! A connection that waits for its client can be closed, one whose request is being
//! carried out never is. First go strangers, on which nothing was granted yet, or whose
//! last request was refused: anybody can open those, by the thousand, and ask for what
//! takes no token. Then newcomers, whose first request that is granted has come, and then
//! regulars, of which the next one came, too. Among equals it is those that have waited for their client longest, whatever
//! for: for a head, for more of a body, or until an answer is taken. One that drips waits
//! all the while (see `pace`).
//!
//! What a request adds to are its connection's own two words. Only who comes and goes
//! passes the lock, and only where places are short are all of them looked at: the same
//! that nginx does with its reusable connections (`ngx_drain_connections`).

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// For so long a stranger may keep the server waiting although others want its place:
/// a client sends its head along with what completes the connection.
const STRANGER_PATIENCE: Duration = Duration::from_millis(100);
/// The same of anybody else: longer than a round trip to anywhere, and than a client that
/// is busy with its last answer thinks.
const PATIENCE: Duration = Duration::from_secs(1);
/// Until those who wait are looked at again, where nobody could be closed.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Of those that can be closed so many go at once, so that not all are looked at for
/// each one that comes; and no more than a part of them, so that few are not all.
const CLOSED_AT_ONCE: usize = 32;
const CLOSED_PART: usize = 8;
/// The operator is told no more often.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The client is not waited for.
const NOT_WAITING: u64 = u64::MAX;
/// The place was taken away.
const CLOSED: u64 = u64::MAX - 1;

/// The classes of connections, in the order in which they go.
const STRANGER: u8 = 0;
const NEWCOMER: u8 = 1;
const REGULAR: u8 = 2;

/// What decides whether a connection may be closed. Written by the connection, read
/// where places are short.
#[derive(Debug)]
pub(crate) struct Standing {
    /// What its times are counted from.
    epoch: Instant,
    /// Since when it waits for its client, in milliseconds; or one of the two above.
    waits_since_ms: AtomicU64,
    class: AtomicU8,
}

/// The connection was closed, since others want its place.
#[derive(Debug)]
pub(crate) struct Closed;

impl Standing {
    /// Of a connection that waits for its first head.
    pub(crate) fn new(epoch: Instant) -> Self {
        let standing = Self {
            epoch,
            waits_since_ms: AtomicU64::new(NOT_WAITING),
            class: AtomicU8::new(STRANGER),
        };
        standing.waits(standing.now_ms());
        standing
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(CLOSED - 1)
    }

    /// Its client is waited for, and has been since then.
    pub(crate) fn waits(&self, since_ms: u64) {
        // One that is closed stays so.
        let _ = self.waits_since_ms.compare_exchange(
            NOT_WAITING,
            since_ms,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Its client has done something. From here it is not closed until it waits again.
    pub(crate) fn goes_on(&self) -> Result<(), Closed> {
        let before = self.waits_since_ms.swap(NOT_WAITING, Ordering::Relaxed);
        if before == CLOSED {
            self.waits_since_ms.store(CLOSED, Ordering::Relaxed);
            return Err(Closed);
        }
        Ok(())
    }

    /// A request of its was granted, whose body may be still to come.
    pub(crate) fn is_granted(&self) {
        match self.class.load(Ordering::Relaxed) {
            STRANGER => self.class.store(NEWCOMER, Ordering::Relaxed),
            NEWCOMER => self.class.store(REGULAR, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Its request was refused.
    pub(crate) fn is_refused(&self) {
        self.class.store(STRANGER, Ordering::Relaxed);
    }

    /// Closes it, unless it has gone on since.
    fn close(&self, since_ms: u64) -> bool {
        self.waits_since_ms
            .compare_exchange(since_ms, CLOSED, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// How it stands among those that wait for their client; `None` where it does not.
    fn rank(&self) -> Option<Rank> {
        let since_ms = self.waits_since_ms.load(Ordering::Relaxed);
        let class = self.class.load(Ordering::Relaxed);
        (since_ms < CLOSED).then_some(Rank { class, since_ms })
    }
}

/// Who goes first is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    class: u8,
    since_ms: u64,
}

impl Rank {
    fn is_beyond_patience(self, now_ms: u64) -> bool {
        let patience = if self.class == STRANGER {
            STRANGER_PATIENCE
        } else {
            PATIENCE
        };
        Duration::from_millis(now_ms.saturating_sub(self.since_ms)) >= patience
    }
}

/// A place, for as long as this is held.
#[derive(Debug)]
pub(crate) struct Place {
    standing: Arc<Standing>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Place {
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }
}

/// All places.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    epoch: Instant,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    /// Those that have ended among them, until there are as many as places.
    connections: Vec<Connection>,
    told: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Connection {
    standing: Arc<Standing>,
    task: AbortHandle,
}

impl Places {
    pub(crate) fn new(all: usize) -> Self {
        let all = all.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(all)),
            all,
            epoch: Instant::now(),
            taken: Mutex::default(),
        }
    }

    /// Waits for a place. Where all are taken, it closes who keeps the server waiting.
    pub(crate) async fn take(&self) -> Place {
        let permit = match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => loop {
                self.close_idlest();
                let permit = Arc::clone(&self.free).acquire_owned();
                if let Ok(permit) = timeout(LOOK_EVERY, permit).await {
                    // Never closed, so it always gives a permit.
                    break permit.ok();
                }
            },
        };
        Place {
            standing: Arc::new(Standing::new(self.epoch)),
            _permit: permit,
        }
    }

    /// Notes which task carries the connection that a place was given to.
    pub(crate) fn carried_by(&self, standing: Arc<Standing>, task: AbortHandle) {
        let mut taken = self.lock();
        if taken.connections.len() >= 2 * self.all {
            taken.connections.retain(|c| !c.task.is_finished());
        }
        taken.connections.push(Connection { standing, task });
    }

    /// Closes connections that keep the server waiting, if there are any.
    fn close_idlest(&self) {
        let mut taken = self.lock();
        taken.connections.retain(|c| !c.task.is_finished());
        let now_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(CLOSED - 1);
        let ranked = |c: &Connection| Some((c.standing.rank()?, c.clone()));
        let mut idle: Vec<_> = taken.connections.iter().filter_map(ranked).collect();
        // While there are strangers, nobody else goes: one will go soon.
        let has_stranger = idle.iter().any(|(rank, _)| rank.class == STRANGER);
        idle.retain(|(rank, _)| {
            rank.is_beyond_patience(now_ms) && (rank.class == STRANGER || !has_stranger)
        });
        idle.sort_unstable_by_key(|(rank, _)| *rank);
        idle.truncate((idle.len() / CLOSED_PART).clamp(1, CLOSED_AT_ONCE));
        let mut closed = 0;
        for (rank, connection) in idle {
            if connection.standing.close(rank.since_ms) {
                connection.task.abort();
                closed += 1;
            }
        }
        let is_told = taken.told.is_some_and(|told| told.elapsed() < TELL_EVERY);
        if closed > 0 && !is_told {
            taken.told = Some(Instant::now());
            tracing::warn!(
                connections = self.all,
                "all places are taken (--max-connections): what keeps the server waiting \
                 longest is closed for those who come"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        // Nothing in it is ever half done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that never ends by itself.
    async fn opened(places: &Places) -> Arc<Standing> {
        let place = places.take().await;
        let standing = Arc::clone(place.standing());
        let task = tokio::spawn(async move {
            let _held = place;
            std::future::pending::<()>().await;
        });
        places.carried_by(Arc::clone(&standing), task.abort_handle());
        standing
    }

    #[tokio::test]
    async fn what_is_carried_out_is_not_closed() {
        let places = Places::new(1);
        let standing = opened(&places).await;
        standing.is_granted();
        assert!(standing.goes_on().is_ok());
        let too_long = PATIENCE + STRANGER_PATIENCE;
        assert!(timeout(too_long, places.take()).await.is_err());
        standing.waits(standing.now_ms());
        let _place = places.take().await;
        assert!(standing.goes_on().is_err(), "it was closed");
        assert!(standing.goes_on().is_err(), "and stays so");
    }

    #[tokio::test]
    async fn what_goes_on_at_the_last_moment_is_not_closed() {
        let standing = Standing::new(Instant::now());
        let seen = standing.rank().map(|rank| rank.since_ms);
        assert!(standing.goes_on().is_ok());
        assert!(!standing.close(seen.unwrap_or_default()));
        assert!(standing.goes_on().is_ok());
    }

    #[tokio::test]
    async fn what_has_ended_is_forgotten() {
        let places = Places::new(2);
        for _ in 0..100 {
            let place = places.take().await;
            let standing = Arc::clone(place.standing());
            let task = tokio::spawn(async move { drop(place) });
            places.carried_by(standing, task.abort_handle());
            assert!(task.await.is_ok());
        }
        assert!(places.lock().connections.len() <= 4);
    }
}
