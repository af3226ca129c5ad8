//! Tells a function of the program how many connections its server has, each time that changes. The reactor must not wait for
//! the interpreter, so a thread calls the function.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use anygate_lock::Mutex;
use anygate_server::{BetterPeer, Peers};
use pyo3::prelude::*;

/// What a worker without others tells of its connections.
pub(crate) struct ConnectionCounts {
    last: AtomicUsize,
    /// To the thread, until the end.
    counts: Mutex<Option<Sender<usize>>>,
}

impl ConnectionCounts {
    /// Starts the thread that calls `function` with each count.
    ///
    /// Errors: it cannot be started.
    pub(crate) fn start(function: Py<PyAny>) -> io::Result<(Arc<ConnectionCounts>, JoinHandle<()>)> {
        let (counts, received) = mpsc::channel();
        let work = move || {
            while let Ok(count) = received.recv() {
                Python::attach(|py| {
                    if let Err(error) = function.call1(py, (count,)) {
                        tracing::error!("on_connection failed: {error}");
                    }
                });
            }
        };
        let thread = thread::Builder::new().name("connections".to_owned()).spawn(work)?;
        let counts = ConnectionCounts { last: AtomicUsize::new(0), counts: Mutex::new(Some(counts)) };
        Ok((Arc::new(counts), thread))
    }

    /// The server has ended, with all connections; the thread ends, too.
    pub(crate) fn end(&self) {
        self.tell(0, false);
        *self.counts.lock() = None;
    }
}

impl Peers for ConnectionCounts {
    fn are_there(&self) -> bool {
        false
    }

    fn tell(&self, connections: usize, _free: bool) {
        if self.last.swap(connections, Ordering::AcqRel) != connections
            && let Some(counts) = &*self.counts.lock()
        {
            // The thread receives until the end.
            let _ = counts.send(connections);
        }
    }

    fn leave(&self) {}

    fn better_than(&self, _connections: usize, _free: bool) -> Option<BetterPeer> {
        None
    }

    fn ring(&self, _peer: BetterPeer) -> io::Result<()> {
        Ok(())
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn remain(&self) -> bool {
        false
    }
}
