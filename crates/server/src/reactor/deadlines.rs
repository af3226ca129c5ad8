//! When each connection must have moved on. One flat array of times that is swept when the earliest is due: setting a
//! deadline, which happens several times a request, is one store, and there is no entry to go stale when a
//! connection ends. Ten thousand connections are 80 KB to sweep, rarely.

use std::time::{Duration, Instant};

/// Deadlines by token. Times are kept as milliseconds since `origin`; 0 means none.
pub(crate) struct Deadlines {
    origin: Instant,
    now: u64,
    due: Vec<u64>,
    /// No deadline is earlier than this; `u64::MAX` when there is none at all.
    next: u64,
}

/// Sweeps are at least this far apart: deadlines are seconds, and one sweep then serves many of them.
const GRAIN: u64 = 50;

impl Deadlines {
    pub(crate) fn new(origin: Instant) -> Self {
        Deadlines { origin, now: 0, due: Vec::new(), next: u64::MAX }
    }

    /// The time is `now`.
    pub(crate) fn pass(&mut self, now: Instant) {
        self.now = self.millis(now);
    }

    /// Sets the deadline of `token`, this long after now.
    pub(crate) fn set_after(&mut self, token: usize, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.set_millis(token, self.now.saturating_add(time).max(1));
    }

    /// Sets the deadline of `token`; `None` removes it.
    pub(crate) fn set(&mut self, token: usize, at: Option<Instant>) {
        self.set_millis(token, at.map_or(0, |at| self.millis(at).max(1)));
    }

    fn set_millis(&mut self, token: usize, due: u64) {
        if token >= self.due.len() {
            if due == 0 {
                return;
            }
            self.due.resize(token + 1, 0);
        }
        if let Some(slot) = self.due.get_mut(token) {
            *slot = due;
        }
        if due != 0 {
            self.next = self.next.min(due);
        }
    }

    /// The deadline of `token`.
    pub(crate) fn at(&self, token: usize) -> Option<Instant> {
        let due = self.due.get(token).copied().filter(|&due| due != 0)?;
        self.origin.checked_add(Duration::from_millis(due))
    }

    /// How long to wait at most before the next sweep; `None` when nothing is due ever.
    pub(crate) fn wait(&self) -> Option<Duration> {
        (self.next != u64::MAX).then(|| Duration::from_millis(self.next.saturating_sub(self.now)))
    }

    /// Takes the tokens that are due into `expired`.
    pub(crate) fn sweep(&mut self, expired: &mut Vec<usize>) {
        let now = self.now;
        if now < self.next {
            return;
        }
        let mut next = u64::MAX;
        for (token, due) in self.due.iter_mut().enumerate() {
            if *due == 0 {
                continue;
            }
            if *due <= now {
                *due = 0;
                expired.push(token);
            } else {
                next = next.min(*due);
            }
        }
        self.next = if next == u64::MAX { next } else { next.max(now + GRAIN) };
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_due_expires_and_only_once() {
        let origin = Instant::now();
        let at = |ms| origin + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new(origin);
        assert_eq!(deadlines.wait(), None);
        deadlines.pass(at(400));
        deadlines.set_after(3, Duration::from_millis(600));
        deadlines.set(1, Some(at(500)));
        deadlines.set(1, Some(at(2000)));
        deadlines.set(7, Some(at(900)));
        deadlines.set(7, None);
        deadlines.set(900, None);
        let mut expired = Vec::new();
        deadlines.pass(at(999));
        deadlines.sweep(&mut expired);
        assert!(expired.is_empty());
        deadlines.pass(at(1049));
        deadlines.sweep(&mut expired);
        assert_eq!(expired, [3]);
        deadlines.pass(at(1050));
        assert_eq!(deadlines.wait(), Some(Duration::from_millis(950)));
        deadlines.pass(at(5000));
        deadlines.sweep(&mut expired);
        deadlines.pass(at(6000));
        deadlines.sweep(&mut expired);
        assert_eq!(expired, [3, 1]);
        assert_eq!(deadlines.wait(), None);
    }
}
