//! Words for the control of a running server, which the supervisor and the admin address share: the orders that a supervisor
//! takes, and the stages of its workers.

/// Order to the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start new workers and retire the old ones, as HUP does.
    Reload,
    /// Run this many workers.
    Scale(usize),
    /// End after the requests in flight, as TERM does.
    End,
    /// Read what was written into the supervisor's row.
    Look,
    /// Replace the worker with this process ID by another one.
    Recycle(i32),
    /// Have the worker with this process ID write down its stacks.
    Stacks(i32),
}

/// Stage of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStage {
    /// It imports the application.
    Starting,
    /// It serves.
    Serving,
    /// It finishes what it has.
    Draining,
}

impl WorkerStage {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            WorkerStage::Starting => "starting",
            WorkerStage::Serving => "serving",
            WorkerStage::Draining => "draining",
        }
    }
}
