//! How soon a dead worker is replaced: at once when it had lived, slower and slower while workers die young.

use std::time::Duration;

/// A worker that was ready for so long had lived; its death says nothing about the next one's life.
const LIVED: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Counts workers that died young, one after another.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    young: u32,
}

impl Pace {
    /// How long to wait before replacing a worker that was ready for `ready`, or never (`None`).
    pub(crate) fn after_death(&mut self, ready: Option<Duration>) -> Duration {
        if ready.is_some_and(|ready| ready >= LIVED) {
            self.young = 0;
            return Duration::ZERO;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.young.min(16)).min(LONGEST_PAUSE);
        self.young += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_deaths_slow_replacement_down_and_a_long_life_forgives_them() {
        let mut pace = Pace::default();
        let pauses: Vec<u128> = (0..12).map(|_| pace.after_death(None).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!(pace.after_death(Some(Duration::from_secs(2))), Duration::ZERO);
        assert_eq!(pace.after_death(Some(Duration::from_millis(10))), Duration::from_millis(100));
    }
}
