//! How much each of many keys has used of its rate, in a fixed number of 64-bit cells that several processes may share.
//!
//! Each key has a cell: 20 bits that tell keys apart and 44 bits of time, the moment at which all of its requests will
//! have been paid for (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T I.371 annex A). Being one
//! word, a cell is read and changed in one step and nobody ever waits for anybody, not even for a process that died.
//!
//! A key may lie in any of the eight cells of its bucket, which is one line of a processor's cache. When all are taken,
//! the key that has paid or is nearest to having paid makes room: what is forgotten is the least of what there is to
//! remember. A million addresses that send one request each forget each other, and not the one that sends a thousand.
//!
//! Two keys of one bucket with the same 20 bits would share a rate. That concerns one key in 130 000, and nobody can
//! choose which, because the hash is keyed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Memory for cells, all zero at first: a `Box<[AtomicU64]>`, or memory that processes share.
pub type Cells = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// Cells in a bucket: those that one line of a cache holds.
const WAYS: usize = 8;
/// Bits of a cell that are time.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// A unit of a cell's time is 2^12 ns, 4 µs: 44 bits of them come round after two years, and only then could a key that
/// was silent all the time be taken for one that has not paid.
const UNIT_BITS: u32 = 12;
/// What is further ahead than a whole burst and this is no debt, but time that came round. Clocks of those who share a table
/// differ by less.
const SKEW_MAX: Duration = Duration::from_secs(60 * 60);
/// Longer than this nobody is made to wait.
const PERIOD_MAX: Duration = Duration::from_secs(31 * 24 * 60 * 60);
/// One request in less than a few units could not be told from none.
const PER_SECOND_MAX: u64 = 20_000;

/// Number of requests per time, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    period: Duration,
    burst: NonZeroU32,
}

/// A rate that cannot be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidRate {
    /// Not a number, a slash and a unit.
    Form,
    /// No requests, or in no time.
    Zero,
    /// More requests in a second than can be told apart.
    TooFast,
    /// A client would take more than a month to recover its rate.
    TooSlow,
}

impl fmt::Display for InvalidRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            InvalidRate::Form => {
                "must be a rate such as 10/s, 100/m, 1000/h, 5000/d or 30/10s, and may end in burst=20"
            }
            InvalidRate::Zero => "must allow at least one request",
            InvalidRate::TooFast => "must be 20000 requests a second or fewer",
            InvalidRate::TooSlow => "must let a client start anew within 31 days",
        })
    }
}

impl std::error::Error for InvalidRate {}

impl Rate {
    /// `requests` in each `period` (whole seconds), `burst` of them at once.
    ///
    /// Errors: see [`InvalidRate`].
    pub fn new(requests: u32, period: Duration, burst: u32) -> Result<Rate, InvalidRate> {
        let (Some(requests), Some(burst)) = (NonZeroU32::new(requests), NonZeroU32::new(burst)) else {
            return Err(InvalidRate::Zero);
        };
        if period.as_secs() == 0 || period.subsec_nanos() > 0 {
            return Err(InvalidRate::Zero);
        }
        let rate = Rate { requests, period, burst };
        if u64::from(requests.get()).div_ceil(period.as_secs()) > PER_SECOND_MAX {
            return Err(InvalidRate::TooFast);
        }
        if rate.interval().checked_mul(burst.get()).is_none_or(|whole| whole > PERIOD_MAX) {
            return Err(InvalidRate::TooSlow);
        }
        Ok(rate)
    }

    /// How many requests a period has.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// How long a period is, in whole seconds.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// How many requests may come at once after a long silence.
    pub fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// How long one request is paid for.
    pub fn interval(&self) -> Duration {
        self.period / self.requests.get()
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    /// Reads `100/m`, `30/10s` or `100/m burst=20`. Without a burst, all requests of a period may come at once.
    fn from_str(text: &str) -> Result<Rate, InvalidRate> {
        let mut words = text.split_ascii_whitespace();
        let (Some(rate), burst, None) = (words.next(), words.next(), words.next()) else {
            return Err(InvalidRate::Form);
        };
        let (requests, period) = rate.split_once('/').ok_or(InvalidRate::Form)?;
        let requests = digits(requests)?;
        let unit = period.chars().next_back().ok_or(InvalidRate::Form)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(InvalidRate::Form),
        };
        let count = match period.strip_suffix(unit) {
            None | Some("") => 1,
            Some(count) => digits(count)?,
        };
        let burst = match burst {
            None => requests,
            Some(word) => digits(word.strip_prefix("burst=").ok_or(InvalidRate::Form)?)?,
        };
        Rate::new(requests, Duration::from_secs(seconds.saturating_mul(u64::from(count))), burst)
    }
}

