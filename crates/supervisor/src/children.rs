//! The workers that the supervisor has, and what is known of each.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anygate_sys::process::{self, Pid};
use anygate_sys::shared::Board;
use anygate_sys::signals::Signal;

use crate::worker::{BEATS, FIELDS, READY, STAGE, STARTING, TRAFFIC};

/// Workers that can live at once, old generations included.
const SLOTS: usize = 4096;

/// One worker.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    /// Its row of the board; `None` for one that an earlier program of this process started.
    pub(crate) slot: Option<usize>,
    pub(crate) generation: u64,
    pub(crate) stage: Stage,
    beats: u64,
    beaten: Instant,
    traffic: u64,
}

/// Where a worker is in its life.
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
    /// Requests were answered since somebody asked.
    traffic: bool,
}

impl Children {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Children { list: Vec::new(), board: Arc::new(Board::new(SLOTS, FIELDS)?), traffic: false })
    }

    pub(crate) fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// A row that nobody uses, wiped.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        let slot =
            (0..self.board.slots()).find(|slot| !self.list.iter().any(|child| child.slot == Some(*slot)))?;
        for field in 0..FIELDS {
            self.board.cell(slot, field)?.store(0, Ordering::Relaxed);
        }
        Some(slot)
    }

    pub(crate) fn add(&mut self, pid: Pid, slot: Option<usize>, generation: u64, stage: Stage) {
        self.list.push(Child { pid, slot, generation, stage, beats: 0, beaten: Instant::now(), traffic: 0 });
    }

    /// Takes out a worker that ended.
    pub(crate) fn remove(&mut self, pid: Pid) -> Option<Child> {
        let index = self.list.iter().position(|child| child.pid == pid)?;
        Some(self.list.swap_remove(index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Child> {
        self.list.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Workers of a generation that were not told to finish.
    pub(crate) fn active(&self, generation: u64) -> usize {
        self.list
            .iter()
            .filter(|child| child.generation == generation && !matches!(child.stage, Stage::Retiring(_)))
            .count()
    }

    /// Of those, the ones that serve.
    pub(crate) fn ready(&self, generation: u64) -> usize {
        self.list
            .iter()
            .filter(|child| child.generation == generation && matches!(child.stage, Stage::Ready(_)))
            .count()
    }

    /// Reads the board: who became ready, who lives.
    pub(crate) fn look(&mut self, now: Instant) {
        for child in &mut self.list {
            let Some(slot) = child.slot else { continue };
            let read = |field| self.board.cell(slot, field).map_or(0, |cell| cell.load(Ordering::Acquire));
            if matches!(child.stage, Stage::Starting(_)) && read(STAGE) >= READY {
                child.stage = Stage::Ready(now);
                child.beaten = now;
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
    }

    /// Whether requests were answered since the last call.
    pub(crate) fn take_traffic(&mut self) -> bool {
        std::mem::take(&mut self.traffic)
    }

    /// Tells workers to finish; those that were told so already are left alone.
    pub(crate) fn retire(&mut self, until: Instant, which: impl Fn(&Child) -> bool) {
        for child in &mut self.list {
            if which(child) && !matches!(child.stage, Stage::Retiring(_)) {
                child.stage = Stage::Retiring(until);
                signal(child.pid, Signal::Term);
            }
        }
    }

    /// Ends workers at once.
    pub(crate) fn kill(&mut self, which: impl Fn(&Child) -> bool) {
        for child in self.list.iter().filter(|child| which(child)) {
            signal(child.pid, Signal::Kill);
        }
    }

    pub(crate) fn signal_all(&self, what: Signal) {
        for child in &self.list {
            signal(child.pid, what);
        }
    }

    /// Ends workers whose time is up; gives the moment when the next one's may be.
    pub(crate) fn enforce(&mut self, now: Instant, start: Duration, silence: Duration) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for child in &mut self.list {
            let (due, reason) = match child.stage {
                Stage::Starting(since) => (since + start, "did not get ready within worker_start_timeout"),
                Stage::Ready(_) => (child.beaten + silence, "was silent for longer than worker_timeout"),
                Stage::Retiring(until) => (until, "did not finish within graceful_timeout"),
            };
            if due <= now {
                tracing::error!("worker {} {reason}; it is killed", child.pid);
                signal(child.pid, Signal::Kill);
                // Its end will be seen; until then it is not killed again.
                child.stage = Stage::Retiring(now + Duration::from_secs(3600));
            } else {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        next
    }
}

/// Whether a worker never served.
pub(crate) fn was_starting(board: &Board, child: &Child) -> bool {
    child
        .slot
        .and_then(|slot| board.cell(slot, STAGE))
        .is_some_and(|cell| cell.load(Ordering::Acquire) == STARTING)
}

fn signal(pid: Pid, what: Signal) {
    if let Err(error) = process::kill(pid, what) {
        tracing::error!("cannot signal worker {pid}: {error}");
    }
}
