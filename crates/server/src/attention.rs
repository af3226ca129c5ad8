//! Requests for the attention of the reactor's owner, and what all threads may ask about the worker as a whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anygate_lock::Mutex;
use mio::Waker;

use crate::control::RequestsMax;

/// Calls on the owner of the reactor, who may be waiting in it.
pub(crate) struct Attention {
    /// Tokens of connections that want to be looked after.
    called: Mutex<Vec<usize>>,
    /// Interrupts the thread that waits in the reactor.
    waker: Waker,
    draining: AtomicBool,
    /// Calls have ended since the supervisor was told.
    responded: AtomicBool,
    /// Calls that have ended, if a certain number of them is reported.
    requests: AtomicU64,
    requests_max: Option<RequestsMax>,
}

impl Attention {
    /// `waker` interrupts the reactor's poll.
    pub(crate) fn new(waker: Waker, requests_max: Option<RequestsMax>) -> Self {
        let (draining, responded) = (AtomicBool::new(false), AtomicBool::new(false));
        let requests = AtomicU64::new(0);
        Attention { called: Mutex::default(), waker, draining, responded, requests, requests_max }
    }

    /// Has the reactor look after a connection.
    pub(crate) fn call_on(&self, token: usize) {
        self.called.lock().push(token);
        self.wake();
    }

    /// Interrupts the owner of the reactor, who may be waiting in it.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!("cannot wake the reactor: {error}");
        }
    }

    /// Moves the tokens of connections that were called on to `into`.
    pub(crate) fn take_called(&self, into: &mut Vec<usize>) {
        into.append(&mut self.called.lock());
    }

    /// Notes that a call has ended.
    pub(crate) fn note_response(&self) {
        self.responded.store(true, Ordering::Relaxed);
        if let Some(max) = &self.requests_max
            && self.requests.fetch_add(1, Ordering::Relaxed) + 1 == max.count
        {
            (max.reached)();
        }
    }

    /// Whether calls have ended since this was asked last.
    pub(crate) fn take_responded(&self) -> bool {
        self.responded.swap(false, Ordering::Relaxed)
    }

    /// From now on connections end with their responses.
    pub(crate) fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether connections end with their responses.
    pub(crate) fn draining(&self) -> &AtomicBool {
        &self.draining
    }
}
