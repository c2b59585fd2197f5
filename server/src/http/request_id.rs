//! Generates request ids. A request id is an xid, which has 20 characters from `0` to `9` and from
//! `a` to `v`.
//!
//! An xid encodes 12 bytes in base32hex: seconds since 1970 (4 bytes), a random number that is
//! generated once per process (5 bytes) and a counter (3 bytes). This layout is specified at
//! <https://github.com/rs/xid>. Sorting xids as text also sorts them by time.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const CHARACTERS: usize = 20;

/// The id of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId([u8; CHARACTERS]);

/// The parts of a request id that do not depend on the time.
struct IdGenerator {
    /// 40 random bits, which distinguish this process from other processes.
    process: u64,
    /// The counter starts at a random value. Only the lower 24 bits of the counter are used.
    counter: AtomicU32,
}

fn generator() -> &'static IdGenerator {
    static GENERATOR: OnceLock<IdGenerator> = OnceLock::new();
    GENERATOR.get_or_init(|| {
        // If the system provides no random bytes, the server still runs, but the request ids of two
        // processes can be equal.
        let random = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        IdGenerator {
            process: random >> 24,
            counter: AtomicU32::new(u32::try_from(random & 0xff_ffff).unwrap_or_default()),
        }
    })
}

impl RequestId {
    /// Generates the id of a request that was received at `now`.
    pub(crate) fn new(now: SystemTime) -> Self {
        let generator = generator();
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let count = generator.counter.fetch_add(1, Ordering::Relaxed) & 0xff_ffff;
        let number = (u128::from(seconds & 0xffff_ffff) << 64)
            | (u128::from(generator.process) << 24)
            | u128::from(count);
        // Each character encodes 5 bits. The 96 bits of a request id fill 19 characters and 1 bit
        // of the last character.
        let bits = number << 4;
        let mut characters = [b'0'; CHARACTERS];
        for (index, character) in characters.iter_mut().rev().enumerate() {
            let digit = usize::try_from((bits >> (5 * index)) & 31).unwrap_or_default();
            *character = ALPHABET.get(digit).copied().unwrap_or(b'0');
        }
        Self(characters)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_xids_and_sort_by_time() {
        let ids: Vec<RequestId> = (0..10_000)
            .map(|_| RequestId::new(SystemTime::now()))
            .collect();
        let distinct: HashSet<&str> = ids.iter().map(RequestId::as_str).collect();
        assert_eq!(distinct.len(), ids.len());
        for id in &ids {
            assert_eq!(id.as_str().len(), 20);
            assert!(id.as_str().bytes().all(|b| ALPHABET.contains(&b)), "{id}");
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let first: u64 = ids[9_999].as_str().bytes().take(7).fold(0, |sum, b| {
            sum * 32 + ALPHABET.iter().position(|a| *a == b).unwrap() as u64
        });
        // The first seven characters encode 35 bits: the 32 bits of the time, and 3 random bits.
        assert!((first >> 3).abs_diff(now) <= 2);
    }
}
