//! What the supervisor hands to a worker, and what it asks of whoever knows what workers do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anygate_sys::process::{Fork, Pid};
use anygate_sys::shared::Board;
use anygate_sys::signals::Signals;

use crate::sockets::Socket;

/// What workers are made of. Nothing of it runs in the supervisor except where it says so.
pub trait WorkerBody {
    /// Forks this process, with whatever an interpreter needs around that.
    fn fork(&mut self) -> io::Result<Fork>;

    /// Lives as a worker, in the new process. Gives the exit code.
    fn work(&mut self, context: WorkerContext) -> i32;

    /// The first workers are ready; in the supervisor, once.
    fn serving(&mut self, sockets: &[Socket]);

    /// Goes on in fresh log files; in the supervisor.
    fn reopen_logs(&mut self);

    /// Looks after the log files; in the supervisor, before it waits.
    fn tend_logs(&mut self) -> Tended {
        Tended::default()
    }

    /// How to start anygate as it was started, when reloading needs a new program because this process has the
    /// application in it (`preload`).
    fn restart(&self) -> Option<Restart>;

    /// How many numbers each process counts for everybody to see, beside what the supervisor needs itself.
    fn counts(&self) -> usize {
        0
    }

    /// Counts what the supervisor saw.
    fn count(&self, _event: Event, _counts: &[AtomicU64]) {}

    /// Adds what a process that is gone has counted to that of all others that are gone.
    fn add_up(&self, _gone: &[AtomicU64], _all: &[AtomicU64]) {}

    /// Whether there is to be an assistant: one process beside the workers, which is asked about all of them.
    fn wants_assistant(&self) -> bool {
        false
    }

    /// Lives as the assistant, in the new process. Gives the exit code.
    fn assist(&mut self, _context: AssistantContext) -> i32 {
        0
    }
}

/// How the logs are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tended {
    /// All processes are to go on in fresh files.
    pub fresh: bool,
    /// They are to be looked after again after so long.
    pub again: Option<Duration>,
}

/// What a supervisor sees of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker was started.
    Started,
    /// A worker ended without being told to.
    Died(Death),
    /// A worker is to be replaced, because it has a thread that nothing can stop.
    Stuck,
    /// A job has ended; whether well.
    Ran(bool),
    /// A reload ended; whether the new workers serve.
    Reloaded(bool),
    /// So many workers serve.
    Serving(usize),
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
    /// Its own sockets.
    pub sockets: Vec<Socket>,
    /// What the supervisor tells by signals.
    pub signals: Signals,
    /// Ends when the supervisor does.
    pub parent: OwnedFd,
    /// What all processes count.
    pub tree: Tree,
    /// What it can ask of the supervisor.
    pub orders: Orders,
}

/// A program to become.
pub struct Restart {
    /// Program and arguments.
    pub command: Vec<OsString>,
    /// Where it starts.
    pub folder: PathBuf,
}

/// A worker's means.
pub struct WorkerContext {
    /// The sockets, shared with the other workers.
    pub sockets: Vec<Socket>,
    /// What the supervisor tells by signals.
    pub signals: Signals,
    /// Ends when the supervisor does.
    pub parent: OwnedFd,
    /// How the worker tells the supervisor about itself.
    pub report: Report,
}

/// Fields of the board.
pub(crate) const STAGE: usize = 0;
pub(crate) const BEATS: usize = 1;
/// Changes when requests were answered.
pub(crate) const TRAFFIC: usize = 2;
const PID: usize = 3;
/// Seconds since 1970.
const SINCE: usize = 4;
/// Not zero when the worker should be replaced.
pub(crate) const RETIRING: usize = 5;
/// Not zero while the worker serves and has an idle thread.
const IDLE: usize = 6;
pub(crate) const FIELDS: usize = 7;
/// Workers that can live at once, old generations included.
pub(crate) const SLOTS: usize = 4096;
/// Rows behind those of workers: what the supervisor counts, and what those counted that are gone.
pub(crate) const SUPERVISOR: usize = SLOTS;
pub(crate) const GONE: usize = SLOTS + 1;
pub(crate) const ROWS: usize = SLOTS + 2;

/// In the supervisor's row: how many of the first rows were ever used, so that nobody looks at (and thereby makes
/// memory of) thousands that were not.
const ROWS_USED: usize = 0;
/// There, too: how many workers serve.
pub(crate) const SERVING: usize = 1;

/// Values of `STAGE`.
pub(crate) const STARTING: u64 = 0;
pub(crate) const READY: u64 = 1;
pub(crate) const DRAINING: u64 = 2;

