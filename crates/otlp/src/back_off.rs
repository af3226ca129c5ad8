//! The pause before a transmission is tried again: twice as long each time, within bounds, and never the same for all servers.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// No collector that asks for more patience gets it.
const ASKED_MAX: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(crate) struct BackOff {
    failures: u32,
    random: RandomState,
}

impl BackOff {
    /// Returns the pause after one more failure. `asked`: what the collector asked for.
    pub(crate) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let doubled = SHORTEST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        let random = self.random.hash_one(self.failures) % 1024;
        self.failures += 1;
        // From half of it to all of it.
        let pause = doubled.mul_f64(0.5 + random as f64 / 2048.0);
        asked.map_or(pause, |asked| asked.clamp(SHORTEST, ASKED_MAX))
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut back_off = BackOff::default();
        for longest in [1, 2, 4, 8, 16, 30, 30, 30] {
            let (pause, longest) = (back_off.next(None), Duration::from_secs(longest));
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} {longest:?}");
        }
        assert_eq!(back_off.next(Some(Duration::from_secs(7))), Duration::from_secs(7));
        assert_eq!(back_off.next(Some(Duration::ZERO)), SHORTEST);
        assert_eq!(back_off.next(Some(Duration::from_secs(9999))), ASKED_MAX);
        back_off.reset();
        assert!(back_off.next(None) <= SHORTEST);
    }
}
