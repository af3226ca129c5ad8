//! The pause before a dead worker is replaced: longer and longer while workers die before they serve. One that has served
//! is replaced at once, whatever its end: a request that ends its worker again and again does not keep other clients away.

use std::time::Duration;

/// A worker that served for less than this time is replaced after the shortest pause.
pub(crate) const SERVED_MIN: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Counts the workers in a row that died before they served.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    early_deaths: u32,
}

impl Backoff {
    /// Returns the pause before a worker is replaced that served for `ready`; `None`: it was never ready.
    pub(crate) fn after_death(&mut self, ready: Option<Duration>) -> Duration {
        if let Some(served) = ready {
            self.early_deaths = 0;
            return if served < SERVED_MIN { PAUSE_MIN } else { Duration::ZERO };
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
    fn deaths_before_serving_slow_replacement_down_and_one_that_served_forgives_them() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.after_death(None).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 30_000);
        assert_eq!(backoff.after_death(Some(Duration::from_secs(2))), Duration::ZERO);
        for _ in 0..12 {
            assert_eq!(backoff.after_death(Some(Duration::from_millis(10))), Duration::from_millis(100));
        }
        assert_eq!(backoff.after_death(None), Duration::from_millis(100));
    }
}
