//! What a worker tells its supervisor and the other workers while it serves.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anygate_config::ProcessPlan;
use anygate_policy::metrics;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_server::{BetterPeer, Events, Peers, RequestsMax, SharedRow};
use anygate_supervisor::{Counts, Report};
use anygate_sys::process;

use crate::logs::{self, Tender};
use crate::stacks::Stacks;

/// Requests that have not run for so long stand still.
const HELD: Duration = Duration::from_secs(1);

/// Tells the supervisor when this worker had as many requests as it may, which are others for each.
pub(crate) fn requests_max(plan: &ProcessPlan, report: &Report) -> io::Result<Option<RequestsMax>> {
    if plan.max_requests == 0 {
        return Ok(None);
    }
    let mut random = [0; 8];
    getrandom::fill(&mut random)?;
    let more = u64::from_ne_bytes(random) % (plan.max_requests_jitter + 1);
    let teller = report.try_clone()?;
    let reached = Box::new(move || teller.had_requests());
    Ok(Some(RequestsMax { count: plan.max_requests + more, reached }))
}

/// Reports to the supervisor, and in the process row.
pub(crate) struct Reporting {
    pub(crate) report: Report,
    pub(crate) row: Option<SharedRow>,
    pub(crate) supervisor: Counts,
    pub(crate) logs: Tender,
    pub(crate) stacks: Arc<Stacks>,
    /// How long requests may stand still.
    pub(crate) patience: Duration,
    /// That they do was logged.
    pub(crate) is_told: bool,
    pub(crate) resources: ResourceLog,
}

/// When the resources that a worker uses are logged.
pub(crate) struct ResourceLog {
    pub(crate) interval: Option<Duration>,
    pub(crate) last: Instant,
}

impl Reporting {
    /// Shows what this worker uses of the machine, and logs it when it is time.
    fn tell_resources(&mut self) {
        let is_due =
            self.resources.interval.is_some_and(|interval| self.resources.last.elapsed() >= interval);
        if self.row.is_none() && !is_due {
            return;
        }
        let used = Resources::now();
        if let Some(row) = &self.row {
            used.put_into(ProcessRow((**row).as_ref()));
        }
        if is_due {
            self.resources.last = Instant::now();
            let known = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |value| value.to_string());
            tracing::info!(
                "this worker: {:.2} s of processor time, {} open files, {} MB in memory",
                used.time.as_secs_f64(),
                known(used.files),
                known(used.bytes.map(|bytes| bytes >> 20)),
            );
        }
    }
}

/// What this process uses of the machine.
pub(crate) struct Resources {
    time: Duration,
    files: Option<u64>,
    bytes: Option<u64>,
}

impl Resources {
    pub(crate) fn now() -> Resources {
        let (files, bytes) = (process::open_files(), process::resident_bytes());
        Resources { time: process::processor_time(), files, bytes }
    }

    /// Shows it in the row of this process.
    pub(crate) fn put_into(&self, row: ProcessRow<'_>) {
        let counts = row.counts();
        counts.set(metrics::CPU_TIME, u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX));
        for (cell, value) in [(metrics::OPEN_FILES, self.files), (metrics::MEMORY, self.bytes)] {
            if let Some(value) = value {
                counts.set(cell, value);
            }
        }
    }
}

impl Events for Reporting {
    fn beat(&mut self, traffic: bool, held: Option<Duration>) {
        let held = held.unwrap_or_default();
        // A worker that is silent for too long is replaced, and one in which nothing can run is no better.
        if held < HELD {
            self.report.beat(traffic);
            self.is_told = false;
        }
        if held > self.patience / 2 && !std::mem::replace(&mut self.is_told, true) {
            self.stacks.log(held);
        }
        self.logs.tend();
        self.tell_resources();
        if self.row.is_some() {
            logs::follow(ProcessRow(self.supervisor.as_ref()));
        }
    }

    fn draining(&mut self) {
        self.report.draining();
    }

    fn retiring(&mut self) {
        self.report.stuck();
    }
}

/// What workers know of each other.
pub(crate) struct Sharing(pub(crate) anygate_supervisor::Peers);

impl Peers for Sharing {
    fn are_there(&self) -> bool {
        self.0.are_there()
    }

    fn tell(&self, connections: usize, free: bool) {
        self.0.tell(connections, free);
    }

    fn leave(&self) {
        self.0.leave();
    }

    fn better_than(&self, connections: usize, free: bool) -> Option<BetterPeer> {
        let (slot, free, connections) = self.0.better_than(connections, free)?;
        Some(BetterPeer { slot, free, connections: usize::try_from(connections).unwrap_or(usize::MAX) })
    }

    fn ring(&self, peer: BetterPeer) -> io::Result<()> {
        self.0.ring(peer.slot)
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.0.bell()
    }

    fn remain(&self) -> bool {
        self.0.remain()
    }
}