fn digits(text: &str) -> Result<u32, InvalidRate> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidRate::Form);
    }
    text.parse().map_err(|_| InvalidRate::TooFast)
}

/// Result of counting one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The request is within its rate. If not, it was not counted.
    pub allowed: bool,
    /// How many more could come at once.
    pub remaining: u32,
    /// How long it takes until there is one more than that.
    pub wait: Duration,
}

/// The cells, and how keys find theirs.
#[derive(Clone)]
pub struct RateTable {
    cells: Cells,
    hasher: RandomState,
}

impl fmt::Debug for RateTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateTable").field("cells", &self.cells().len()).finish_non_exhaustive()
    }
}

impl RateTable {
    /// How many cells remember `keys` keys well: a quarter more, in whole buckets.
    pub fn cells_for(keys: usize) -> usize {
        keys.saturating_add(keys / 4).max(1).div_ceil(WAYS).saturating_mul(WAYS)
    }

    /// A table in memory of this process.
    pub fn local(keys: usize) -> RateTable {
        let cells: Box<[AtomicU64]> = (0..RateTable::cells_for(keys)).map(|_| AtomicU64::new(0)).collect();
        RateTable::shared(Arc::new(cells))
    }

    /// A table in cells that others may have, too. It must be made before the processes part, because the hash has a
    /// secret; and its memory should begin where a line of the cache does.
    pub fn shared(cells: Cells) -> RateTable {
        RateTable { cells, hasher: RandomState::new() }
    }

    /// Takes one request of `key` from its rate. `now`: the time since a moment that all who use the table agree on.
    ///
    /// One key must always come with the same rate.
    pub fn take(&self, key: Key<'_>, rate: &Rate, now: Duration) -> Taken {
        let hash = self.hasher.hash_one((key.policy, key.bytes));
        let (tag, now) = (tag(hash), units(now));
        let (interval, burst) = (paid_in(rate), u64::from(rate.burst()));
        let whole = interval.saturating_mul(burst);
        let bucket = self.bucket(hash);
        loop {
            let mut own = None;
            let mut oldest: Option<(i64, &AtomicU64, u64)> = None;
            for cell in bucket {
                let word = cell.load(Ordering::Relaxed);
                if word >> TIME_BITS == tag {
                    own = Some((cell, word));
                    break;
                }
                let due = if word == 0 { i64::MIN } else { ahead(word, now) };
                if oldest.is_none_or(|(least, _, _)| due < least) {
                    oldest = Some((due, cell, word));
                }
            }
            let (cell, word, debt) = match (own, oldest) {
                (Some((cell, word)), _) => {
                    let ahead = u64::try_from(ahead(word, now)).unwrap_or(0);
                    let is_debt = ahead <= whole.saturating_add(units(SKEW_MAX));
                    (cell, word, if is_debt { ahead.min(whole) } else { 0 })
                }
                (None, Some((_, cell, word))) => (cell, word, 0),
                // A table without cells limits nothing.
                (None, None) => {
                    return Taken { allowed: true, remaining: rate.burst(), wait: Duration::ZERO };
                }
            };
            let after = debt.saturating_add(interval);
            if after > whole {
                return Taken { allowed: false, remaining: 0, wait: duration(after - whole) };
            }
            let new = (tag << TIME_BITS) | (now.wrapping_add(after) & TIME_MASK);
            if cell.compare_exchange(word, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                let remaining = (whole - after).checked_div(interval).unwrap_or(0);
                let next = interval.saturating_mul(remaining.saturating_add(1));
                return Taken {
                    allowed: true,
                    remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
                    wait: duration(next.saturating_add(after).saturating_sub(whole)),
                };
            }
        }
    }

