//! Records of spans on their way from the processes that serve requests to the one that sends them: a fixed number of places
//! in memory that all share. No writer waits: what finds no place is lost, and its writer knows.
//!
//! A place is free, or is being written by a process, or holds a record. Processes take blocks of places in turn, and write into
//! the places of their block one after the other: so no processor waits for memory that another one writes. The one reader
//! looks at all places. A writer that dies while it writes leaves its place taken; the reader frees it when that process is gone, and
//! not before, so that no other writes into it meanwhile.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::rate_table::Cells;

/// Longest record.
pub const RECORD_MAX_BYTES: usize = WORDS * BYTES;
/// Numbers that hold one record.
const WORDS: usize = 192;
const BYTES: usize = size_of::<u64>();
/// Places that a process takes at a time.
const BLOCK: u64 = 16;
/// Places that a writer looks at: if others fill its block meanwhile, there is another one.
const TRIES: u64 = 2 * BLOCK;
/// Numbers before the states of places, so that these begin a line of a processor's cache, as the memory does.
const HEAD: usize = 64 / BYTES;

/// States of a place. What it has above these bits is the process that writes, or the length of the record.
const FREE: u64 = 0;
const WRITING: u64 = 1;
const FULL: u64 = 2;
const STATE_BITS: u32 = 2;

/// The places, in memory that others may have, too: a counter of places in blocks, the state of each place, then the records.
pub struct SpanRing {
    cells: Cells,
    places: usize,
    /// The process that writes here,
    process: u64,
    /// and its next place, as the counter has it. At the end of a block it has none.
    next: AtomicU64,
}

impl SpanRing {
    /// Returns how many cells a ring of so many places needs.
    pub const fn cells_for(places: usize) -> usize {
        HEAD + places * (1 + WORDS)
    }

    /// A ring in cells that are zero when it is first made of them. To be made by each process anew.
    pub fn new(cells: Cells) -> SpanRing {
        let count: &[AtomicU64] = (*cells).as_ref();
        let places = count.len().saturating_sub(HEAD) / (1 + WORDS);
        SpanRing { places, cells, process: std::process::id().into(), next: AtomicU64::new(0) }
    }

    /// Returns how many places there are.
    pub fn places(&self) -> usize {
        self.places
    }

    /// Puts down a record; returns whether there was a place for it.
    #[must_use]
    pub fn push(&self, record: &[u8]) -> bool {
        if record.len() > RECORD_MAX_BYTES {
            return false;
        }
        let writing = self.process << STATE_BITS | WRITING;
        let found = (0..TRIES).find_map(|_| {
            let place = self.next()?;
            let (state, words) = self.place(place)?;
            if state.load(Ordering::Relaxed) != FREE {
                return None;
            }
            let taken = state.compare_exchange(FREE, writing, Ordering::Acquire, Ordering::Relaxed);
            taken.is_ok().then_some((state, words))
        });
        let Some((state, words)) = found else { return false };
        let (whole, rest) = record.as_chunks::<BYTES>();
        let last = rest.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
        let numbers = whole.iter().map(|bytes| u64::from_le_bytes(*bytes)).chain([last]);
        for (word, number) in words.iter().zip(numbers) {
            word.store(number, Ordering::Relaxed);
        }
        state.store((record.len() as u64) << STATE_BITS | FULL, Ordering::Release);
        true
    }

