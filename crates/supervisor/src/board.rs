//! The board: a table in shared memory in which each process has a row. Workers report there how they are, and the
//! supervisor tells them how many of them serve.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anygate_config::WorkerStage;
use anygate_sys::SharedBell;
use anygate_sys::shared::Board;

/// Fields of the board.
pub(crate) const STAGE: usize = 0;
pub(crate) const BEATS: usize = 1;
/// Changes when requests got their responses.
pub(crate) const TRAFFIC: usize = 2;
const PID: usize = 3;
/// Seconds since 1970.
const SINCE: usize = 4;
/// Why the worker should be replaced, a bit each; 0: it need not be.
pub(crate) const RETIRING: usize = 5;
/// Connections of a worker that serves, and one; zero of one that does not.
const CONNECTIONS: usize = 6;
/// Not zero while the worker could begin one more request at once.
const FREE: usize = 7;
/// Not zero when a signal told the worker to end.
pub(crate) const SIGNALLED: usize = 8;
pub(crate) const FIELDS: usize = 9;
/// Workers that can live at once, old generations included.
pub(crate) const SLOTS: usize = 4096;
/// Rows behind those of workers: what the supervisor counts, and what those counted that are gone.
pub(crate) const SUPERVISOR: usize = SLOTS;
pub(crate) const GONE: usize = SLOTS + 1;
pub(crate) const ROWS: usize = SLOTS + 2;

/// In the supervisor's row: how many of the first rows were ever used, so that no process reads (and thereby makes
/// memory of) thousands that were not.
const ROWS_USED: usize = 0;
/// In the supervisor's row: number of workers that serve.
pub(crate) const SERVING: usize = 1;

/// Bits of `RETIRING`: it has a thread that nothing can stop, it had `max_requests`.
pub(crate) const IS_STUCK: u64 = 1;
pub(crate) const HAD_REQUESTS: u64 = 2;

/// Values of `STAGE`.
pub(crate) const STARTING: u64 = 0;
pub(crate) const READY: u64 = 1;
pub(crate) const DRAINING: u64 = 2;
/// The supervisor has changed its mind before the worker was ready.
pub(crate) const CANCELLED: u64 = 3;

/// A worker's row on the supervisor's board.
pub struct Report {
    pub(crate) board: Arc<Board>,
    pub(crate) bells: Bells,
    pub(crate) slot: usize,
    /// A byte here makes the supervisor look at the board.
    pub(crate) news: io::PipeWriter,
}

impl Report {
    pub(crate) fn new(board: Arc<Board>, bells: Bells, slot: usize, news: io::PipeWriter) -> Report {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        for (field, value) in [(PID, u64::from(std::process::id())), (SINCE, since)] {
            if let Some(cell) = board.cell(slot, field) {
                cell.store(value, Ordering::Relaxed);
            }
        }
        if let Some(used) = board.cell(SUPERVISOR, ROWS_USED) {
            used.fetch_max(slot as u64 + 1, Ordering::Release);
        }
        Report { board, bells, slot, news }
    }