    /// Gives back what [`take`](Self::take) took, for a request that was refused for another reason.
    pub fn give_back(&self, key: Key<'_>, rate: &Rate, now: Duration) {
        let hash = self.hasher.hash_one((key.policy, key.bytes));
        let (tag, now, interval) = (tag(hash), units(now), paid_in(rate));
        for cell in self.bucket(hash) {
            let given = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let owed = u64::try_from(ahead(word, now)).ok().filter(|_| word >> TIME_BITS == tag)?;
                Some((tag << TIME_BITS) | (now.wrapping_add(owed.saturating_sub(interval)) & TIME_MASK))
            });
            if given.is_ok() {
                return;
            }
        }
    }

    fn cells(&self) -> &[AtomicU64] {
        (*self.cells).as_ref()
    }

    fn bucket(&self, hash: u64) -> &[AtomicU64] {
        let cells = self.cells();
        let buckets = u64::try_from(cells.len() / WAYS).unwrap_or(u64::MAX);
        // The bits that choose the bucket are not those of the tag.
        let place = (hash & TIME_MASK).checked_rem(buckets).and_then(|place| usize::try_from(place).ok());
        let start = place.and_then(|place| place.checked_mul(WAYS));
        start.and_then(|start| cells.get(start..start.checked_add(WAYS)?)).unwrap_or_default()
    }
}

/// Owner of a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// The policy.
    pub policy: u32,
    /// Bytes that identify the client.
    pub bytes: &'a [u8],
}

/// The bits that tell keys of a bucket apart. Zero is for cells that nobody used.
fn tag(hash: u64) -> u64 {
    (hash >> TIME_BITS).max(1)
}

fn units(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() >> UNIT_BITS & u128::from(TIME_MASK)).unwrap_or(0)
}

/// How long one request is paid for, in units; rounded up, so that a rate is never exceeded.
fn paid_in(rate: &Rate) -> u64 {
    u64::try_from(rate.interval().as_nanos().div_ceil(1 << UNIT_BITS)).unwrap_or(TIME_MASK).max(1)
}

fn duration(units: u64) -> Duration {
    Duration::from_nanos(units.saturating_mul(1 << UNIT_BITS))
}