/// A worker's row on the supervisor's board.
pub struct Report {
    pub(crate) board: Arc<Board>,
    pub(crate) slot: usize,
    /// A byte here makes the supervisor look at the board.
    pub(crate) news: io::PipeWriter,
}

impl Report {
    pub(crate) fn new(board: Arc<Board>, slot: usize, news: io::PipeWriter) -> Report {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for (field, value) in [(PID, u64::from(std::process::id())), (SINCE, since)] {
            if let Some(cell) = board.cell(slot, field) {
                cell.store(value, Ordering::Relaxed);
            }
        }
        if let Some(used) = board.cell(SUPERVISOR, ROWS_USED) {
            used.fetch_max(slot as u64 + 1, Ordering::Release);
        }
        Report { board, slot, news }
    }

    /// The worker serves from now on.
    pub fn ready(&mut self) {
        self.stage(READY);
    }

    /// The worker's place among those that live at the same time; the lowest that are free are taken.
    pub fn slot(&self) -> usize {
        self.slot
    }

    /// What this worker counts.
    pub fn counts(&self) -> Counts {
        Counts { board: Arc::clone(&self.board), slot: self.slot }
    }

    /// What the supervisor counts, for what it tells all workers.
    pub fn supervisor(&self) -> Counts {
        Counts { board: Arc::clone(&self.board), slot: SUPERVISOR }
    }

    /// How the workers know which of them are idle.
    pub fn peers(&self) -> Peers {
        Peers { board: Arc::clone(&self.board), slot: self.slot }
    }

