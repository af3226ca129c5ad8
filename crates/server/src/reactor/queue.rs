//! Requests that are ready and wait for an app thread or the hub, and how long a further one would wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::connection::Connection;

/// Minimum age of the oldest request at which those that are ready are a queue, though not all threads are busy.
const QUEUE_AGE: Duration = Duration::from_millis(10);
/// Time with a queue after which the weight of what was seen before is halved.
const WINDOW: Duration = Duration::from_secs(10);
/// Time without a queue after which what was seen before counts no more.
const FORGET: Duration = Duration::from_secs(1);
/// Clients give up if one leaves the queue for so many whose request begins.
const BEGUN_PER_LEAVER: f64 = 4.0;
/// The shortest wait that is always allowed, however soon clients leave.
const WAIT_MIN: Duration = Duration::from_millis(500);

/// The queue of one worker.
pub(super) struct Queue {
    waiting: VecDeque<(Instant, Box<Connection>)>,
    /// Number of those whose clients have left. They are skipped when their turn comes.
    left: usize,
    throughput: Throughput,
}

/// How fast requests leave the queue.
struct Throughput {
    /// The queue was not empty at this time.
    queued_at: Instant,
    /// Seconds for which there was a queue.
    seconds: f64,
    /// Number of requests that were begun in that time,
    begun: f64,
    /// and since it was last added to.
    begun_since: u32,
    /// Number of clients that left the queue, and the seconds that they had waited.
    leavers: f64,
    patience: f64,
}

impl Queue {
    pub(super) fn new(now: Instant) -> Self {
        Queue { waiting: VecDeque::new(), left: 0, throughput: Throughput::new(now) }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Since when the first has waited.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiting.front().map(|(since, _)| *since)
    }

    /// Whether requests wait although a thread may begin the first one soon.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.oldest().is_some_and(|since| since + QUEUE_AGE <= now)
    }

    pub(super) fn push(&mut self, now: Instant, connection: Box<Connection>) {
        self.waiting.push_back((now, connection));
    }

    /// The first, since when it has waited, and whether its client has left.
    pub(super) fn pop(&mut self) -> Option<(Instant, Box<Connection>, bool)> {
        let (since, connection) = self.waiting.pop_front()?;
        let has_left = connection.is_abandoned();
        if has_left {
            self.left = self.left.saturating_sub(1);
        } else {
            self.throughput.begun_since += 1;
        }
        Some((since, connection, has_left))
    }

    /// The connections of all that wait.
    pub(super) fn tokens(&self) -> Vec<usize> {
        self.waiting.iter().map(|(_, connection)| connection.token).collect()
    }

    /// The client of one, which has waited since then, has left.
    pub(super) fn note_left(&mut self, since: Instant, now: Instant) {
        self.left += 1;
        self.throughput.leavers += 1.0;
        self.throughput.patience += now.saturating_duration_since(since).as_secs_f64();
    }

    /// Takes out those whose clients have left, if they are many, or if some may have left unnoticed.
    pub(super) fn take_abandoned(&mut self, unnoted: bool) -> Vec<Box<Connection>> {
        if !unnoted && (self.left == 0 || self.left * 2 < self.waiting.len()) {
            return Vec::new();
        }
        if !self.waiting.iter().any(|(_, connection)| connection.is_abandoned()) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.waiting);
        let (gone, kept): (VecDeque<_>, _) =
            all.into_iter().partition(|(_, connection)| connection.is_abandoned());
        self.waiting = kept;
        self.left = 0;
        gone.into_iter().map(|(_, connection)| connection).collect()
    }

    /// The time is `now`; it was `before` when the queue last changed otherwise than by requests that were begun.
    pub(super) fn pass(&mut self, before: Instant, now: Instant) {
        let begun = std::mem::take(&mut self.throughput.begun_since);
        if !self.waiting.is_empty() {
            self.throughput.add(before, now, begun);
        }
    }

    /// Whether a further request would probably wait longer than `wait_max`, or than clients do.
    pub(super) fn is_full(&self, wait_max: Duration) -> bool {
        let waiting = self.waiting.len().saturating_sub(self.left);
        if self.throughput.seconds < SEEN_MIN.as_secs_f64().min(wait_max.as_secs_f64() / 5.0) {
            return false;
        }
        self.throughput
            .wait(waiting)
            .is_some_and(|wait| wait > self.throughput.wait_max(wait_max).as_secs_f64())
    }
}

