//! What the processes of a server of another package count, in memory that was made before they were forked. Each has a row;
//! what processes that are gone have counted is kept in one more.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anygate_policy::metrics::{self, Counts, Totals, UNDER_ANY_SERVER};
use anygate_policy::rate_table::Cells;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::route_table::RouteTable;
use anygate_server::SharedRow;

use super::process_rows::{Rows, is_gone};
use crate::policies::shared;

/// The counters of all processes.
#[derive(Clone)]
pub(super) struct Counting {
    owners: Rows,
    /// How many processes are counted apart.
    processes: usize,
    cells: Cells,
    /// What is counted by route, if anything is.
    routes: Option<RouteTable>,
    /// The process that sends the metrics to StatsD.
    sender: Cells,
}

/// The counters of one process.
struct ProcessCounters {
    cells: Cells,
    range: Range<usize>,
}

impl AsRef<[AtomicU64]> for ProcessCounters {
    fn as_ref(&self) -> &[AtomicU64] {
        (*self.cells).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl Counting {
    /// Takes memory.
    ///
    /// Errors: there is none.
    pub(super) fn new(owners: Rows, processes: usize, has_routes: bool) -> io::Result<Counting> {
        let cells = shared(processes.saturating_add(1).saturating_mul(metrics::CELLS))?;
        let routes = has_routes.then(|| shared(RouteTable::CELLS).map(RouteTable::new)).transpose()?;
        Ok(Counting { owners, processes, cells, routes, sender: shared(1)? })
    }

    /// The counters of the process that has this row.
    pub(super) fn row(&self, row: usize) -> SharedRow {
        let start = row.saturating_mul(metrics::CELLS);
        Arc::new(ProcessCounters {
            cells: Arc::clone(&self.cells),
            range: start..start.saturating_add(metrics::CELLS),
        })
    }

    /// What is counted by route, if anything is.
    pub(super) fn routes(&self) -> Option<&RouteTable> {
        self.routes.as_ref()
    }

    /// The process that had this row is gone: what it has counted is kept.
    pub(super) fn retire(&self, row: usize) {
        let (gone, all) = (self.row(row), self.row(self.processes));
        ProcessRow((*gone).as_ref()).counts().retire_into(ProcessRow((*all).as_ref()).counts());
    }

    /// The numbers of all processes.
    pub(super) fn totals(&self) -> Totals {
        self.owners.sweep(&|row| self.retire(row));
        let rows = (*self.cells).as_ref().chunks(metrics::CELLS);
        let totals = Totals::of(rows).only(UNDER_ANY_SERVER);
        totals.with_routes(self.routes.iter().flat_map(RouteTable::routes))
    }

    /// The metrics in Prometheus' text format.
    pub(super) fn prometheus(&self) -> String {
        let totals = self.totals();
        let rows = (*self.cells).as_ref().chunks(metrics::CELLS).take(self.processes).map(Counts);
        let living = rows.enumerate().filter(|(_, counts)| counts.get(metrics::WORKERS) > 0);
        let living: Vec<_> = living.map(|(row, counts)| (row + 1, counts)).collect();
        totals.prometheus(&living)
    }

    /// Whether this process is the one that sends the metrics; it becomes that if the one that was is gone.
    pub(super) fn sends(&self, process: u32) -> bool {
        let Some(sender) = (*self.sender).as_ref().first() else { return false };
        let (own, now) = (u64::from(process), sender.load(Ordering::Acquire));
        let is_free = now == 0 || is_gone(now);
        now == own
            || (is_free && sender.compare_exchange(now, own, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_processes_counted_that_are_gone_is_told_and_what_they_used_is_not() {
        // No process has such a number.
        let gone = 1 << 30;
        let owners: Vec<_> = [gone, u64::from(std::process::id())].into_iter().map(AtomicU64::new).collect();
        let counting = Counting::new(Rows::new(Arc::new(owners)), 2, false).expect("there is memory");
        for (row, bytes) in [(0, 7), (1, 11)] {
            let shared = counting.row(row);
            let counts = ProcessRow((*shared).as_ref()).counts();
            counts.set(metrics::WORKERS, 1);
            counts.set(metrics::MEMORY, bytes);
            counts.request(&metrics::Request {
                method: b"GET",
                status: 200,
                duration: Duration::from_millis(1),
                queued: Duration::ZERO,
                lock: Duration::ZERO,
                received: 0,
                sent: 3,
            });
        }
        let text = counting.prometheus();
        for line in [
            "anygate_requests_total{method=\"GET\",status=\"2xx\"} 2\n",
            "anygate_workers 1\n",
            "anygate_worker_memory_bytes{worker=\"2\"} 11\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("anygate_connections"), "{text}");
        assert!(!text.contains("worker=\"1\""), "{text}");
        assert!(counting.sends(std::process::id()) && !counting.sends(1));
    }
}
