//! What the supervisor hands to a worker, and what it asks of the code that knows what workers do.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anygate_config::ProcessPlan;
use anygate_sys::identity::Identity;
use anygate_sys::process::{Fork, Pid};
use anygate_sys::signals::Signals;

use crate::board::{Report, Tree};
use crate::orders::Orders;
use crate::sockets::Socket;

/// Why new settings, or a new program, cannot be used: a line for the log.
#[derive(Debug)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Content of worker processes. Nothing of it runs in the supervisor except where it says so.
pub trait WorkerBody {
    /// Forks this process, with whatever an interpreter needs around that.
    fn fork(&mut self) -> io::Result<Fork>;

    /// Lives as a worker, in the new process. Returns the exit code.
    fn work(&mut self, context: WorkerContext) -> i32;

    /// The first workers are ready; in the supervisor, once.
    fn serving(&mut self, sockets: &[Socket]);

    /// Goes on in fresh log files; in the supervisor.
    fn reopen_logs(&mut self);

    /// Looks after the log files; in the supervisor, before it waits.
    fn tend_logs(&mut self) -> Tended {
        Tended::default()
    }

    /// Whether this generation's workers are forked by a template, which imports the application before.
    fn wants_template(&self) -> bool;

    /// Imports what workers are to have from the template, which is this process.
    ///
    /// Errors: the exit code; it was said why.
    fn import(&mut self, birth: &Birth) -> Result<(), i32>;

    /// Whether the template is to be told of [`News`].
    fn wants_news(&self) -> bool {
        false
    }

    /// Takes notice, in the template.
    fn hear(&mut self, _news: News) {}

    /// The `number`th worker of this server is about to be forked; in the template.
    fn expect_worker(&mut self, _number: u64) {}

    /// Ends as a program does, in the template: no more workers are needed.
    fn dismissed(&mut self) {}

    /// Forks this process twice, so that the worker has no parent here. `tell` runs in the process between, which ends then.
    fn fork_apart(&mut self, tell: &mut dyn FnMut(io::Result<Pid>)) -> io::Result<Fork>;

    /// Reads the settings anew and uses them for a new generation; in the supervisor. `None`: they cannot be read anew.
    ///
    /// Errors: why they cannot be used. All is as it was.
    fn renew(&mut self) -> Result<Option<Renewed>, Unusable>;

    /// The new generation serves, or (`serves` is false) the one before goes on with its own settings. Returns whether the
    /// assistant must be another one.
    fn settle(&mut self, serves: bool) -> bool;

    /// Starts a process of the program that is installed now, which loads settings and application and ends with 0 if that
    /// goes well; in the supervisor.
    ///
    /// Errors: why there can be none.
    fn check_new_program(&mut self) -> Result<Pid, Unusable> {
        Err(Unusable("this program cannot be replaced".to_owned()))
    }

    /// Becomes that program, which is left `handover` and the signals that are held; in the supervisor. Returns why it cannot.
    fn execute(&mut self, _handover: &str) -> String {
        "this program cannot be replaced".to_owned()
    }

    /// How many numbers each process publishes, beside what the supervisor needs itself.
    fn counts(&self) -> usize {
        0
    }

    /// Counts what the supervisor saw.
    fn count(&self, _event: Event, _counts: &[AtomicU64]) {}

    /// Shows in `counts`, the supervisor's row, how many connections wait in the sockets.
    fn look_at_queues(&self, _sockets: &[Socket], _counts: &[AtomicU64]) {}

    /// Adds up what processes do, of which these are the rows.
    fn load(&self, _rows: &[&[AtomicU64]]) -> Load {
        Load::default()
    }

    /// Adds what a process that is gone has counted to that of all others that are gone.
    fn add_up(&self, _gone: &[AtomicU64], _all: &[AtomicU64]) {}

    /// User and group of programs beside the workers.
    fn identity(&self) -> Identity {
        Identity::default()
    }

    /// Whether there is to be an assistant: one process beside the workers, which is asked about all of them.
    fn wants_assistant(&self) -> bool {
        false
    }