/// A queue must have been seen for so long before anything is expected of it: a process that got no processor for a moment
/// looks like an application that is slow.
const SEEN_MIN: Duration = Duration::from_secs(2);

impl Throughput {
    fn new(now: Instant) -> Self {
        Throughput { queued_at: now, seconds: 0.0, begun: 0.0, begun_since: 0, leavers: 0.0, patience: 0.0 }
    }

    fn add(&mut self, before: Instant, now: Instant, begun: u32) {
        if self.queued_at + FORGET < before {
            *self = Throughput::new(now);
        }
        self.queued_at = now;
        self.seconds += now.saturating_duration_since(before).as_secs_f64();
        self.begun += f64::from(begun);
        if self.seconds > WINDOW.as_secs_f64() {
            for sum in [&mut self.seconds, &mut self.begun, &mut self.leavers, &mut self.patience] {
                *sum /= 2.0;
            }
        }
    }

    /// Seconds that so many requests take to be begun; `None` before any was.
    fn wait(&self, waiting: usize) -> Option<f64> {
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        (self.begun > 0.0).then(|| f64::from(waiting) * self.seconds / self.begun)
    }

    /// The longest wait that is worthwhile. Where clients give up, those who are served must not be about to.
    fn wait_max(&self, wait_max: Duration) -> Duration {
        if self.leavers == 0.0 || self.leavers * BEGUN_PER_LEAVER < self.begun {
            return wait_max;
        }
        let patience = Duration::from_secs_f64(self.patience / self.leavers);
        wait_max.min((patience / 2).max(WAIT_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn throughput(seconds: u64, begun: u32) -> (Throughput, Instant) {
        let start = Instant::now();
        let mut throughput = Throughput::new(start);
        throughput.add(start, start + Duration::from_secs(seconds), begun);
        (throughput, start + Duration::from_secs(seconds))
    }

    #[test]
    fn the_expected_wait_follows_from_how_fast_requests_were_begun() {
        let (throughput, _) = throughput(2, 160);
        assert_eq!(throughput.wait(80), Some(1.0));
        assert_eq!(throughput.wait(0), Some(0.0));
        assert_eq!(throughput.wait_max(LONG), LONG);
    }

    #[test]
    fn nothing_is_expected_before_any_request_was_begun() {
        assert_eq!(throughput(5, 0).0.wait(1000), None);
    }

    #[test]
    fn what_was_seen_long_ago_counts_no_more() {
        let (mut throughput, now) = throughput(8, 1);
        assert_eq!(throughput.wait(10), Some(80.0));
        let later = now + FORGET + Duration::from_secs(1);
        throughput.add(later, later + Duration::from_secs(1), 10);
        assert_eq!(throughput.begun, 10.0);
    }

    #[test]
    fn a_long_queue_forgets_slowly() {
        let (throughput, _) = throughput(12, 24);
        assert_eq!((throughput.seconds, throughput.begun), (6.0, 12.0));
    }

    #[test]
    fn the_queue_is_shorter_where_many_clients_give_up() {
        let (mut throughput, _) = throughput(2, 160);
        throughput.leavers = 39.0;
        throughput.patience = 39.0 * 2.0;
        assert_eq!(throughput.wait_max(LONG), LONG);
        throughput.leavers = 40.0;
        throughput.patience = 40.0 * 2.0;
        assert_eq!(throughput.wait_max(LONG), Duration::from_secs(1));
        // Who leaves at once does not close the queue to others.
        throughput.patience = 0.0;
        assert_eq!(throughput.wait_max(LONG), WAIT_MIN);
        assert_eq!(throughput.wait_max(Duration::from_millis(1)), Duration::from_millis(1));
    }
}
