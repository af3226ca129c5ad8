//! How fast a client must send a body: some of it within `body_timeout`, and on the whole no fewer than
//! `body_rate_min_bytes` a second, so that a client cannot hold a request open with a byte now and then.

use std::io;
use std::time::{Duration, Instant};

use anygate_config::BodyRate;

/// Maximum time in which a client may send this many bytes; `None` without a limit.
fn time_for(bytes: u64, rate: &BodyRate) -> Option<Duration> {
    let millis = bytes.saturating_mul(1000).checked_div(rate.min_bytes)?;
    Some(rate.timeout.saturating_add(Duration::from_millis(millis)))
}

/// A body while it arrives. What counts is what its whole connection has received: streams of HTTP/2 share a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyArrival {
    begun: Instant,
    /// When some of it came last.
    heard: Instant,
    /// What the connection had received before.
    before: u64,
}

impl BodyArrival {
    /// A body that begins now. `received`: what its connection has received until now.
    pub(crate) fn new(now: Instant, received: u64) -> Self {
        BodyArrival { begun: now, heard: now, before: received }
    }

    /// Some of it came.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When it is too late. `received`: what its connection has received until now.
    pub(crate) fn due(&self, received: u64, rate: &BodyRate) -> Instant {
        let next = self.heard + rate.timeout;
        let all = time_for(received.saturating_sub(self.before), rate);
        all.and_then(|all| self.begun.checked_add(all)).map_or(next, |all| next.min(all))
    }
}

/// What the reader of a body that is passed on as it arrives has waited for it. No other time counts.
#[derive(Debug)]
pub(crate) struct ReaderWait {
    rate: BodyRate,
    /// Whether the reader waits where it reads; a hub waits in a loop of its own.
    waits: bool,
    waited: Duration,
    /// Since when the reader waits.
    since: Option<Instant>,
}

impl ReaderWait {
    pub(crate) fn new(rate: BodyRate, waits: bool) -> Self {
        ReaderWait { rate, waits, waited: Duration::ZERO, since: None }
    }

    /// Whether the reader waits where it reads.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    /// Some of it is there.
    pub(crate) fn hear(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// Nothing is there. `received`: what was received of it. Returns how long the reader may wait.
    ///
    /// Errors: `TimedOut` if the client is too slow, `WouldBlock` if the reader waits elsewhere.
    pub(crate) fn more_within(&mut self, now: Instant, received: u64) -> io::Result<Duration> {
        let waits = now.saturating_duration_since(*self.since.get_or_insert(now));
        let next = self.rate.timeout.saturating_sub(waits);
        let all = time_for(received, &self.rate).map(|all| all.saturating_sub(self.waited + waits));
        let left = all.map_or(next, |all| next.min(all));
        match left {
            Duration::ZERO => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client did not send more of the body in time",
            )),
            _ if !self.waits => Err(io::ErrorKind::WouldBlock.into()),
            left => Ok(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyRate = BodyRate { timeout: Duration::from_secs(30), min_bytes: 500 };

    #[test]
    fn a_body_that_pauses_is_late_after_the_timeout() {
        let begun = Instant::now();
        let mut coming = BodyArrival::new(begun, 7);
        assert_eq!(coming.due(7, &LIMITS), begun + Duration::from_secs(30));
        coming.hear(begun + Duration::from_secs(10));
        assert_eq!(coming.due(7 + 50_000, &LIMITS), begun + Duration::from_secs(40));
    }

    #[test]
    fn a_body_that_trickles_is_late_when_its_bytes_are_used_up() {
        let begun = Instant::now();
        let mut coming = BodyArrival::new(begun, 7);
        coming.hear(begun + Duration::from_secs(29));
        assert_eq!(coming.due(7 + 1000, &LIMITS), begun + Duration::from_secs(32));
        let none = BodyRate { min_bytes: 0, ..LIMITS };
        assert_eq!(coming.due(7 + 1000, &none), begun + Duration::from_secs(59));
    }

    #[test]
    fn only_the_time_counts_in_which_a_reader_waits() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut wait = ReaderWait::new(LIMITS, true);
        assert_eq!(wait.more_within(at(0), 0).unwrap(), Duration::from_secs(30));
        wait.hear(at(20));
        // The application reads no more for a while.
        assert_eq!(wait.more_within(at(1000), 500).unwrap(), Duration::from_secs(11));
        wait.hear(at(1010));
        assert_eq!(wait.more_within(at(1010), 1000).unwrap(), Duration::from_secs(2));
        assert_eq!(wait.more_within(at(1012), 1000).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_reader_with_a_loop_of_its_own_never_waits() {
        let now = Instant::now();
        let mut wait = ReaderWait::new(LIMITS, false);
        assert_eq!(wait.more_within(now, 0).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let late = now + LIMITS.timeout;
        assert_eq!(wait.more_within(late, 0).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn numbers_of_any_size_make_a_time() {
        let now = Instant::now();
        let slowest = BodyRate { timeout: Duration::MAX, min_bytes: 1 };
        assert_eq!(time_for(u64::MAX, &slowest), Some(Duration::MAX));
        let rate = BodyRate { min_bytes: 1, ..LIMITS };
        assert_eq!(BodyArrival::new(now, u64::MAX).due(0, &rate), now + rate.timeout);
    }
}
