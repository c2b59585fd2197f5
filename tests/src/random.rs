//! A small random number generator with a seed (`SplitMix64`).
//!
//! A failing seed replays the same run on every machine and with every version of every crate.

/// The random number generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Creates a generator from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the next number of the sequence.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number below `bound`.
    ///
    /// # Panics
    /// Panics if `bound` is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// Returns a random element of `choices`.
    ///
    /// # Panics
    /// Panics if `choices` is empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len() as u64);
        &choices[usize::try_from(index).unwrap_or_default()]
    }
}

/// Returns the seeds that a test runs: only the seed in `PREFD_TEST_SEED` if that is set, otherwise
/// the first `PREFD_TEST_SEEDS` seeds, with `count` as the default.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match variable("PREFD_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("PREFD_TEST_SEEDS").unwrap_or(count),
    }
}
