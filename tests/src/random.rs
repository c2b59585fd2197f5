//! A small seeded generator (`SplitMix64`), so that a failing seed replays the same
//! run on every machine and with every version of every crate.

/// The generator.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// One of `choices`, of which there is at least one.
    ///
    /// # Panics
    /// Where there is none.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let index = self.below(choices.len() as u64);
        &choices[usize::try_from(index).unwrap_or_default()]
    }
}

/// The seeds to run: the one in `PREFD_TEST_SEED`, or as many as `PREFD_TEST_SEEDS`
/// says, or the first `count`.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match variable("PREFD_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("PREFD_TEST_SEEDS").unwrap_or(count),
    }
}
