//! The tree of processes as it is seen here.

use std::io;

use anygate_config::{Order, WorkerStage};
use anygate_policy::metrics::Totals;
use anygate_policy::shared_memory::process_row::ProcessRow;
use anygate_policy::shared_memory::route_table::RouteTable;

use crate::apps::{self, AppReport};

/// Access to the process tree, and control of it.
pub trait Processes: Send + Sync {
    /// The workers that live.
    fn workers(&self) -> Vec<Worker<'_>>;

    /// Returns the rows of the supervisor, and of all processes that are gone.
    fn others(&self) -> [ProcessRow<'_>; 2];

    /// Returns what is counted by route, if anything is.
    fn routes(&self) -> Option<&RouteTable>;

    /// Asks something of the supervisor.
    ///
    /// Errors: it is gone.
    fn order(&self, order: Order) -> io::Result<()>;

    /// What the threads of a worker do, in the words of its interpreter; empty if it does not say.
    ///
    /// Errors: the supervisor is gone, or what the worker wrote cannot be read.
    fn stacks(&self, pid: u64) -> io::Result<String>;

    /// Asks the admin address of each application that has processes of its own.
    fn ask_apps(&self, _method: &str, _target: &str) -> Vec<AppReport> {
        Vec::new()
    }
}

/// One worker.
#[derive(Clone, Copy)]
pub struct Worker<'t> {
    /// Its place among the others, from 1 on; a later worker may have it.
    pub number: usize,
    /// Process ID.
    pub pid: u64,
    /// Time of its start, in seconds since 1970.
    pub since: u64,
    /// Stage of its life.
    pub stage: WorkerStage,
    /// Row in shared memory.
    pub row: ProcessRow<'t>,
}

/// Returns the metrics in Prometheus' text format.
pub fn prometheus(processes: &dyn Processes) -> String {
    let workers: Vec<_> =
        processes.workers().iter().map(|worker| (worker.number, worker.row.counts())).collect();
    let own = totals(processes).prometheus(&workers);
    match processes.ask_apps("GET", "/metrics") {
        apps if apps.is_empty() => own,
        apps => apps::with_metrics(&own, &apps),
    }
}

/// Adds up the counters of all processes.
pub fn totals(processes: &dyn Processes) -> Totals {
    let workers = processes.workers();
    let [supervisor, gone] = processes.others();
    let rows = workers.iter().map(|worker| worker.row).chain([supervisor, gone]);
    let totals = Totals::of(rows.map(|row| row.counts().0)).at(supervisor.addresses());
    totals.with_routes(processes.routes().into_iter().flat_map(RouteTable::routes))
}
