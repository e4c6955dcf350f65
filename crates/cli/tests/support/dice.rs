//! Chance that can be had again.

#![allow(dead_code, reason = "each test program uses its part")]

use std::io::Write;

/// Numbers that look random and can be had again by their seed.
pub(crate) struct Dice(u64);

impl Dice {
    /// By the clock, or by `STEAD_TEST_SEED`; printed, so that a failure can be repeated.
    pub(crate) fn new() -> Self {
        let clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) | 1
        };
        let seed = std::env::var("STEAD_TEST_SEED").ok().map_or_else(clock, |seed| seed.parse().unwrap());
        let _ = writeln!(std::io::stderr(), "STEAD_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// One of several; `None` of none.
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(of.len()).unwrap();
        (count > 0).then(|| &of[usize::try_from(self.below(count)).unwrap()])
    }
}
