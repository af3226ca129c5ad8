//! The tree of processes as it is seen here.

use std::io;

use anygate_policy::metrics::Totals;
use anygate_policy::shared_memory::process_row::ProcessRow;

/// Levels of messages, in the order of the numbers that [`ProcessRow::want_log_level`] takes, from 1.
pub const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

/// Access to the process tree, and control of it.
pub trait Processes: Send + Sync {
    /// The workers that live.
    fn workers(&self) -> Vec<Worker<'_>>;

    /// Returns the rows of the supervisor, and of all processes that are gone.
    fn others(&self) -> [ProcessRow<'_>; 2];

    /// Asks something of the supervisor.
    ///
    /// Errors: it is gone.
    fn order(&self, order: Order) -> io::Result<()>;

    /// What the threads of a worker do, in the words of its interpreter; empty if it does not say.
    ///
    /// Errors: the supervisor is gone, or what the worker wrote cannot be read.
    fn stacks(&self, pid: u64) -> io::Result<String>;
}

/// One worker.
#[derive(Clone, Copy)]
pub struct Worker<'t> {
    /// Process ID.
    pub pid: u64,
    /// Time of its start, in seconds since 1970.
    pub since: u64,
    /// State of its life.
    pub stage: Stage,
    /// Row in shared memory.
    pub row: ProcessRow<'t>,
}

/// State of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It imports the application.
    Starting,
    /// It serves.
    Serving,
    /// It finishes what it has.
    Draining,
}

impl Stage {
    /// Returns the word for the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Starting => "starting",
            Stage::Serving => "serving",
            Stage::Draining => "draining",
        }
    }
}

/// Order to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// New workers with the application as it is now.
    Reload,
    /// Run this many workers.
    Scale(usize),
    /// The end, after what is in flight.
    End,
    /// That it looks at what is wanted of it in its row.
    Look,
}

/// Adds up the counters of all processes.
pub fn totals(processes: &dyn Processes) -> Totals {
    let workers = processes.workers();
    let rows = workers.iter().map(|worker| worker.row).chain(processes.others());
    Totals::of(rows.map(|row| row.counts().0))
}
