//! The blocking pool: threads for what may wait where neither the reactor's thread nor the hub's may, such as asking Redis.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anygate_lock::Mutex;

use crate::panics::panic_text;

/// Enough to hide that each waits for the network.
const THREADS: usize = 4;

type Errand = Box<dyn FnOnce() + Send>;

/// The threads; they end when this is dropped and everything is done.
pub(crate) struct Errands {
    sender: Sender<Errand>,
}

impl Errands {
    /// Starts the threads.
    ///
    /// Errors: they cannot be started.
    pub(crate) fn start() -> io::Result<Errands> {
        let (sender, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name("errands".to_owned()).spawn(move || work(&receiver))?;
        }
        Ok(Errands { sender })
    }

    /// Has `errand` done by one of the threads.
    pub(crate) fn run(&self, errand: impl FnOnce() + Send + 'static) {
        // The threads are there as long as this is.
        let _ = self.sender.send(Box::new(errand));
    }
}

fn work(receiver: &Mutex<Receiver<Errand>>) {
    loop {
        let errand = receiver.lock().recv();
        let Ok(errand) = errand else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(errand)) {
            tracing::error!("a request to Redis failed inside anygate: {}", panic_text(panic.as_ref()));
        }
    }
}