    /// The worker serves from now on; `false` if it is not wanted any more.
    #[must_use]
    pub fn ready(&mut self) -> bool {
        // Other workers see it before the supervisor does, so that none takes a client that this one could serve.
        let peers = self.peers();
        peers.tell(0, true);
        let wanted = self.board.cell(self.slot, STAGE).is_some_and(|stage| {
            stage.compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire).is_ok()
        });
        if !wanted {
            peers.leave();
        }
        self.news();
        wanted
    }

    /// Tells the supervisor that a signal told this worker to end.
    pub fn signalled(&self) {
        if let Some(cell) = self.board.cell(self.slot, SIGNALLED) {
            cell.store(1, Ordering::Release);
        }
        self.news();
    }

    /// The same report, for another thread.
    ///
    /// Errors: there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Report> {
        let (board, bells) = (Arc::clone(&self.board), Arc::clone(&self.bells));
        Ok(Report { board, bells, slot: self.slot, news: self.news.try_clone()? })
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

    /// All processes, as the board shows them.
    pub fn tree(&self) -> Tree {
        Tree(Arc::clone(&self.board))
    }

    /// How the workers share their listeners.
    pub fn peers(&self) -> Peers {
        Peers { board: Arc::clone(&self.board), bells: Arc::clone(&self.bells), slot: self.slot }
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

    /// The worker serves, but another one should take its place: it has a thread that nothing can stop.
    pub fn stuck(&self) {
        self.retiring(IS_STUCK);
    }

    /// The worker serves, but another one should take its place when it is convenient: it had `max_requests`.
    pub fn had_requests(&self) {
        self.retiring(HAD_REQUESTS);
    }

    fn retiring(&self, why: u64) {
        if let Some(cell) = self.board.cell(self.slot, RETIRING) {
            cell.fetch_or(why, Ordering::Release);
        }
        self.news();
    }

    fn stage(&mut self, stage: u64) {
        if let Some(cell) = self.board.cell(self.slot, STAGE) {
            cell.store(stage, Ordering::Release);
        }
        self.news();
    }

    fn news(&self) {
        // A supervisor that is gone needs no news; the end of its orders tells that.
        let _ = (&self.news).write(&[1]);
    }
}

/// Bells of the workers, by their rows of the board, made before any of them is forked.
pub(crate) type Bells = Arc<Vec<SharedBell>>;

/// The workers, as one of them sees them.
#[derive(Debug)]
pub struct Peers {
    board: Arc<Board>,
    bells: Bells,
    slot: usize,
}

impl Peers {
    /// Tells the others how many connections this worker has, and whether it could begin one more request at once.
    pub fn tell(&self, connections: usize, free: bool) {
        self.set(CONNECTIONS, connections as u64 + 1);
        self.set(FREE, u64::from(free));
    }

    /// This worker accepts no connections, from now on or for a while.
    pub fn leave(&self) {
        self.set(CONNECTIONS, 0);
        self.set(FREE, 0);
    }

