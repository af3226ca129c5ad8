//! How many of something each of many keys has now, in a fixed number of 64-bit cells that several processes may share.
//!
//! Every process has a row of its own and changes no other; what a key has is the sum over the rows. So when a process
//! dies, what it had is forgotten by clearing its row, and nothing stays counted for ever.
//!
//! A cell has 32 bits that tell keys apart and 32 of count. A key may lie in any of the eight cells of its bucket. A cell
//! whose count is zero is free. When none is, more keys have something in this bucket than it has cells, and the next is
//! not counted: refusing it would let eight clients shut out others. With four times as many cells as keys, one bucket in
//! four thousand is so full.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rate_table::Cells;

/// Cells in a bucket: those that one line of a processor's cache holds.
const WAYS: usize = 8;
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// The cells, and how keys find theirs.
#[derive(Clone)]
pub struct CountTable {
    cells: Cells,
    rows: usize,
    row: usize,
    hasher: RandomState,
}

impl fmt::Debug for CountTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountTable").field("rows", &self.rows).field("row", &self.row).finish_non_exhaustive()
    }
}

impl CountTable {
    /// How many cells `rows` processes need for `keys` keys that have something at the same time in each.
    pub fn cells_for(keys: usize, rows: usize) -> usize {
        row_cells(keys).saturating_mul(rows.max(1))
    }

    /// A table in memory of this process.
    pub fn local(keys: usize) -> CountTable {
        let cells: Box<[AtomicU64]> = (0..row_cells(keys)).map(|_| AtomicU64::new(0)).collect();
        CountTable::shared(Arc::new(cells), 1)
    }

    /// A table of so many rows in cells that others may have, too. It must be made before the processes part, because
    /// the hash has a secret; then each takes [its row](Self::with_row).
    pub fn shared(cells: Cells, rows: usize) -> CountTable {
        CountTable { cells, rows: rows.max(1), row: 0, hasher: RandomState::new() }
    }

    /// The table for the process that has this row, which is cleared of what an earlier process left. Rows that do not
    /// exist count nothing.
    pub fn with_row(mut self, row: usize) -> CountTable {
        self.row = row;
        for cell in self.row_of_cells(row) {
            cell.store(0, Ordering::Relaxed);
        }
        self
    }

    /// Counts one more for a key until the permit is dropped; `None` if it would have more than `max` then.
    ///
    /// Of several that ask for the last place at the same moment, all may be refused; never are more than `max` let in.
    pub fn enter(self: &Arc<Self>, key: impl Hash, max: u32) -> Option<Permit> {
        let hash = self.hasher.hash_one(key);
        let place = self.occupy(hash);
        let permit = Permit { place: place.map(|place| (Arc::clone(self), place)) };
        // The permit gives the place back when it is one too many.
        (self.sum(hash) <= u64::from(max)).then_some(permit)
    }

    /// How many a key has.
    pub fn count(&self, key: impl Hash) -> u64 {
        self.sum(self.hasher.hash_one(key))
    }

    /// Adds one to the key's cell in the own row; returns which cell that is.
    fn occupy(&self, hash: u64) -> Option<usize> {
        let (first, bucket) = self.bucket(self.row, hash)?;
        loop {
            let words =
                bucket.iter().zip(first..).map(|(cell, place)| (cell.load(Ordering::Acquire), cell, place));
            let (mut own, mut free) = (None, None);
            for (word, cell, place) in words {
                if word & COUNT_MASK == 0 {
                    free = free.or(Some((word, cell, place)));
                } else if word >> COUNT_BITS == tag(hash) {
                    own = own.or(Some((word, cell, place)));
                }
            }
            let (word, cell, place) = own.or(free)?;
            let count = (word & COUNT_MASK) + 1;
            if count > COUNT_MASK {
                return None;
            }
            let new = (tag(hash) << COUNT_BITS) | count;
            if cell.compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Some(place);
            }
        }
    }

    fn sum(&self, hash: u64) -> u64 {
        let words = (0..self.rows).filter_map(|row| self.bucket(row, hash)).flat_map(|(_, bucket)| bucket);
        let words = words.map(|cell| cell.load(Ordering::Acquire));
        words.filter(|word| word >> COUNT_BITS == tag(hash)).map(|word| word & COUNT_MASK).sum()
    }

    fn row_of_cells(&self, row: usize) -> &[AtomicU64] {
        let cells: &[AtomicU64] = (*self.cells).as_ref();
        let width = self.width();
        let start = if row < self.rows { row.checked_mul(width) } else { None };
        start.and_then(|start| cells.get(start..start.checked_add(width)?)).unwrap_or_default()
    }

    fn width(&self) -> usize {
        let cells: &[AtomicU64] = (*self.cells).as_ref();
        cells.len().checked_div(self.rows).unwrap_or(0) / WAYS * WAYS
    }

    fn bucket(&self, row: usize, hash: u64) -> Option<(usize, &[AtomicU64])> {
        let buckets = u64::try_from(self.width() / WAYS).ok()?;
        let place = usize::try_from((hash & COUNT_MASK).checked_rem(buckets)?).ok()?.checked_mul(WAYS)?;
        let bucket = self.row_of_cells(row).get(place..place.checked_add(WAYS)?)?;
        Some((place, bucket))
    }
}