    /// Takes all records, in no order, and frees places that processes have left which are not `alive` any more. Only one
    /// process at a time may do so.
    pub fn take(&self, alive: impl Fn(u64) -> bool, mut each: impl FnMut(&[u8])) {
        let mut record = Vec::with_capacity(RECORD_MAX_BYTES);
        for place in 0..self.places {
            let Some((state, words)) = self.place(place) else { return };
            let now = state.load(Ordering::Acquire);
            let above = now >> STATE_BITS;
            if now & ((1 << STATE_BITS) - 1) == FULL {
                let length = usize::try_from(above).unwrap_or(usize::MAX).min(RECORD_MAX_BYTES);
                record.clear();
                for word in words.iter().take(length.div_ceil(BYTES)) {
                    record.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
                }
                record.truncate(length);
                state.store(FREE, Ordering::Release);
                each(&record);
            } else if now != FREE && !alive(above) {
                // It may have written all of it meanwhile, before it died.
                let _ = state.compare_exchange(now, FREE, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }

    /// The next place in turn. Threads that ask at the same time may get the same one; its state decides whose it is.
    fn next(&self) -> Option<usize> {
        let mut turn = self.next.load(Ordering::Relaxed);
        if turn.is_multiple_of(BLOCK) {
            let cells: &[AtomicU64] = (*self.cells).as_ref();
            turn = cells.first()?.fetch_add(BLOCK, Ordering::Relaxed);
        }
        self.next.store(turn.wrapping_add(1), Ordering::Relaxed);
        usize::try_from(turn.checked_rem(self.places.try_into().ok()?)?).ok()
    }

    /// State and record of a place.
    fn place(&self, place: usize) -> Option<(&AtomicU64, &[AtomicU64])> {
        let cells: &[AtomicU64] = (*self.cells).as_ref();
        let words = cells.get(HEAD + self.places + place * WORDS..)?.get(..WORDS)?;
        Some((cells.get(HEAD + place)?, words))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn ring(places: usize) -> SpanRing {
        let cells: Vec<_> = (0..SpanRing::cells_for(places)).map(|_| AtomicU64::new(0)).collect();
        SpanRing::new(Arc::new(cells))
    }

    /// The same memory as another process sees it.
    fn other(ring: &SpanRing) -> SpanRing {
        SpanRing::new(Arc::clone(&ring.cells))
    }

    fn all(ring: &SpanRing) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        ring.take(|_| true, |record| found.push(record.to_vec()));
        found
    }

    #[test]
    fn a_full_ring_takes_no_more_until_it_was_read() {
        let ring = ring(3);
        assert_eq!(ring.places(), 3);
        for number in 0..3 {
            assert!(ring.push(&[number; 9]));
        }
        assert!(!ring.push(b"one too many"));
        assert_eq!(all(&ring), [[0; 9], [1; 9], [2; 9]]);
        assert!(all(&ring).is_empty());
        assert!(ring.push(b"again"));
        assert!(!ring.push(&[0; RECORD_MAX_BYTES + 1]));
        assert_eq!(all(&ring), [b"again".to_vec()]);
    }

    #[test]
    fn places_of_the_dead_are_freed_and_those_of_the_living_are_not() {
        let ring = ring(2);
        for (place, process) in [(0, 70u64), (1, 71)] {
            ring.place(place).unwrap().0.store(process << STATE_BITS | WRITING, Ordering::Relaxed);
        }
        assert!(!ring.push(b"x"));
        ring.take(|process| process == 71, |_| panic!("nothing was written"));
        assert!(ring.push(b"x"));
        assert!(!ring.push(b"y"));
        assert_eq!(all(&ring), [b"x".to_vec()]);
    }

    #[test]
    fn processes_do_not_write_side_by_side() {
        let ring = ring(64);
        let other = other(&ring);
        for number in 0..32 {
            assert!(ring.push(&[number]) && other.push(&[number]));
        }
        assert!(!ring.push(b"one too many"));
        let found = all(&ring);
        assert_eq!(found.len(), 64);
        for block in found.chunks(16) {
            assert!(block.windows(2).all(|pair| pair[0][0] + 1 == pair[1][0]), "{block:?}");
        }
    }

    #[test]
    fn every_record_is_read_once_and_whole_or_was_refused() {
        let (ring, over) = (ring(16), AtomicBool::new(false));
        let other = other(&ring);
        let record = |number: u64| number.to_le_bytes().repeat(20);
        let (mut found, mut refused) = (Vec::new(), 0);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..3u64)
                .map(|writer| {
                    // Two threads of one process, and another process.
                    let ring = if writer < 2 { &ring } else { &other };
                    scope.spawn(move || {
                        (0..2000).filter(|number| !ring.push(&record(writer << 32 | number))).count()
                    })
                })
                .collect();
            let (ring, over) = (&ring, &over);
            let reader = scope.spawn(move || {
                let mut found = Vec::new();
                while !over.load(Ordering::Acquire) {
                    found.extend(all(ring));
                }
                found.extend(all(ring));
                found
            });
            refused = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            over.store(true, Ordering::Release);
            found = reader.join().unwrap();
        });
        let numbers = found.iter().map(|found| {
            let number = u64::from_le_bytes(found[..8].try_into().unwrap());
            assert_eq!(*found, record(number));
            number
        });
        let different: HashSet<u64> = numbers.collect();
        assert_eq!((different.len(), found.len() + refused), (found.len(), 6000));
    }

    #[test]
    fn memory_that_is_too_short_holds_nothing() {
        for cells in [0, 1, HEAD, HEAD + WORDS] {
            let ring = SpanRing::new(Arc::new((0..cells).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()));
            assert!(!ring.push(b"x"));
            assert!(all(&ring).is_empty());
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(record in proptest::collection::vec(any::<u8>(), 0..=RECORD_MAX_BYTES)) {
            let ring = ring(1);
            prop_assert!(ring.push(&record));
            prop_assert_eq!(all(&ring), [record]);
        }
    }
}
