//! When the next request of a thread is due, and which one it is.

use std::time::{Duration, Instant};

/// Distance of what is not due as long as a load lasts.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// When requests are due.
#[derive(Clone, Copy, Debug)]
enum Arrivals {
    /// When a connection is free.
    Free,
    /// At equal distances; those of several threads lie between each other.
    Constant { first: Duration, distance: Duration },
}

/// The requests of one thread.
#[derive(Debug)]
pub(crate) struct Schedule<'a> {
    arrivals: Arrivals,
    begun: Instant,
    /// From here on nothing becomes due.
    end: Instant,
    order: &'a [usize],
    /// How many were given out.
    count: u32,
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Which kind of request.
    pub(crate) kind: usize,
    /// Since when.
    pub(crate) since: Instant,
}

impl<'a> Schedule<'a> {
    /// The schedule of one of several threads, from `begun` to `end`: `place` counts from 0. `rate` is that of all threads.
    pub(crate) fn new(
        rate: Option<f64>,
        order: &'a [usize],
        place: usize,
        threads: usize,
        (begun, end): (Instant, Instant),
    ) -> Schedule<'a> {
        let arrivals = rate.map_or(Arrivals::Free, |rate| {
            let apart = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
            let times = |count: usize| apart.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
            Arrivals::Constant { first: times(place), distance: times(threads) }
        });
        Schedule { arrivals, begun, end, order, count: 0 }
    }

    /// Takes the next request, if it is due at `now`.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Due> {
        let since = self.next(now);
        let place = usize::try_from(self.count).ok()?.checked_rem(self.order.len())?;
        let kind = *self.order.get(place)?;
        self.is_due(now).then(|| {
            self.count = self.count.wrapping_add(1);
            Due { kind, since }
        })
    }

    /// Whether a request is due at `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let next = self.next(now);
        next <= now && next < self.end
    }

    /// When the next request is due: at `now` if a free connection is all that it needs.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        match self.arrivals {
            Arrivals::Free => now,
            Arrivals::Constant { first, distance } => {
                let after = first.saturating_add(distance.saturating_mul(self.count));
                // What is further away than a clock counts is never due.
                self.begun.checked_add(after).unwrap_or(now + NEVER)
            }
        }
    }

    /// Whether requests become due without a connection that is free for them.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(self.arrivals, Arrivals::Constant { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &[usize] = &[0, 1, 0];

    #[test]
    fn a_free_connection_takes_the_next_request_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(None, ORDER, 0, 1, (now, now + NEVER));
        let kinds: Vec<_> = (0..4).map(|_| schedule.take(now).map(|due| due.kind)).collect();
        assert_eq!(kinds, [Some(0), Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn requests_that_could_not_be_sent_are_due_since_their_own_time() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut schedule = Schedule::new(Some(100.0), ORDER, 0, 1, (begun, begun + NEVER));
        assert_eq!(schedule.take(begun), Some(Due { kind: 0, since: begun }));
        assert_eq!(schedule.take(at(9)), None);
        assert_eq!(schedule.next(at(9)), at(10));
        // No connection was free for 25 ms.
        assert_eq!(schedule.take(at(35)), Some(Due { kind: 1, since: at(10) }));
        assert_eq!(schedule.take(at(35)), Some(Due { kind: 0, since: at(20) }));
        assert_eq!(schedule.take(at(35)), Some(Due { kind: 0, since: at(30) }));
        assert_eq!(schedule.take(at(35)), None);
    }

    #[test]
    fn threads_share_a_rate_in_turn_until_the_end() {
        let begun = Instant::now();
        let mut due = Vec::new();
        for place in 0..4 {
            let mut schedule =
                Schedule::new(Some(1000.0), ORDER, place, 4, (begun, begun + Duration::from_millis(100)));
            while let Some(one) = schedule.take(begun + Duration::from_millis(200)) {
                due.push((one.since - begun).as_millis());
            }
        }
        due.sort_unstable();
        assert_eq!(due, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_of_nearly_nothing_is_no_overflow() {
        let begun = Instant::now();
        let mut schedule = Schedule::new(Some(1e-300), ORDER, 0, 3, (begun, begun + NEVER));
        assert!(schedule.take(begun).is_some());
        assert_eq!(schedule.take(begun + Duration::from_secs(1)), None);
    }
}
