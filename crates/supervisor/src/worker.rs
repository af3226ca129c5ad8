//! What the supervisor hands to a worker, and what it asks of whoever knows what workers do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anygate_sys::process;
use anygate_sys::process::Fork;
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

    /// How to start anygate as it was started, when reloading needs a new program because this process has the
    /// application in it (`preload`).
    fn restart(&self) -> Option<Restart>;
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
pub(crate) const FIELDS: usize = 3;

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
    /// The worker serves from now on.
    pub fn ready(&mut self) {
        self.stage(READY);
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

    fn stage(&mut self, stage: u64) {
        if let Some(cell) = self.board.cell(self.slot, STAGE) {
            cell.store(stage, Ordering::Release);
        }
        // A supervisor that is gone needs no news; the end of `parent` tells that.
        let _ = self.news.write(&[1]);
    }
}

/// Ends a worker's process with what it says.
pub(crate) fn live(body: &mut dyn WorkerBody, context: WorkerContext) -> ! {
    let code = body.work(context);
    process::exit_now(code)
}