/// One that is counted until this is dropped.
#[derive(Debug)]
#[must_use = "a permit that is dropped counts no longer"]
pub struct Permit {
    /// The table and the cell of the own row; nothing when the bucket was full.
    place: Option<(Arc<CountTable>, usize)>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some((table, place)) = &self.place
            && let Some(cell) = table.row_of_cells(table.row).get(*place)
        {
            // As long as the permit lives, the count is at least one, and the cell belongs to this client.
            cell.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn row_cells(keys: usize) -> usize {
    keys.saturating_mul(4).max(1).div_ceil(WAYS).saturating_mul(WAYS)
}

/// The bits that tell keys of a bucket apart; others than those that choose the bucket.
fn tag(hash: u64) -> u64 {
    hash >> COUNT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::thread;

    #[test]
    fn a_permit_counts_until_it_is_dropped() {
        let table = Arc::new(CountTable::local(100));
        let first = table.enter("a", 2).unwrap();
        let second = table.enter("a", 2).unwrap();
        assert!(table.enter("a", 2).is_none());
        assert_eq!(table.count("a"), 2);
        let other = table.enter("b", 1).unwrap();
        drop(first);
        let third = table.enter("a", 2).unwrap();
        drop((second, third, other));
        assert_eq!((table.count("a"), table.count("b")), (0, 0));
        assert!(table.enter("a", 0).is_none());
        assert_eq!(table.count("a"), 0);
    }

    #[test]
    fn processes_count_together_and_a_dead_one_is_forgotten() {
        let cells: Cells =
            Arc::new((0..CountTable::cells_for(50, 3)).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        let table = CountTable::shared(cells, 3);
        let workers: Vec<_> = (0..3).map(|row| Arc::new(table.clone().with_row(row))).collect();
        let held: Vec<_> = workers.iter().map(|worker| worker.enter("a", 3).unwrap()).collect();
        assert!(workers[1].enter("a", 3).is_none());
        assert_eq!(workers[2].count("a"), 3);
        // The process of row 1 ends without dropping what it held.
        std::mem::forget(held);
        let replaced = Arc::new(table.clone().with_row(1));
        assert_eq!(replaced.count("a"), 2);
        let permit = replaced.enter("a", 3).unwrap();
        assert!(workers[0].enter("a", 3).is_none());
        drop(permit);
        assert_eq!(workers[0].count("a"), 2);
    }

    #[test]
    fn a_row_that_is_not_there_counts_nothing() {
        let table = Arc::new(CountTable::local(10).with_row(7));
        let permits: Vec<_> = (0..5).map(|_| table.enter("a", 1).unwrap()).collect();
        assert_eq!(table.count("a"), 0);
        drop(permits);
    }

    #[test]
    fn a_full_bucket_lets_others_in_uncounted() {
        let table = Arc::new(CountTable::local(1));
        let permits: Vec<_> = (0..20).map(|key| table.enter(key, 1).unwrap()).collect();
        assert_eq!((0..20).filter(|key| table.count(key) == 1).count(), WAYS);
        drop(permits);
        assert!((0..20).all(|key| table.count(key) == 0));
    }

    #[test]
    fn never_more_than_allowed_at_the_same_moment() {
        let table = Arc::new(CountTable::local(100));
        let inside = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        if let Some(permit) = table.enter("a", 2) {
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(table.count("a"), 0);
    }

    proptest! {
        #[test]
        fn a_table_counts_as_a_map_does(steps in proptest::collection::vec((0u8..6, any::<bool>()), 0..200)) {
            let table = Arc::new(CountTable::local(64));
            let mut permits: HashMap<u8, Vec<Permit>> = HashMap::new();
            for (key, enters) in steps {
                let held = permits.entry(key).or_default();
                if enters {
                    match table.enter(key, 3) {
                        Some(permit) => held.push(permit),
                        None => prop_assert_eq!(held.len(), 3),
                    }
                } else {
                    held.pop();
                }
                prop_assert!(held.len() <= 3);
                prop_assert_eq!(table.count(key), held.len() as u64);
            }
        }
    }
}
