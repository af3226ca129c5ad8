//! The nodes of a site, of which one runs the jobs: what a scheduler wants to know from whoever keeps them in agreement.

use std::fmt::Debug;

/// Whose a minute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// The caller's, which runs its jobs. Whoever asks again for the same minute gets the same answer.
    Ours,
    /// Another node has run its jobs.
    Passed,
    /// Nobody's yet, or nobody knows: to be asked again soon.
    Open,
}

/// Whoever knows what the other nodes do.
pub trait Nodes: Debug + Send {
    /// Asks for a minute (of UTC, from 1970) without waiting.
    fn take(&mut self, minute: i64) -> Share;
}
