//! How much each of many keys has used of its rate, in a fixed number of 64-bit cells that several processes may share.
//!
//! Each key has a cell: 20 bits that tell keys apart and 44 bits of time, the moment at which all of its requests will
//! have been paid for (the "theoretical arrival time" of the generic cell rate algorithm, ITU-T I.371 annex A). Being one
//! word, a cell is read and changed in one step and no process waits for another, not even for one that died.
//!
//! A key may lie in any of the eight cells of its bucket, which is one line of a processor's cache. When all are taken,
//! the key that has paid or is nearest to having paid makes room: what is forgotten is the least of what there is to
//! remember. A million addresses that send one request each forget each other, and not the one that sends a thousand.
//!
//! Two keys of one bucket with the same 20 bits would share a rate. That concerns one key in 130 000, and no client can
//! choose which, because the hash is keyed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anygate_config::site::Rate;

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
/// What became of one request.
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

/// The bits that tell keys of a bucket apart. Zero is for unused cells.
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
    use anygate_config::site::RatePlan;
    use proptest::prelude::*;
    use std::thread;

    fn rate(text: &str) -> Rate {
        RatePlan::read(text).unwrap().rate
    }

    fn key(bytes: &[u8]) -> Key<'_> {
        Key { policy: 0, bytes }
    }

    const START: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let table = RateTable::local(100);
        let rate = rate("60/1m burst 3");
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
        let rate = rate("1/1m");
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
        let rate = rate("1/1h burst 500");
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
        let rate = rate("10/1m");
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
        let rate = rate("1/1m");
        for number in 0u32..1000 {
            let now = START + Duration::from_secs(u64::from(number) * 61);
            assert!(table.take(key(&number.to_le_bytes()), &rate, now).allowed);
            assert!(!table.take(key(&number.to_le_bytes()), &rate, now).allowed);
        }
    }

    #[test]
    fn time_comes_round_without_harm() {
        let table = RateTable::local(8);
        let rate = rate("1/1s");
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
        assert!(table.take(key(b"a"), &rate("1/1d"), START).allowed);
        table.give_back(key(b"a"), &rate("1/1d"), START);
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
            let rate = rate(&format!("{requests}/{period}s burst {burst}"));
            let table = RateTable::local(8);
            let price = u128::from(paid_in(&rate)) << UNIT_BITS;
            let full = price * u128::from(burst);
            let mut tokens = full;
            let mut now = Duration::from_secs(5);
            for step in steps {
                // Whole units, so that both count the same.
                let nanoseconds = u64::try_from(Duration::from_millis(step).as_nanos()).unwrap();
                let step = duration(nanoseconds >> UNIT_BITS);
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

    }
}
