//! The board: a table in shared memory in which each process has a row. Workers report there how they are, and the
//! supervisor tells them how many of them serve.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anygate_sys::shared::Board;

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
/// In the supervisor's row: number of workers that serve.
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
    /// Process ID.
    pub pid: u64,
    /// Time of its start, in seconds since 1970.
    pub since: u64,
    /// State of its life.
    pub stage: WorkerStage,
    /// What it counted.
    pub counts: &'t [AtomicU64],
}

/// State of a worker's life.
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

#[cfg(test)]
mod tests {
    use super::*;

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