    /// How long the assistant may take for what it has to send when all workers have ended.
    fn farewell(&self) -> Duration {
        Duration::ZERO
    }

    /// Lives as the assistant, in the new process. Returns the exit code.
    fn assist(&mut self, _context: AssistantContext) -> i32 {
        0
    }
}

/// When a template begins.
#[derive(Clone, Debug)]
pub struct Birth {
    /// It is the first one of this server.
    pub is_first: bool,
    /// Workers that there are to be.
    pub workers: usize,
    /// Addresses of the server.
    pub urls: Vec<String>,
}

/// What has happened to the server, for its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// The `number`th worker has this process number.
    Forked {
        #[expect(missing_docs, reason = "said above")]
        number: u64,
        #[expect(missing_docs, reason = "said above")]
        pid: Pid,
    },
    /// That worker has ended.
    Exited {
        #[expect(missing_docs, reason = "as above")]
        number: u64,
        #[expect(missing_docs, reason = "as above")]
        pid: Pid,
    },
    /// So many workers are wanted from now on.
    Workers(usize),
    /// Its workers serve, and those of the generation before do not any more. The first template is not told.
    Serving,
    /// A new program is about to be tried.
    Upgrading,
    /// All workers have ended, and the server does.
    Ending,
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::Forked { number, pid } => write!(f, "forked {number} {pid}"),
            News::Exited { number, pid } => write!(f, "exited {number} {pid}"),
            News::Workers(count) => write!(f, "workers {count}"),
            News::Serving => f.write_str("serving"),
            News::Upgrading => f.write_str("upgrading"),
            News::Ending => f.write_str("ending"),
        }
    }
}

/// How the logs are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tended {
    /// All processes are to go on in fresh files.
    pub fresh: bool,
    /// Time after which they need attention again.
    pub again: Option<Duration>,
}

/// Event in the process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker was started.
    Started,
    /// A worker ended without being told to.
    Died(Death),
    /// A worker is to be replaced, although it serves.
    Recycled(Reason),
    /// A job has ended; whether well.
    Ran(bool),
    /// A reload ended; whether the new workers serve.
    Reloaded(bool),
    /// This many workers serve.
    Serving(usize),
}

/// Why a worker that serves is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has a thread that nothing can stop.
    Stuck,
    /// It had `max_requests`.
    Requests,
    /// It has lived for `worker_max_age`.
    Age,
    /// It has more memory than `worker_memory_max`.
    Memory,
    /// An administrator wants it.
    Order,
}

/// What workers do, added up. Times and numbers of requests only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Threads or greenlets that handle a request, and requests that wait for one.
    pub demand: u64,
    /// Threads or greenlets that there are.
    pub threads: u64,
    /// Requests that were begun.
    pub requests: u64,
    /// Time that they waited for a thread.
    pub queued: Duration,
    /// Time that their threads then waited for the interpreter.
    pub locked: Duration,
}

/// How a worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It left with an exit code.
    Exit,
    /// A signal ended it.
    Signal,
    /// It was killed because it was silent.
    Silent,
    /// It was killed because it did not get ready.
    Start,
    /// It was killed because it did not finish in time.
    Graceful,
}

/// The assistant's means.
pub struct AssistantContext {
    /// Sockets of the assistant.
    pub sockets: Vec<Socket>,
    /// The signals of this process.
    pub signals: Signals,
    /// What the supervisor tells.
    pub told: anygate_sys::orders::Orders,
    /// Counters of all processes.
    pub tree: Tree,
    /// Sender of orders to the supervisor.
    pub orders: Orders,
}

/// Settings that were read anew.
#[derive(Clone, Debug)]
pub struct Renewed {
    /// What the supervisor itself needs.
    pub plan: ProcessPlan,
    /// Workers that there should be.
    pub workers: usize,
}

/// A worker's means.
pub struct WorkerContext {
    /// The sockets, shared with the other workers.
    pub sockets: Vec<Socket>,
    /// The signals of this process.
    pub signals: Signals,
    /// What the supervisor tells.
    pub told: anygate_sys::orders::Orders,
    /// How the worker tells the supervisor about itself.
    pub report: Report,
}
