//! Requests that the threads or greenlets of a worker are responding to, in memory that all processes share. What does not fit is not shown.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::shared_memory::text;

/// Requests of one worker that can be seen.
pub const PLACES: usize = 64;
const WORDS: usize = 16;
/// Numbers in a row.
pub const CELLS: usize = PLACES * WORDS;
/// Method and target are cut off after so many bytes.
const TEXT_BYTES: usize = text::text_max_bytes(WORDS - 1);
/// The place is being written.
const CLAIMED: u64 = u64::MAX;

/// A worker's requests.
#[derive(Clone, Copy)]
pub struct InFlight<'a>(pub &'a [AtomicU64]);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since its call began.
    pub age: Duration,
    /// Method and target, as sent; bytes that are not UTF-8 are replaced.
    pub request: String,
}

impl<'a> InFlight<'a> {
    /// Shows a request; returns its place, `None` when there is none.
    pub fn begin(self, now: SystemTime, method: &[u8], target: &[u8]) -> Option<usize> {
        let place = (0..PLACES).find(|&place| {
            self.place(place).is_some_and(|(begun, _)| {
                begun.load(Ordering::Relaxed) == 0
                    && begun.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
            })
        })?;
        let (begun, words) = self.place(place)?;
        let mut text = [0; TEXT_BYTES];
        let mut room = &mut text[..];
        for part in [method, b" ", target] {
            // What there is no room for is cut off: a slice takes what it has room for.
            let _ = room.write(part);
        }
        let left = room.len();
        text::store(words, text.get(..TEXT_BYTES - left).unwrap_or_default());
        begun.store(micros(now).max(1), Ordering::Release);
        Some(place)
    }

    /// Its call has ended.
    pub fn end(self, place: usize) {
        if let Some((begun, _)) = self.place(place) {
            begun.store(0, Ordering::Release);
        }
    }

    /// All requests, the oldest first. One that ends while it is looked at may be missing.
    pub fn list(self, now: SystemTime) -> Vec<Seen> {
        let mut seen: Vec<Seen> = (0..PLACES).filter_map(|place| self.read(place, now)).collect();
        seen.sort_by_key(|seen| std::cmp::Reverse(seen.age));
        seen
    }

    fn read(self, place: usize, now: SystemTime) -> Option<Seen> {
        let (cell, words) = self.place(place)?;
        let begun = cell.load(Ordering::Acquire);
        if begun == 0 || begun == CLAIMED {
            return None;
        }
        let request = text::load(words);
        // The place was reused meanwhile, so what was read is mixed.
        std::sync::atomic::fence(Ordering::Acquire);
        let unchanged = cell.load(Ordering::Relaxed) == begun;
        let age = Duration::from_micros(micros(now).saturating_sub(begun));
        unchanged.then_some(Seen { age, request })
    }

    /// Since when there is a request, and its text.
    fn place(self, place: usize) -> Option<(&'a AtomicU64, &'a [AtomicU64])> {
        self.0.get(place * WORDS..)?.get(..WORDS)?.split_first()
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Vec<AtomicU64> {
        (0..CELLS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn what_begins_is_seen_until_it_ends() {
        let row = row();
        let calls = InFlight(&row);
        let begun = UNIX_EPOCH + Duration::from_secs(1000);
        let first = calls.begin(begun, b"GET", b"/a?b=\xff").unwrap();
        let second = calls.begin(begun + Duration::from_secs(2), b"POST", b"/").unwrap();
        let now = begun + Duration::from_secs(3);
        let seen = calls.list(now);
        let texts: Vec<_> = seen.iter().map(|seen| (seen.request.as_str(), seen.age.as_secs())).collect();
        assert_eq!(texts, [("GET /a?b=\u{fffd}", 3), ("POST /", 1)]);
        calls.end(first);
        assert_eq!(calls.list(now).len(), 1);
        assert_eq!(calls.begin(now, b"GET", b"/"), Some(first));
        calls.end(second);
    }

    #[test]
    fn long_targets_are_cut_and_too_many_requests_not_shown() {
        let row = row();
        let calls = InFlight(&row);
        for _ in 0..PLACES {
            assert!(calls.begin(UNIX_EPOCH, b"GET", &[b'x'; 500]).is_some());
        }
        assert_eq!(calls.begin(UNIX_EPOCH, b"GET", b"/"), None);
        assert_eq!(calls.list(UNIX_EPOCH)[0].request.len(), TEXT_BYTES);
        assert_eq!(InFlight(&[]).begin(UNIX_EPOCH, b"GET", b"/"), None);
        assert!(InFlight(&row[..7]).list(UNIX_EPOCH).is_empty());
    }
}
