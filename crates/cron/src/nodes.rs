//! The nodes of a site, of which one runs the jobs: what a scheduler wants to know from the store that keeps them in agreement.

use std::fmt::Debug;

/// Whose a minute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The caller's, which runs its jobs. A repeated question for the same minute has the same result.
    Ours,
    /// Another node has run its jobs.
    Passed,
    /// No node's yet, or unknown: to be asked again soon.
    Open,
}

/// Knowledge of what the other nodes do.
pub trait Nodes: Debug + Send {
    /// Asks for a minute (of UTC, from 1970) without waiting.
    fn take(&mut self, minute: i64) -> Share;

    /// Says in the log what has changed, about once a second.
    fn report(&mut self) {}
}
