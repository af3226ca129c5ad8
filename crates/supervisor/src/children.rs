//! The workers that the supervisor has, and what is known of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anygate_config::CRITICAL;
use anygate_sys::SharedBell;
use anygate_sys::orders::{OrderSender, WorkerOrder};
use anygate_sys::process::{self, Ended, Pid};
use anygate_sys::shared::Board;
use anygate_sys::signals::Signal;

use crate::board::{
    BEATS, Bells, CANCELLED, Counts, DRAINING, FIELDS, GONE, HAD_REQUESTS, IS_STUCK, READY, RETIRING, ROWS,
    SERVING, SIGNALLED, SLOTS, STAGE, STARTING, SUPERVISOR, TRAFFIC,
};
use crate::worker_body::{Death, Load, Reason};

/// Signals to end that come within this time are one: a signal to all processes of a tree reaches its supervisor, too.
pub const SAME_SIGNAL: Duration = Duration::from_millis(500);
/// Maximum number of bells; each is a descriptor of every worker.
const BELLS_MAX: usize = 256;

/// Memory of workers is measured this often,
const MEASURE: Duration = Duration::from_secs(1);
/// and this often while a worker has more than three quarters of what it may have.
const MEASURE_CLOSELY: Duration = Duration::from_millis(100);

/// One worker.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    /// Row of the board.
    pub(crate) slot: usize,
    pub(crate) generation: u64,
    /// It is the so-manyth worker of this server.
    pub(crate) number: u64,
    pub(crate) stage: Stage,
    /// Why it was killed, if it was.
    pub(crate) killed: Option<Death>,
    /// It was killed because it is not needed any more.
    pub(crate) unwanted: bool,
    /// It serves until another one takes its place.
    pub(crate) replaced: bool,
    /// Why it is replaced, if its supervisor decided that.
    pub(crate) recycled: Option<Reason>,
    /// An administrator wants another one in its place.
    pub(crate) is_condemned: bool,
    /// It had `max_requests`.
    pub(crate) had_requests: bool,
    /// Its memory, when it was measured last.
    pub(crate) memory: Option<Measured>,
    /// When a signal told it to end. If that is not the end of the tree, another one takes its place.
    signalled: Option<Instant>,
    pub(crate) orders: OrderSender,
    beats: u64,
    beaten: Instant,
    traffic: u64,
}

/// Memory of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) at: Instant,
    pub(crate) bytes: u64,
    /// It was above the limit before the first request.
    pub(crate) from_birth: bool,
}

impl Measured {
    /// Time until it is measured again, if it may be `max`.
    pub(crate) fn pause(self, max: u64) -> Duration {
        if self.from_birth || self.bytes < max / 4 * 3 { MEASURE } else { MEASURE_CLOSELY }
    }
}

/// State of a worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It imports the application, since then.
    Starting(Instant),
    /// It serves, since then.
    Ready(Instant),
    /// It was told to finish, until then.
    Retiring(Instant),
}

/// All workers.
pub(crate) struct Children {
    list: Vec<Child>,
    board: Arc<Board>,
    bells: Bells,
    /// Requests got their responses since the last report.
    traffic: bool,
}

impl Children {
    /// `counts`: how many numbers each process counts for others. `workers`: number of workers that there may be; with twice as
    /// many during a reload, each has a bell. More of them share connections, too, but cannot be asked to take one.
    pub(crate) fn new(counts: usize, workers: usize) -> std::io::Result<Self> {
        let board = Arc::new(Board::new(ROWS, FIELDS + counts)?);
        let bells = if workers < 2 { 0 } else { workers.saturating_mul(2).min(BELLS_MAX) };
        let bells = (0..bells).map(|_| SharedBell::new()).collect::<Result<_, _>>()?;
        Ok(Children { list: Vec::new(), board, bells: Arc::new(bells), traffic: false })
    }

    /// What the supervisor counts.
    pub(crate) fn counts(&self) -> &[AtomicU64] {
        self.board.row(SUPERVISOR, FIELDS)
    }

    /// The load of all workers: of those that live, and what only grows of those that are gone.
    pub(crate) fn tree_load(&self, add_up: impl FnOnce(&[&[AtomicU64]]) -> Load) -> Load {
        let slots = self.list.iter().map(|child| child.slot).chain([GONE]);
        add_up(&slots.map(|slot| self.board.row(slot, FIELDS)).collect::<Vec<_>>())
    }