/// How far the time of a cell is ahead of now; negative when it is past.
fn ahead(word: u64, now: u64) -> i64 {
    let apart = word.wrapping_sub(now) << (u64::BITS - TIME_BITS);
    apart.cast_signed() >> (u64::BITS - TIME_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn key(bytes: &[u8]) -> Key<'_> {
        Key { policy: 0, bytes }
    }

    const START: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn rates_are_read() {
        for (text, requests, seconds, burst) in [
            ("10/s", 10, 1, 10),
            ("100/m", 100, 60, 100),
            ("1000/h", 1000, 3600, 1000),
            ("5/d", 5, 86_400, 5),
            ("30/10s", 30, 10, 30),
            ("100/m burst=20", 100, 60, 20),
            ("1/s  burst=100", 1, 1, 100),
        ] {
            let rate = rate(text);
            let parts = (rate.requests(), rate.period().as_secs(), rate.burst());
            assert_eq!(parts, (requests, seconds, burst), "{text}");
        }
        for (text, error) in [
            ("", InvalidRate::Form),
            ("10", InvalidRate::Form),
            ("10/", InvalidRate::Form),
            ("10/x", InvalidRate::Form),
            ("10/s/s", InvalidRate::Form),
            ("/s", InvalidRate::Form),
            ("+10/s", InvalidRate::Form),
            ("-1/s", InvalidRate::Form),
            ("1.5/s", InvalidRate::Form),
            ("10/\u{e9}", InvalidRate::Form),
            ("10/s 20", InvalidRate::Form),
            ("10/s burst=", InvalidRate::Form),
            ("10/s burst=2 x", InvalidRate::Form),
            ("0/s", InvalidRate::Zero),
            ("1/0s", InvalidRate::Zero),
            ("1/s burst=0", InvalidRate::Zero),
            ("20001/s", InvalidRate::TooFast),
            ("99999999999/s", InvalidRate::TooFast),
            ("1/32d", InvalidRate::TooSlow),
            ("1/d burst=32", InvalidRate::TooSlow),
            ("1/4294967295d", InvalidRate::TooSlow),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let table = RateTable::local(100);
        let rate = rate("60/m burst=3");
        for remaining in [2, 1, 0] {
            let taken = table.take(key(b"a"), &rate, START);
            assert!(taken.allowed);
            assert_eq!(taken.remaining, remaining);
            assert_eq!(taken.wait.as_secs_f64().round(), 1.0);
        }
        for _ in 0..10 {
            let taken = table.take(key(b"a"), &rate, START + Duration::from_millis(500));
            assert!(!taken.allowed);
            assert!((0.5..0.501).contains(&taken.wait.as_secs_f64()), "{taken:?}");
        }
        assert!(table.take(key(b"b"), &rate, START).allowed);
        assert!(table.take(Key { policy: 1, bytes: b"a" }, &rate, START).allowed);
        assert!(table.take(key(b"a"), &rate, START + Duration::from_millis(1001)).allowed);
        assert!(!table.take(key(b"a"), &rate, START + Duration::from_millis(1002)).allowed);
        assert_eq!(table.take(key(b"a"), &rate, START + Duration::from_secs(60)).remaining, 2);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let table = RateTable::local(100);
        let rate = rate("1/m");
        for _ in 0..5 {
            assert!(table.take(key(b"a"), &rate, START).allowed);
            table.give_back(key(b"a"), &rate, START);
        }
        assert!(table.take(key(b"a"), &rate, START).allowed);
        assert!(!table.take(key(b"a"), &rate, START).allowed);
        table.give_back(key(b"unknown"), &rate, START);
    }

    #[test]
    fn all_threads_together_get_one_burst() {
        let table = RateTable::local(1000);
        let rate = rate("1/h burst=500");
        let allowed: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..400).filter(|_| table.take(key(b"a"), &rate, START).allowed).count())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 500);
    }

    #[test]
    fn a_flood_of_addresses_does_not_free_who_is_limited() {
        let table = RateTable::local(1000);
        let rate = rate("10/m");
        for _ in 0..10 {
            assert!(table.take(key(b"busy"), &rate, START).allowed);
        }
        for number in 0u32..100_000 {
            table.take(key(&number.to_le_bytes()), &rate, START);
        }
        assert!(!table.take(key(b"busy"), &rate, START).allowed);
        assert_eq!(table.cells().len(), RateTable::cells_for(1000));
    }

    #[test]
    fn idle_keys_make_room() {
        let table = RateTable::local(8);
        let rate = rate("1/m");
        for number in 0u32..1000 {
            let now = START + Duration::from_secs(u64::from(number) * 61);
            assert!(table.take(key(&number.to_le_bytes()), &rate, now).allowed);
            assert!(!table.take(key(&number.to_le_bytes()), &rate, now).allowed);
        }
    }

    #[test]
    fn time_comes_round_without_harm() {
        let table = RateTable::local(8);
        let rate = rate("1/s");
        let round = duration(1 << TIME_BITS);
        let before = round - Duration::from_millis(500);
        assert!(table.take(key(b"a"), &rate, before).allowed);
        assert!(!table.take(key(b"a"), &rate, before + Duration::from_millis(900)).allowed);
        assert!(table.take(key(b"a"), &rate, before + Duration::from_millis(1001)).allowed);
        // A cell that was not used for longer than its time can tell.
        for months in 1..60 {
            let later = before + Duration::from_secs(months * 30 * 24 * 3600);
            let table = RateTable::local(8);
            assert!(table.take(key(b"b"), &rate, before).allowed);
            assert!(table.take(key(b"b"), &rate, later).allowed, "{months}");
        }
    }

    #[test]
    fn a_table_without_cells_limits_nothing() {
        let table = RateTable::shared(Arc::new(Vec::new()));
        assert!(table.take(key(b"a"), &rate("1/d"), START).allowed);
        table.give_back(key(b"a"), &rate("1/d"), START);
    }

    proptest! {
        /// A bucket of tokens that fills drop by drop, counted in whole nanoseconds of payment.
        #[test]
        fn the_table_is_a_token_bucket(
            requests in 1u32..200,
            period in 1u64..100,
            burst in 1u32..20,
            steps in proptest::collection::vec(0u64..3_000, 1..100),
        ) {
            let rate = Rate::new(requests, Duration::from_secs(period), burst).unwrap();
            let table = RateTable::local(8);
            let price = u128::from(paid_in(&rate)) << UNIT_BITS;
            let full = price * u128::from(burst);
            let mut tokens = full;
            let mut now = Duration::from_secs(5);
            for step in steps {
                // Whole units, so that both count the same.
                let step = duration(Duration::from_millis(step).as_nanos() as u64 >> UNIT_BITS);
                now += step;
                tokens = full.min(tokens + step.as_nanos());
                let taken = table.take(key(b"a"), &rate, now);
                prop_assert_eq!(taken.allowed, tokens >= price);
                if taken.allowed {
                    tokens -= price;
                    prop_assert_eq!(u128::from(taken.remaining), tokens / price);
                }
                let next = price * u128::from(taken.remaining + 1);
                prop_assert_eq!(taken.wait.as_nanos(), next - tokens);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = text.parse::<Rate>();
        }
    }
}
