//! What came of a load: latencies of each kind of request, in histograms of three significant digits, and errors by kind.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Why a request has no right response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection came about.
    Connect,
    /// The connection ended before or inside the response.
    Closed,
    /// The response is no HTTP/1.1.
    Malformed,
    /// The response has another status.
    Status,
    /// The response has another body.
    Body,
    /// No response came in time.
    Timeout,
}

impl ErrorKind {
    /// Its name in figures.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Connect => "connect",
            ErrorKind::Closed => "closed",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Status => "status",
            ErrorKind::Body => "body",
            ErrorKind::Timeout => "timeout",
        }
    }
}

/// Latencies, in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Longest latency that is told from longer ones: an hour.
    const MICROS_MAX: u64 = 3_600_000_000;

    fn new() -> Latencies {
        #[expect(clippy::expect_used, reason = "the bounds are constants that the histogram accepts")]
        let histogram = Histogram::new_with_bounds(1, Self::MICROS_MAX, 3).expect("bounds of a histogram");
        Latencies(histogram)
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// All of them in order: a latency in microseconds, and how many requests had it.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()))
    }

    fn add(&mut self, other: &Latencies) {
        // Both have the same bounds, so that nothing is out of them.
        self.0 += &other.0;
    }
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Latencies of right responses, for each kind of request. At a constant rate also of requests that had no response a
    /// second after the end: the time for which they had been due.
    pub latencies: Vec<Latencies>,
    /// How many right responses came, for each kind of request.
    pub responses: Vec<u64>,
    /// How many requests failed, by reason.
    pub errors: BTreeMap<ErrorKind, u64>,
    /// Statuses that were not right, and how often.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that were due and had no response a second after the end.
    pub unfinished: u64,
    /// Bytes that came.
    pub received: u64,
    /// How long it lasted.
    pub duration: Duration,
    /// Time on processors that the load itself took.
    pub processor: Duration,
}

impl Outcome {
    pub(crate) fn new(kinds: usize) -> Outcome {
        Outcome {
            latencies: (0..kinds).map(|_| Latencies::new()).collect(),
            responses: vec![0; kinds],
            errors: BTreeMap::new(),
            statuses: BTreeMap::new(),
            unfinished: 0,
            received: 0,
            duration: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    /// Counts a right response.
    pub(crate) fn response(&mut self, kind: usize, latency: Duration) {
        if let Some(responses) = self.responses.get_mut(kind) {
            *responses += 1;
        }
        self.latency(kind, latency);
    }

    /// Counts a request that was due and has no response at the end.
    pub(crate) fn unfinished(&mut self, kind: usize, waited: Duration) {
        self.unfinished += 1;
        self.latency(kind, waited);
    }

    fn latency(&mut self, kind: usize, latency: Duration) {
        if let Some(latencies) = self.latencies.get_mut(kind) {
            latencies.record(latency);
        }
    }

    pub(crate) fn error(&mut self, kind: ErrorKind) {
        *self.errors.entry(kind).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Outcome) {
        for (ours, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            ours.add(theirs);
        }
        for (ours, theirs) in self.responses.iter_mut().zip(&other.responses) {
            *ours += theirs;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.unfinished += other.unfinished;
        self.received += other.received;
        self.processor += other.processor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits_and_no_upper_end() {
        let mut latencies = Latencies::new();
        for micros in [0, 1, 999, 123_456, 123_460, 7_200_000_000] {
            latencies.record(Duration::from_micros(micros));
        }
        latencies.record(Duration::MAX);
        let counts: Vec<(u64, u64)> = latencies.counts().collect();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), latencies.count());
        assert_eq!(counts[0], (0, 1));
        assert_eq!(counts[1], (1, 1));
        assert_eq!(counts[2], (999, 1));
        let (middle, count) = counts[3];
        assert_eq!((middle.abs_diff(123_456) * 1000 / 123_456, count), (0, 2), "{middle}");
        let (last, count) = counts[4];
        assert_eq!((last.abs_diff(Latencies::MICROS_MAX) * 1000 / Latencies::MICROS_MAX, count), (0, 2));
    }

    #[test]
    fn outcomes_of_threads_are_added() {
        let (mut one, mut two) = (Outcome::new(2), Outcome::new(2));
        one.response(0, Duration::from_millis(1));
        two.response(0, Duration::from_millis(1));
        two.response(1, Duration::from_millis(2));
        two.unfinished(1, Duration::from_millis(3));
        two.error(ErrorKind::Status);
        two.statuses.insert(503, 1);
        one.add(&two);
        assert_eq!(one.responses, [2, 1]);
        assert_eq!(one.latencies[0].counts().map(|(_, count)| count).collect::<Vec<_>>(), [2]);
        assert_eq!((one.latencies[1].count(), one.unfinished), (2, 1));
        assert_eq!(one.errors, BTreeMap::from([(ErrorKind::Status, 1)]));
        assert_eq!(one.statuses, BTreeMap::from([(503, 1)]));
    }
}
