//! The pause before a dead worker is replaced: none after a worker that had served for a while, longer and longer while
//! workers die right after their start.

use std::time::Duration;

/// A worker that served for at least this time is replaced at once.
const SERVED_MIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Counts the workers in a row that died right after their start.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    early_deaths: u32,
}

impl Backoff {
    /// Returns the pause before a worker is replaced that served for `ready`; `None`: it was never ready.
    pub(crate) fn after_death(&mut self, ready: Option<Duration>) -> Duration {
        if ready.is_some_and(|ready| ready >= SERVED_MIN) {
            self.early_deaths = 0;
            return Duration::ZERO;
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.early_deaths.min(16)).min(PAUSE_MAX);
        self.early_deaths += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_deaths_slow_replacement_down_and_a_long_life_forgives_them() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after_death(None).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!(backoff.after_death(Some(Duration::from_secs(2))), Duration::ZERO);
        assert_eq!(backoff.after_death(Some(Duration::from_millis(10))), Duration::from_millis(100));
    }
}