    /// The same, for as long as wanted.
    pub(crate) fn own(&self) -> Counts {
        Counts::new(self.board(), SUPERVISOR)
    }

    /// What a worker that is gone has counted, and what all those that are gone have. Its row is free afterwards.
    pub(crate) fn leave(&self, child: &Child, add_up: impl FnOnce(&[AtomicU64], &[AtomicU64])) {
        add_up(self.board.row(child.slot, FIELDS), self.board.row(GONE, FIELDS));
        for cell in self.board.row(child.slot, 0) {
            cell.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    pub(crate) fn bells(&self) -> Bells {
        Arc::clone(&self.bells)
    }

    /// A row that no worker uses and that is not `reserved`.
    pub(crate) fn free_slot(&self, reserved: &[usize]) -> Option<usize> {
        (0..SLOTS).find(|slot| !reserved.contains(slot) && !self.list.iter().any(|child| child.slot == *slot))
    }

    /// A worker was started.
    pub(crate) fn add(&mut self, pid: Pid, slot: usize, generation: u64, number: u64, orders: OrderSender) {
        let now = Instant::now();
        self.list.push(Child {
            pid,
            slot,
            generation,
            number,
            stage: Stage::Starting(now),
            killed: None,
            unwanted: false,
            replaced: false,
            recycled: None,
            is_condemned: false,
            had_requests: false,
            memory: None,
            signalled: None,
            orders,
            beats: 0,
            beaten: now,
            traffic: 0,
        });
    }

    /// Takes out a worker that ended.
    pub(crate) fn remove(&mut self, pid: Pid) -> Option<Child> {
        let index = self.list.iter().position(|child| child.pid == pid)?;
        Some(self.list.swap_remove(index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Child> {
        self.list.iter_mut()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Workers of a generation that were not told to finish and are not to be replaced.
    pub(crate) fn active(&self, generation: u64) -> usize {
        self.list
            .iter()
            .filter(|child| child.generation == generation && !matches!(child.stage, Stage::Retiring(_)))
            .filter(|child| !child.replaced)
            .count()
    }

    /// Returns how many workers of the generation serve.
    pub(crate) fn ready(&self, generation: u64) -> usize {
        self.list
            .iter()
            .filter(|child| child.generation == generation && matches!(child.stage, Stage::Ready(_)))
            .filter(|child| !child.replaced)
            .count()
    }

    /// Reads the board: who became ready, who lives. Returns how many are to be replaced that were not before.
    pub(crate) fn look(&mut self, now: Instant) -> usize {
        let mut stuck = 0;
        for child in &mut self.list {
            let read =
                |field| self.board.cell(child.slot, field).map_or(0, |cell| cell.load(Ordering::Acquire));
            if matches!(child.stage, Stage::Starting(_)) && [READY, DRAINING].contains(&read(STAGE)) {
                child.stage = Stage::Ready(now);
                child.beaten = now;
            }
            let retiring = read(RETIRING);
            child.had_requests = retiring & HAD_REQUESTS != 0;
            if retiring & IS_STUCK != 0 && !child.replaced {
                child.replaced = true;
                stuck += 1;
                tracing::warn!(
                    "worker {} has a thread that cannot be stopped: starting another worker",
                    child.pid
                );
            }
            if read(SIGNALLED) != 0 {
                child.signalled.get_or_insert(now);
            }
            if child.replacement_due().is_some_and(|due| due <= now) {
                child.replaced = true;
                tracing::info!("worker {} was told to end by a signal: starting another worker", child.pid);
            }
            let beats = read(BEATS);
            if beats != child.beats {
                child.beats = beats;
                child.beaten = now;
            }
            let traffic = read(TRAFFIC);
            self.traffic |= traffic != child.traffic;
            child.traffic = traffic;
        }
        stuck
    }

    /// Tells workers how many of them serve.
    pub(crate) fn tell(&self) {
        let serving = self.list.iter().filter(|child| matches!(child.stage, Stage::Ready(_))).count();
        if let Some(cell) = self.board.cell(SUPERVISOR, SERVING) {
            cell.store(serving as u64, Ordering::Relaxed);
        }
    }

    /// Whether requests got their responses since the last call.
    pub(crate) fn take_traffic(&mut self) -> bool {
        std::mem::take(&mut self.traffic)
    }

    /// Tells workers to finish; those that were told so already are left alone. A worker that has not begun to serve has
    /// nothing to finish.
    pub(crate) fn retire(&mut self, until: Instant, which: impl Fn(&Child) -> bool) {
        let mut retired = Vec::new();
        for child in &mut self.list {
            if which(child) && !matches!(child.stage, Stage::Retiring(_)) {
                child.stage = Stage::Retiring(until);
                retired.push(child.pid);
            }
        }
        // First, since it leaves to others what waits for being accepted, if any others serve.
        self.tell();
        for child in self.list.iter_mut().filter(|child| retired.contains(&child.pid)) {
            let cancelled = self.board.cell(child.slot, STAGE).is_some_and(|stage| {
                stage.compare_exchange(STARTING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok()
            });
            if cancelled {
                child.unwanted = true;
                signal(child.pid, Signal::Kill);
            } else {
                child.tell(WorkerOrder::Drain);
            }
        }
    }

    /// Ends workers at once.
    pub(crate) fn kill(&mut self, which: impl Fn(&Child) -> bool) {
        for child in self.list.iter_mut().filter(|child| which(child)) {
            child.unwanted = true;
            signal(child.pid, Signal::Kill);
        }
    }

    /// Gives all workers an order.
    pub(crate) fn tell_all(&self, order: WorkerOrder) {
        for child in &self.list {
            child.tell(order);
        }
    }

    /// Gives an order to one worker, if there still is such a worker.
    pub(crate) fn tell_one(&self, pid: Pid, order: WorkerOrder) {
        if let Some(child) = self.list.iter().find(|child| child.pid == pid) {
            child.tell(order);
        }
    }

    /// Has one worker replaced, if there still is such a worker.
    pub(crate) fn condemn(&mut self, pid: Pid) {
        if let Some(child) = self.list.iter_mut().find(|child| child.pid == pid) {
            child.is_condemned = true;
        }
    }

    /// Time passed in which this process stood still, and all others with it, as far as can be known: it is held against none.
    pub(crate) fn forgive(&mut self, gap: Duration) {
        let now = Instant::now();
        for child in &mut self.list {
            child.beaten = now;
            match &mut child.stage {
                Stage::Starting(at) | Stage::Ready(at) | Stage::Retiring(at) => *at += gap,
            }
        }
    }

    /// Ends workers whose time is up; returns the moment when the next one's may be.
    pub(crate) fn enforce(&mut self, now: Instant, start: Duration, silence: Duration) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for child in &mut self.list {
            let (due, death, reason) = match child.stage {
                Stage::Starting(since) => {
                    (since + start, Death::Start, "was not ready within worker_start_timeout")
                }
                Stage::Ready(_) => {
                    (child.beaten + silence, Death::Silent, "was silent for longer than worker_timeout")
                }
                Stage::Retiring(until) => (until, Death::Graceful, "did not finish within graceful_timeout"),
            };
            if due <= now {
                tracing::error!(target: CRITICAL, "worker {} {reason}; it is killed", child.pid);
                signal(child.pid, Signal::Kill);
                child.killed.get_or_insert(death);
                // Its end will be seen; until then it is not killed again.
                child.stage = Stage::Retiring(now + Duration::from_secs(3600));
            } else {
                let due = child.replacement_due().map_or(due, |replacement| replacement.min(due));
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        next
    }
}

impl Child {
    fn tell(&self, order: WorkerOrder) {
        if let Err(error) = self.orders.send(order) {
            tracing::error!("cannot give an order to worker {}: {error}", self.pid);
        }
    }

    /// When another one is to take the place of one that was signalled.
    fn replacement_due(&self) -> Option<Instant> {
        let serves = matches!(self.stage, Stage::Ready(_)) && !self.replaced;
        self.signalled.filter(|_| serves).map(|at| at + SAME_SIGNAL)
    }

    /// How it ended, in words.
    pub(crate) fn describe(&self, ended: Ended) -> String {
        match ended {
            Ended::Signalled(number)
                if number == Signal::Kill.number() && (self.killed.is_some() || self.unwanted) =>
            {
                "signal KILL, from its supervisor".to_owned()
            }
            _ => ended.to_string(),
        }
    }
}

/// Whether a worker never served.
pub(crate) fn was_starting(board: &Board, child: &Child) -> bool {
    board
        .cell(child.slot, STAGE)
        .is_some_and(|cell| [STARTING, CANCELLED].contains(&cell.load(Ordering::Acquire)))
}

/// Sends a signal; a process that is gone needs none.
pub(crate) fn signal(pid: Pid, what: Signal) {
    if let Err(error) = process::kill(pid, what) {
        tracing::error!("cannot signal worker {pid}: {error}");
    }
}
