//! Which process counts in which row. Servers of other packages do not number their processes, so each takes a row that
//! no process has, or whose process is gone.

use std::sync::atomic::Ordering;

use anygate_policy::rate_table::Cells;
use anygate_sys::process;

/// The processes that have the rows, 0 for a free row; for all that are forked from this one.
pub(super) struct Rows(Cells);

impl Rows {
    pub(super) fn new(cells: Cells) -> Rows {
        Rows(cells)
    }

    /// A row for this process. When all are taken it gets one that does not exist, in which nothing is counted.
    pub(super) fn claim(&self, process: u32) -> usize {
        let cells = (*self.0).as_ref();
        let is_gone = |owner: u64| {
            owner == u64::from(process) || (owner != 0 && !i32::try_from(owner).is_ok_and(process::exists))
        };
        let take = |wanted: &dyn Fn(u64) -> bool| {
            cells.iter().position(|cell| {
                let owner = cell.load(Ordering::Acquire);
                let new = u64::from(process);
                wanted(owner)
                    && cell.compare_exchange(owner, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            })
        };
        // The counts of processes that are gone stay until they are cleared.
        take(&is_gone).or_else(|| take(&|owner| owner == 0)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn a_row_is_that_of_one_living_process() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        // No process has such a number.
        let cells: Vec<_> = [u64::from(parent), 0, 1 << 30].into_iter().map(AtomicU64::new).collect();
        let rows = Rows::new(Arc::new(cells));
        assert_eq!(rows.claim(own), 2);
        assert_eq!(rows.claim(own), 2);
        assert_eq!(rows.claim(1), 1);
        assert_eq!(rows.claim(u32::MAX), usize::MAX);
    }
}
