//! What a worker is told and what it tells: commands, the workers beside it, its supervisor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anygate_sys::signals::{Signal, Signals};

use crate::access_log::AccessLog;

/// Reopens log files that were moved away.
pub type Reopen = Box<dyn Fn() + Send + Sync>;

/// The counters of this process in shared memory.
pub type SharedRow = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// What a worker tells its supervisor.
pub trait Events: Send {
    /// The worker lives; called about once a second. `traffic`: calls have ended since the last time.
    fn beat(&mut self, traffic: bool);
    /// The worker stopped accepting and finishes what it has.
    fn draining(&mut self);
    /// The worker serves, but should be replaced: it has a thread that nothing can stop.
    fn retiring(&mut self);
}

/// The workers that accept from the same listeners.
pub trait Peers: Send + Sync {
    /// Whether there are others that serve now.
    fn are_there(&self) -> bool;
    /// Tells the others how many connections this worker has, and whether it could begin one more request at once.
    fn tell(&self, connections: usize, free: bool);
    /// This worker accepts no connections, from now on or for a while.
    fn leave(&self);
    /// The worker that should rather take a new connection than one with so many `connections` that is as `free`.
    fn better_than(&self, connections: usize, free: bool) -> Option<BetterPeer>;
    /// Has a worker look at the listeners.
    ///
    /// Errors: whatever the system says to writing.
    fn ring(&self, peer: BetterPeer) -> io::Result<()>;
    /// Becomes readable, edge-triggered, when another worker wants this one to look at the listeners.
    fn bell(&self) -> Option<BorrowedFd<'_>>;
    /// Whether others go on accepting when this worker finishes.
    fn remain(&self) -> bool;
}

/// A worker that should rather take a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BetterPeer {
    /// Its place among the workers.
    pub slot: usize,
    /// It could begin a request at once.
    pub free: bool,
}

/// Command to a worker, in ascending order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    Drain = 1,
    Stop = 2,
}

/// Source of commands: a worker's handle, signals, or the death of the supervisor.
pub(crate) struct Control {
    demanded: AtomicU8,
    pub(crate) signals: Option<Signals>,
    pub(crate) parent: Option<OwnedFd>,
    reopen_logs: Option<Reopen>,
}

impl Control {
    pub(crate) fn new(
        signals: Option<Signals>,
        parent: Option<OwnedFd>,
        reopen_logs: Option<Reopen>,
    ) -> Self {
        Control { demanded: AtomicU8::new(0), signals, parent, reopen_logs }
    }

    pub(crate) fn demand(&self, command: Command) {
        self.demanded.fetch_max(command as u8, Ordering::AcqRel);
    }

    /// What was demanded so far. A second TERM outranks the first; Ctrl-C reaches a whole
    /// terminal group and is the supervisor's to pass on.
    pub(crate) fn command(&self, log: Option<&AccessLog>) -> Option<Command> {
        for signal in self.signals.as_ref().map(Signals::take).unwrap_or_default() {
            match signal {
                Signal::Term => match self.demanded.load(Ordering::Acquire) {
                    0 => self.demand(Command::Drain),
                    _ => self.demand(Command::Stop),
                },
                Signal::Usr1 => {
                    // What was gathered still goes to the old file.
                    if let Some(log) = log {
                        log.flush();
                    }
                    if let Some(reopen) = &self.reopen_logs {
                        reopen();
                    }
                }
                _ => {}
            }
        }
        match self.demanded.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Command::Drain),
            _ => Some(Command::Stop),
        }
    }
}
