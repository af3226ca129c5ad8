//! The time of day of a moment that a call has read from the clock anyway: the clock is not read once more for it.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

/// How long a reading of both clocks is believed: that long it takes until a clock that was set is noticed.
const FRESH: Duration = Duration::from_millis(100);

thread_local! {
    /// One moment on both clocks.
    static READ: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// The time of day of a moment that has just been.
pub(crate) fn time_of_day(moment: Instant) -> SystemTime {
    if let Some((read, time)) = READ.get()
        && let Some(since) = moment.checked_duration_since(read)
        && since < FRESH
    {
        return time + since;
    }
    let time = SystemTime::now();
    READ.set(Some((moment, time)));
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_distance_that_they_have_on_the_other_clock() {
        let moment = Instant::now();
        let time = time_of_day(moment);
        for nanos in [0, 1, 99_999_999] {
            let later = Duration::from_nanos(nanos);
            assert_eq!(time_of_day(moment + later), time + later);
        }
    }

    #[test]
    fn a_clock_that_was_set_is_noticed() {
        let moment = Instant::now();
        READ.set(Some((moment, SystemTime::UNIX_EPOCH)));
        assert!(time_of_day(moment + FRESH) > SystemTime::UNIX_EPOCH + FRESH);
        READ.set(Some((moment + FRESH, SystemTime::UNIX_EPOCH)));
        assert!(time_of_day(moment) > SystemTime::UNIX_EPOCH + FRESH);
    }
}
