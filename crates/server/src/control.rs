//! What a worker is told and what it tells: commands, the workers beside it, its supervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anygate_sys::orders::{Orders, WorkerOrder};
use anygate_sys::signals::{Signal, Signals};

use crate::access_log::AccessLog;

/// Reopens log files that were moved away.
pub type Reopen = Box<dyn Fn() + Send + Sync>;

/// Has the stacks of all threads written down, without waiting for it.
pub type WriteStacks = Box<dyn Fn() + Send + Sync>;

/// Number of calls after which a report is made.
pub struct RequestsMax {
    /// The number.
    pub count: u64,
    /// Tells, on the thread of that call.
    pub reached: Box<dyn Fn() + Send + Sync>,
}

/// The counters of this process in shared memory.
pub type SharedRow = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// What a worker tells its supervisor.
pub trait Events: Send {
    /// The worker lives; called about once a second. `traffic`: calls have ended since the last time. `held`: how
    /// long no request could run, because a call holds the interpreter or greenlets do not take turns.
    fn beat(&mut self, traffic: bool, held: Option<Duration>);
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
    /// Number of connections that it has.
    pub connections: usize,
    /// It could begin a request at once.
    pub free: bool,
}

/// What makes a worker obey a supervisor.
pub struct Supervision {
    /// Signals of this process. None of them is an order: a sender to all processes of a tree, as terminals and
    /// service managers are, reaches the supervisor as well.
    pub signals: Signals,
    /// Orders of the supervisor.
    pub orders: Orders,
    /// Tells the supervisor that this worker was told to end by a signal.
    pub signalled: Box<dyn Fn() + Send + Sync>,
    /// Tells the application that INT or QUIT ends the worker or the server. It may be called again.
    pub broken_off: Box<dyn Fn() + Send + Sync>,
    /// Tells the application that the worker begins to end, by an order.
    pub ending: Box<dyn Fn() + Send + Sync>,
}

/// Command to a worker, in ascending order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Command {
    Leave = 1,
    Drain = 2,
    Stop = 3,
}

/// Source of commands: a worker's handle, or the supervisor.
pub(crate) struct Control {
    demanded: AtomicU8,
    supervision: Option<Supervision>,
    reopen_logs: Option<Reopen>,
    write_stacks: Option<WriteStacks>,
}

impl Control {
    pub(crate) fn new(
        supervision: Option<Supervision>,
        reopen_logs: Option<Reopen>,
        write_stacks: Option<WriteStacks>,
    ) -> Self {
        Control { demanded: AtomicU8::new(0), supervision, reopen_logs, write_stacks }
    }

    /// What tells of commands by becoming readable.
    pub(crate) fn sources(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.supervision.as_ref().map(|supervision| [supervision.signals.as_fd(), supervision.orders.as_fd()])
    }

    pub(crate) fn demand(&self, command: Command) {
        self.demanded.fetch_max(command as u8, Ordering::AcqRel);
    }

    /// What was demanded so far.
    pub(crate) fn command(&self, log: Option<&AccessLog>) -> Option<Command> {
        if let Some(supervision) = &self.supervision {
            for signal in supervision.signals.take() {
                match signal {
                    Signal::Term => (supervision.signalled)(),
                    Signal::Int | Signal::Quit => {
                        (supervision.broken_off)();
                        (supervision.signalled)();
                    }
                    Signal::Usr1 => self.reopen(log),
                    _ => {}
                }
            }
            let serves = self.demanded.load(Ordering::Acquire) == 0;
            self.follow(supervision, log);
            if serves && self.demanded.load(Ordering::Acquire) != 0 {
                (supervision.ending)();
            }
        }
        match self.demanded.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Command::Leave),
            2 => Some(Command::Drain),
            _ => Some(Command::Stop),
        }
    }

    /// Does what the supervisor wants; finishes when it is gone.
    fn follow(&self, supervision: &Supervision, log: Option<&AccessLog>) {
        let (taken, alive) = supervision.orders.take().unwrap_or_else(|error| {
            tracing::error!("cannot read the supervisor's orders: {error}");
            (Vec::new(), false)
        });
        for order in taken {
            match order {
                WorkerOrder::Leave => self.demand(Command::Leave),
                WorkerOrder::BrokenOff => (supervision.broken_off)(),
                WorkerOrder::Drain => self.demand(Command::Drain),
                WorkerOrder::ReopenLogs => self.reopen(log),
                WorkerOrder::WriteStacks => {
                    if let Some(write_stacks) = &self.write_stacks {
                        write_stacks();
                    }
                }
            }
        }
        if !alive {
            // One that had said so before it left is not missed.
            if self.demanded.load(Ordering::Acquire) < Command::Drain as u8 {
                tracing::warn!("the supervisor is gone; finishing requests in flight");
            }
            self.demand(Command::Drain);
        }
    }

    /// Goes on in fresh log files. What was gathered still goes to the old ones.
    fn reopen(&self, log: Option<&AccessLog>) {
        if let Some(log) = log {
            log.flush();
        }
        if let Some(reopen) = &self.reopen_logs {
            reopen();
        }
    }
}