    fn set(&self, field: usize, value: u64) {
        if let Some(cell) = self.board.cell(self.slot, field) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// Whether there are other workers that accept connections.
    pub fn are_there(&self) -> bool {
        self.others().next().is_some()
    }

    /// The other workers that accept connections: their rows, whether they are free, and their connections.
    fn others(&self) -> impl Iterator<Item = (usize, (bool, u64))> {
        let read = |slot, field| self.board.cell(slot, field).map_or(0, |cell| cell.load(Ordering::Relaxed));
        (0..slots_used(&self.board)).filter(|&slot| slot != self.slot).filter_map(move |slot| {
            let connections = read(slot, CONNECTIONS).checked_sub(1)?;
            Some((slot, (read(slot, FREE) != 0, connections)))
        })
    }

    /// Whether there are others when this one does not serve any more.
    pub fn remain(&self) -> bool {
        self.serving() > 0
    }

    fn serving(&self) -> u64 {
        self.board.cell(SUPERVISOR, SERVING).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// The worker that should rather take a new connection than one with so many `connections` that is as `free`: its
    /// row, whether it is free itself, and its connections.
    pub fn better_than(&self, connections: usize, free: bool) -> Option<(usize, bool, u64)> {
        let mine = (free, connections as u64);
        self.others()
            .min_by_key(|&(_, (free, connections))| (!free, connections))
            .filter(|&(_, theirs)| has_more_room(theirs, mine))
            .map(|(slot, (free, connections))| (slot, free, connections))
    }

    /// Has a worker look at the listeners.
    ///
    /// Errors: whatever the system says to writing.
    pub fn ring(&self, slot: usize) -> io::Result<()> {
        self.bells.get(slot).map_or(Ok(()), SharedBell::ring)
    }

    /// Becomes readable when another worker wants this one to look at the listeners.
    pub fn bell(&self) -> Option<BorrowedFd<'_>> {
        self.bells.get(self.slot).map(AsFd::as_fd)
    }
}

/// Whether a worker should rather take a connection than another one: because it could serve it at once, or because it has
/// clearly fewer. Each is given as whether it is free, and its connections.
fn has_more_room(theirs: (bool, u64), mine: (bool, u64)) -> bool {
    match (theirs.0, mine.0) {
        (true, false) => true,
        (false, true) => false,
        _ => mine.1 > theirs.1 + 1 + theirs.1 / 8,
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
    /// Its place among the others, from 1 on; a later worker may have it.
    pub number: usize,
    /// Process ID.
    pub pid: u64,
    /// Time of its start, in seconds since 1970.
    pub since: u64,
    /// Stage of its life.
    pub stage: WorkerStage,
    /// What it counted.
    pub counts: &'t [AtomicU64],
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
            (pid != 0).then(|| Worker {
                number: slot + 1,
                pid,
                since,
                stage,
                counts: self.0.row(slot, FIELDS),
            })
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
    use anygate_sys::poll::is_readable;

    #[test]
    fn workers_are_found_in_the_rows_that_were_used() {
        let board = Arc::new(Board::new(ROWS, FIELDS + 1).unwrap());
        let tree = Tree(Arc::clone(&board));
        assert_eq!(tree.workers().count(), 0);
        let mut report = Report::new(Arc::clone(&board), Bells::default(), 3, io::pipe().unwrap().1);
        assert!(report.ready());
        report.counts().as_ref()[0].store(5, Ordering::Relaxed);
        let worker = tree.workers().next().unwrap();
        assert_eq!((worker.pid, worker.stage), (u64::from(std::process::id()), WorkerStage::Serving));
        assert_eq!(worker.counts[0].load(Ordering::Relaxed), 5);
    }

    #[test]
    fn the_worker_with_a_free_thread_and_the_fewest_connections_is_the_better_one() {
        let board = Arc::new(Board::new(ROWS, FIELDS).unwrap());
        let bells: Bells = Arc::new(vec![SharedBell::new().unwrap(), SharedBell::new().unwrap()]);
        let peers =
            |slot| Report::new(Arc::clone(&board), Arc::clone(&bells), slot, io::pipe().unwrap().1).peers();
        let [one, other, third] = [0, 1, 4].map(peers);
        assert_eq!(one.better_than(100, false), None);
        other.tell(3, true);
        third.tell(2, false);
        for (connections, free, better) in [
            (100, true, Some((1, true, 3))),
            (5, true, Some((1, true, 3))),
            (4, true, None),
            (0, false, Some((1, true, 3))),
        ] {
            assert_eq!(one.better_than(connections, free), better, "{connections} {free}");
        }
        other.leave();
        assert_eq!(one.better_than(100, true), None);
        assert_eq!(one.better_than(4, false), Some((4, false, 2)));
        assert_eq!(one.better_than(3, false), None);
    }

    #[test]
    fn a_worker_that_is_ready_is_known_to_the_others_at_once() {
        let board = Arc::new(Board::new(ROWS, FIELDS).unwrap());
        let report = |slot| Report::new(Arc::clone(&board), Bells::default(), slot, io::pipe().unwrap().1);
        let (one, mut other, mut unwanted) = (report(0).peers(), report(1), report(2));
        board.cell(2, STAGE).unwrap().store(DRAINING, Ordering::Relaxed);
        assert!(!unwanted.ready() && !one.are_there());
        assert!(other.ready() && one.are_there());
        assert_eq!(one.better_than(1, false), Some((1, true, 0)));
    }

    #[test]
    fn a_worker_is_rung_by_its_row() {
        let board = Arc::new(Board::new(ROWS, FIELDS).unwrap());
        let bells: Bells = Arc::new(vec![SharedBell::new().unwrap(), SharedBell::new().unwrap()]);
        let peers =
            |slot| Report::new(Arc::clone(&board), Arc::clone(&bells), slot, io::pipe().unwrap().1).peers();
        let [one, other, beyond] = [0, 1, 2].map(peers);
        one.ring(1).unwrap();
        one.ring(2).unwrap();
        assert!(is_readable(other.bell().unwrap()));
        assert!(!is_readable(one.bell().unwrap()));
        assert!(beyond.bell().is_none());
    }
}
