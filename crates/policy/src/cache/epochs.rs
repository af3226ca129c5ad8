//! What was removed from the cache when, for all processes of an application.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rate_table::Cells;

/// Counters of removals that several processes share: one for each group of keys, and one for all keys.
#[derive(Clone)]
pub struct Epochs {
    cells: Cells,
    hasher: RandomState,
}

impl fmt::Debug for Epochs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epochs").finish_non_exhaustive()
    }
}

impl Epochs {
    /// Number of cells that there should be.
    pub const CELLS: usize = 16_384;

    /// Counters of one process.
    pub fn local() -> Epochs {
        Epochs::shared(Arc::new((0..Epochs::CELLS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>()))
    }

    /// Counters in cells that all processes with the same application share. They must be made before the processes fork,
    /// because the hash has a secret.
    pub fn shared(cells: Cells) -> Epochs {
        Epochs { cells, hasher: RandomState::new() }
    }

    pub(super) fn of(&self, key: &[u8]) -> u64 {
        let read = |cell: Option<&AtomicU64>| cell.map_or(0, |cell| cell.load(Ordering::Acquire));
        // Both only grow, so their sum is another after each change.
        read(self.all()).wrapping_add(read(self.group(key)))
    }

    pub(super) fn pass(&self, key: &[u8]) {
        if let Some(cell) = self.group(key) {
            cell.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(super) fn pass_all(&self) {
        if let Some(cell) = self.all() {
            cell.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn all(&self) -> Option<&AtomicU64> {
        (*self.cells).as_ref().first()
    }

    fn group(&self, key: &[u8]) -> Option<&AtomicU64> {
        let (_, groups) = (*self.cells).as_ref().split_first()?;
        let place = self.hasher.hash_one(key).checked_rem(u64::try_from(groups.len()).ok()?)?;
        groups.get(usize::try_from(place).ok()?)
    }
}
