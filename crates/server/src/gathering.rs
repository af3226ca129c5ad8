//! Blocks of responses that wait for those that follow them, so that one system call sends many; and the thread that sends
//! them when the application is slow with the next one.
//!
//! PEP 3333, "Buffering and Streaming": a server must "fully transmit the block to the client, or guarantee that [it] will
//! continue transmission even while the application is producing its next block", for which it may "use a different thread".

use std::sync::Weak;
use std::thread;
use std::time::Duration;

use anygate_lock::{Condvar, Mutex};

/// Maximum time that a block waits for the next one.
const DELAY: Duration = Duration::from_millis(1);
/// Number of delays without any block after which the thread sleeps until there is one.
const IDLE_DELAYS: u32 = 12;

/// What may have gathered blocks.
pub(crate) trait Gathered: Send + Sync {
    /// Sends them, as far as the client takes them now. Never waits.
    fn send_gathered(&self);
}

/// Those that have gathered a block since the thread last looked.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// They are dropped with their connection, which is not to stay open for this.
    gathered: Vec<Weak<dyn Gathered>>,
    /// The thread sleeps until it is woken.
    parked: bool,
    stopped: bool,
}

impl Gathering {
    /// Has the blocks of `gathered` sent within [`DELAY`], unless they are sent before.
    pub(crate) fn watch(&self, gathered: Weak<dyn Gathered>) {
        let mut waiting = self.waiting.lock();
        waiting.gathered.push(gathered);
        let wake = std::mem::take(&mut waiting.parked);
        drop(waiting);
        if wake {
            self.news.notify_one();
        }
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        self.waiting.lock().stopped = true;
        self.news.notify_one();
    }

    /// Sends what waits, until stopped.
    pub(crate) fn run(&self) {
        let mut due = Vec::new();
        let mut idle = IDLE_DELAYS;
        while self.park(idle >= IDLE_DELAYS) {
            thread::sleep(DELAY);
            std::mem::swap(&mut due, &mut self.waiting.lock().gathered);
            idle = if due.is_empty() { idle + 1 } else { 0 };
            for gathered in due.drain(..).filter_map(|gathered| gathered.upgrade()) {
                gathered.send_gathered();
            }
        }
    }

    /// Sleeps, if that is wanted, until something waits. Returns whether to go on.
    fn park(&self, wanted: bool) -> bool {
        let mut waiting = self.waiting.lock();
        while wanted && waiting.gathered.is_empty() && !waiting.stopped {
            waiting.parked = true;
            waiting = self.news.wait(waiting);
            waiting.parked = false;
        }
        !waiting.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Arc, Weak};

    struct Sent(Mutex<Sender<()>>);

    impl Gathered for Sent {
        fn send_gathered(&self) {
            self.0.lock().send(()).unwrap();
        }
    }

    fn gathered() -> (Arc<Sent>, Receiver<()>) {
        let (sent, told) = channel();
        (Arc::new(Sent(Mutex::new(sent))), told)
    }

    #[test]
    fn what_waits_is_sent_and_what_is_gone_is_forgotten() {
        let gathering = Arc::new(Gathering::default());
        let runs = Arc::clone(&gathering);
        let thread = thread::spawn(move || runs.run());
        let (sent, told) = gathered();
        // Also after the thread has had nothing to do.
        for _ in 0..2 {
            let waits: Weak<Sent> = Arc::downgrade(&sent);
            gathering.watch(waits);
            told.recv().unwrap();
            while !gathering.waiting.lock().parked {
                thread::yield_now();
            }
        }
        let waits: Weak<Sent> = Arc::downgrade(&sent);
        drop(sent);
        gathering.watch(waits);
        assert!(told.recv().is_err());
        gathering.stop();
        thread.join().unwrap();
    }
}
