//! A timer that is a pipe, into which a thread writes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Bell;

/// A timer. It can be read once its time has come; each time that it is set and comes is an edge for a poll.
#[derive(Debug)]
pub struct Timer {
    bell: std::sync::Arc<Bell>,
    set: Sender<Duration>,
}

impl Timer {
    /// Makes a timer that is not set.
    pub fn new() -> io::Result<Timer> {
        let bell = std::sync::Arc::new(Bell::new()?);
        let (set, times) = mpsc::channel();
        let rung = std::sync::Arc::clone(&bell);
        thread::Builder::new().name("timer".to_owned()).spawn(move || keep(&rung, &times))?;
        Ok(Timer { bell, set })
    }

    /// Sets it, in place of the time to which it was set. Nothing is at once.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        self.bell.silence()?;
        self.set.send(after).map_err(io::Error::other)
    }
}

/// Rings when the time has come that was set last, until there is no timer any more.
fn keep(bell: &Bell, times: &mpsc::Receiver<Duration>) {
    let mut due: Option<Instant> = None;
    loop {
        let set = match due {
            Some(due) => times.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => times.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match set {
            // A time that cannot be counted is for ever.
            Ok(after) => due = Instant::now().checked_add(after),
            Err(RecvTimeoutError::Timeout) => {
                due = None;
                if bell.ring().is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_fd().as_raw_fd()
    }
}