    /// The worker lives; `traffic`: and requests came since the last time.
    pub fn beat(&self, traffic: bool) {
        for (field, count) in [(TRAFFIC, u64::from(traffic)), (BEATS, 1)] {
            if let Some(cell) = self.board.cell(self.slot, field) {
                cell.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    /// The worker takes no new connections.
    pub fn draining(&mut self) {
        self.stage(DRAINING);
    }

    /// The worker serves, but another one should take its place.
    pub fn retiring(&mut self) {
        self.tell(RETIRING, 1);
    }

    fn stage(&mut self, stage: u64) {
        self.tell(STAGE, stage);
    }

    fn tell(&mut self, field: usize, value: u64) {
        if let Some(cell) = self.board.cell(self.slot, field) {
            cell.store(value, Ordering::Release);
        }
        // A supervisor that is gone needs no news; the end of `parent` tells that.
        let _ = self.news.write(&[1]);
    }
}

/// The workers, as one of them sees them.
#[derive(Debug)]
pub struct Peers {
    board: Arc<Board>,
    slot: usize,
}

impl Peers {
    /// This worker serves and has an idle thread, or has none any more.
    pub fn set_idle(&self, idle: bool) {
        if let Some(cell) = self.board.cell(self.slot, IDLE) {
            cell.store(u64::from(idle), Ordering::Relaxed);
        }
    }

    /// Whether there are other workers that serve.
    pub fn are_there(&self) -> bool {
        self.serving() > 1
    }

    /// Whether there are others when this one does not serve any more.
    pub fn remain(&self) -> bool {
        self.serving() > 0
    }

    fn serving(&self) -> u64 {
        self.board.cell(SUPERVISOR, SERVING).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// Whether any worker has one.
    pub fn any_idle(&self) -> bool {
        let idle = |slot| self.board.cell(slot, IDLE).is_some_and(|cell| cell.load(Ordering::Relaxed) != 0);
        (0..slots_used(&self.board)).any(idle)
    }
}

/// One process's numbers.
#[derive(Clone, Debug)]
pub struct Counts {
    board: Arc<Board>,
    slot: usize,
}

impl Counts {
    pub(crate) fn new(board: Arc<Board>, slot: usize) -> Counts {
        Counts { board, slot }
    }
}

impl AsRef<[AtomicU64]> for Counts {
    fn as_ref(&self) -> &[AtomicU64] {
        self.board.row(self.slot, FIELDS)
    }
}

/// The numbers of all processes.
#[derive(Clone, Debug)]
pub struct Tree(pub(crate) Arc<Board>);

/// One worker, as the board has it.
#[derive(Debug)]
pub struct Worker<'t> {
    /// Its process.
    pub pid: u64,
    /// When it was started, in seconds since 1970.
    pub since: u64,
    /// What it does.
    pub stage: WorkerStage,
    /// What it counted.
    pub counts: &'t [AtomicU64],
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerStage {
    /// It imports the application.
    Starting,
    /// It serves.
    Serving,
    /// It finishes what it has.
    Draining,
}

impl Tree {
    /// The workers that live.
    pub fn workers(&self) -> impl Iterator<Item = Worker<'_>> {
        (0..slots_used(&self.0)).filter_map(|slot| {
            let read = |field| self.0.cell(slot, field).map_or(0, |cell| cell.load(Ordering::Acquire));
            let stage = match read(STAGE) {
                STARTING => WorkerStage::Starting,
                READY => WorkerStage::Serving,
                _ => WorkerStage::Draining,
            };
            let (pid, since) = (read(PID), read(SINCE));
            (pid != 0).then(|| Worker { pid, since, stage, counts: self.0.row(slot, FIELDS) })
        })
    }

    /// What the supervisor counted, and what those did that are gone.
    pub fn others(&self) -> [&[AtomicU64]; 2] {
        [self.0.row(SUPERVISOR, FIELDS), self.0.row(GONE, FIELDS)]
    }
}

fn slots_used(board: &Board) -> usize {
    let used = board.cell(SUPERVISOR, ROWS_USED).map_or(0, |cell| cell.load(Ordering::Acquire));
    usize::try_from(used).unwrap_or(SLOTS).min(SLOTS)
}

/// Asks something of the supervisor.
#[derive(Debug)]
pub struct Orders(pub(crate) io::PipeWriter);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// New workers, as HUP asks.
    Reload,
    /// So many workers.
    Scale(usize),
    /// The end, as TERM asks.
    End,
    /// That it looks at what others want of it in its row.
    Look,
    /// That a worker writes down what its threads do.
    Stacks(Pid),
}

impl Orders {
    /// Asks.
    ///
    /// Errors: the supervisor is gone.
    pub fn give(&self, order: Order) -> io::Result<()> {
        let line = match order {
            Order::Reload => "reload\n".to_owned(),
            Order::Scale(count) => format!("scale {count}\n"),
            Order::End => "end\n".to_owned(),
            Order::Look => "look\n".to_owned(),
            Order::Stacks(pid) => format!("stacks {pid}\n"),
        };
        // Short enough to arrive in one piece, whoever else asks (pipe(7), PIPE_BUF).
        (&self.0).write_all(line.as_bytes())
    }
}

impl Order {
    pub(crate) fn read(line: &str) -> Option<Order> {
        match line.split_once(' ') {
            None if line == "reload" => Some(Order::Reload),
            None if line == "end" => Some(Order::End),
            None if line == "look" => Some(Order::Look),
            Some(("scale", count)) => count.parse().ok().map(Order::Scale),
            Some(("stacks", pid)) => pid.parse().ok().map(Order::Stacks),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_given() {
        for order in [Order::Reload, Order::Scale(7), Order::End, Order::Look, Order::Stacks(70_000)] {
            let (mut read, write) = io::pipe().unwrap();
            Orders(write).give(order).unwrap();
            let mut line = String::new();
            io::Read::read_to_string(&mut read, &mut line).unwrap();
            assert_eq!(line.strip_suffix('\n').and_then(Order::read), Some(order));
        }
        for wrong in ["", "scale", "scale -1", "scale x", "stacks", "reload 1"] {
            assert_eq!(Order::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn workers_are_found_in_the_rows_that_were_used() {
        let board = Arc::new(Board::new(ROWS, FIELDS + 1).unwrap());
        let tree = Tree(Arc::clone(&board));
        assert_eq!(tree.workers().count(), 0);
        let mut report = Report::new(Arc::clone(&board), 3, io::pipe().unwrap().1);
        report.ready();
        report.counts().as_ref()[0].store(5, Ordering::Relaxed);
        let worker = tree.workers().next().unwrap();
        assert_eq!((worker.pid, worker.stage), (u64::from(std::process::id()), WorkerStage::Serving));
        assert_eq!(worker.counts[0].load(Ordering::Relaxed), 5);
    }

    #[test]
    fn workers_know_whether_another_is_idle() {
        let board = Arc::new(Board::new(ROWS, FIELDS).unwrap());
        let report = |slot| Report::new(Arc::clone(&board), slot, io::pipe().unwrap().1);
        let [one, other] = [1, 4].map(|slot| report(slot).peers());
        assert!(!one.any_idle());
        other.set_idle(true);
        assert!(one.any_idle());
        other.set_idle(false);
        assert!(!one.any_idle());
    }
}
