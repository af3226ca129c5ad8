//! Which process counts in which row. Servers of other packages do not number their processes, so each takes a row that
//! no process has, or whose process is gone.

use std::sync::atomic::{AtomicU64, Ordering};

use anygate_policy::rate_table::Cells;
use anygate_sys::process;

/// What stands for the owner of a row that is being cleared.
const CLEARING: u64 = u64::MAX;

/// The processes that have the rows, 0 for a free row; for all that are forked from this one.
#[derive(Clone)]
pub(super) struct Rows(Cells);

impl Rows {
    pub(super) fn new(cells: Cells) -> Rows {
        Rows(cells)
    }

    /// A row for this process, after `clear` has been told of it if another process had it. When all are taken it gets one that
    /// does not exist, in which nothing is counted.
    pub(super) fn claim(&self, process: u32, clear: &dyn Fn(usize)) -> usize {
        let own = u64::from(process);
        let take = |wanted: &dyn Fn(u64) -> bool| self.position(wanted, own);
        // The counts of processes that are gone stay until they are cleared.
        if let Some(row) = take(&|owner| owner == own || is_gone(owner)) {
            clear(row);
            return row;
        }
        take(&|owner| owner == 0).unwrap_or(usize::MAX)
    }

    /// Frees the rows of processes that are gone, after `clear` has been told of each.
    pub(super) fn sweep(&self, clear: &dyn Fn(usize)) {
        while let Some(row) = self.position(&is_gone, CLEARING) {
            clear(row);
            if let Some(cell) = self.cells().get(row) {
                cell.store(0, Ordering::Release);
            }
        }
    }

    /// The first row with such an owner, which has the new one now.
    fn position(&self, wanted: &dyn Fn(u64) -> bool, new: u64) -> Option<usize> {
        self.cells().iter().position(|cell| {
            let owner = cell.load(Ordering::Acquire);
            wanted(owner) && cell.compare_exchange(owner, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
    }

    fn cells(&self) -> &[AtomicU64] {
        (*self.0).as_ref()
    }
}

/// Whether a number is that of a process that does not exist.
pub(super) fn is_gone(owner: u64) -> bool {
    owner != 0 && owner != CLEARING && !i32::try_from(owner).is_ok_and(process::exists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::Arc;

    #[test]
    fn a_row_is_that_of_one_living_process() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        // No process has such a number.
        let cells: Vec<_> = [u64::from(parent), 0, 1 << 30].into_iter().map(AtomicU64::new).collect();
        let rows = Rows::new(Arc::new(cells));
        let cleared = RefCell::new(Vec::new());
        let clear = |row| cleared.borrow_mut().push(row);
        assert_eq!(rows.claim(own, &clear), 2);
        assert_eq!(rows.claim(own, &clear), 2);
        assert_eq!(rows.claim(1, &clear), 1);
        assert_eq!(rows.claim(u32::MAX, &clear), usize::MAX);
        assert_eq!(*cleared.borrow(), [2, 2]);
    }

    #[test]
    fn rows_of_processes_that_are_gone_are_free_again() {
        let cells: Vec<_> =
            [1 << 30, u64::from(std::process::id()), 1 << 31].into_iter().map(AtomicU64::new).collect();
        let rows = Rows::new(Arc::new(cells));
        let cleared = RefCell::new(Vec::new());
        rows.sweep(&|row| cleared.borrow_mut().push(row));
        assert_eq!(*cleared.borrow(), [0, 2]);
        assert_eq!(rows.claim(1, &|_| ()), 0);
    }
}
