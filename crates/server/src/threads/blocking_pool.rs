//! The blocking pool: threads for what may wait where neither the reactor's thread nor the hub's may, such as asking Redis or
//! another server, and for comparing passwords.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anygate_lock::Mutex;

use crate::panics::panic_text;

/// Enough to hide that each waits for the network.
const THREADS: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

/// The threads; they end when this is dropped and everything is done.
pub(crate) struct BlockingPool {
    sender: Sender<Work>,
}

impl BlockingPool {
    /// Starts the threads.
    ///
    /// Errors: they cannot be started.
    pub(crate) fn start() -> io::Result<BlockingPool> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name("blocking".to_owned()).spawn(move || work(&receiver))?;
        }
        Ok(BlockingPool { sender })
    }

    /// Has `work` done by one of the threads.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) {
        // The threads are there as long as this is.
        let _ = self.sender.send(Box::new(work));
    }
}

fn work(receiver: &Mutex<Receiver<Work>>) {
    loop {
        let work = receiver.lock().recv();
        let Ok(work) = work else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            tracing::error!("what a request waits for failed inside anygate: {}", panic_text(panic.as_ref()));
        }
    }
}
