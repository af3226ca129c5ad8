//! Where the reactor lies while its owner calls the application, and who wakes whom.
//!
//! An app thread that lends it calls the application and takes it back: two uncontended locks, no wake-up. The
//! steward watches [`Handoff::watch`] for a lend that lasts too long, and then *offers* the reactor to an idle app
//! thread, or takes it itself when none is idle and keeps it until one is. Ready exchanges stay in the reactor: a thread
//! owns it before it calls the application for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anygate_lock::{Condvar, Mutex, MutexGuard};

use crate::attention::Attention;
use crate::reactor::Reactor;
use crate::sampling::Sampling;

pub(crate) struct Handoff {
    floor: Mutex<Floor>,
    /// Idle app threads wait here.
    app_threads: Condvar,
    /// The steward waits here while nothing can be slow.
    steward: Condvar,
    attention: Arc<Attention>,
    sampling: Arc<Sampling>,
    /// Nothing was cut off at the end.
    drained: AtomicBool,
}

#[derive(Default)]
struct Floor {
    owner: Owner,
    /// App threads that wait for something to do.
    idle: usize,
    /// How often the reactor was lent.
    lends: u64,
    /// The steward waits until it is woken.
    steward_parked: bool,
    stopped: bool,
}

/// Who has the reactor.
#[derive(Default)]
enum Owner {
    /// An app thread, or the thread that starts the worker.
    #[default]
    AppThread,
    /// The steward.
    Steward,
    /// No thread while its owner calls the application: that thread takes it back, or the steward does.
    Lent(Box<Reactor>),
    /// No thread: an idle app thread is to take it.
    Offered(Box<Reactor>),
}

impl Owner {
    /// The reactor, while no thread owns it.
    fn slot(&self) -> Option<&Reactor> {
        match self {
            Owner::Lent(reactor) | Owner::Offered(reactor) => Some(reactor),
            Owner::AppThread | Owner::Steward => None,
        }
    }

    /// Takes the reactor for `owner` if no thread owns it.
    fn take(&mut self, owner: Owner) -> Option<Box<Reactor>> {
        match std::mem::replace(self, owner) {
            Owner::Lent(reactor) | Owner::Offered(reactor) => Some(reactor),
            other @ (Owner::AppThread | Owner::Steward) => {
                *self = other;
                None
            }
        }
    }
}

/// Result of the look of the steward.
pub(crate) enum Inspection {
    /// Nothing is slow.
    Fine,
    /// The reactor has been lent for too long; an idle thread was told to take it.
    Offered,
    /// The reactor has been lent for too long and no app thread is idle: the steward must run the reactor.
    Taken(Box<Reactor>),
    /// The worker has stopped.
    Stopped,
}

/// One look of the steward at the handoff.
#[derive(Clone, Copy, Default)]
pub(crate) struct Look {
    lends: u64,
    lent: bool,
}

impl Handoff {
    pub(crate) fn new(attention: Arc<Attention>, sampling: Arc<Sampling>) -> Self {
        Handoff {
            floor: Mutex::default(),
            app_threads: Condvar::new(),
            steward: Condvar::new(),
            attention,
            sampling,
            drained: AtomicBool::new(false),
        }
    }

    /// Every request had its response before the end.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Acquire)
    }

    // What app threads do.

    /// Waits until the reactor is to be owned; `None` when the worker has stopped.
    pub(crate) fn wait_for_reactor(&self) -> Option<Box<Reactor>> {
        let mut floor = self.lock();
        loop {
            if floor.stopped {
                return None;
            }
            if let Owner::Offered(_) = floor.owner {
                return floor.owner.take(Owner::AppThread);
            }
            floor.idle += 1;
            if let Owner::Steward = floor.owner {
                // The steward only waits for a thread to have nothing to do.
                self.attention.wake();
            }
            floor = self.app_threads.wait(floor);
            floor.idle -= 1;
        }
    }

    /// Leaves the reactor in the slot while its owner calls the application. Where calls tend to wait, an idle thread is
    /// told to take it at once.
    pub(crate) fn lend(&self, reactor: Box<Reactor>) {
        let mut floor = self.lock();
        floor.lends = floor.lends.wrapping_add(1);
        let hand_on = floor.idle > 0 && self.sampling.is_eager();
        floor.owner = if hand_on { Owner::Offered(reactor) } else { Owner::Lent(reactor) };
        let wake_steward = std::mem::take(&mut floor.steward_parked);
        drop(floor);
        if hand_on {
            self.app_threads.notify_one();
        }
        if wake_steward {
            self.steward.notify_one();
        }
    }

    /// Takes the reactor back, unless another thread has.
    pub(crate) fn take_back(&self) -> Option<Box<Reactor>> {
        self.lock().owner.take(Owner::AppThread)
    }

    // What the reactor's owner does.

    /// Ends the worker, whose reactor has nothing left to do or no time to do it.
    pub(crate) fn finish(&self, reactor: &Reactor) {
        self.drained.store(reactor.has_responded(), Ordering::Release);
        self.stop();
    }

    /// Ends all threads: every app thread stops when its call returns.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.app_threads.notify_all();
        self.steward.notify_one();
    }

    /// Whether all threads are to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    // What the steward does.

    /// Offers the reactor to an app thread.
    pub(crate) fn offer(&self, reactor: Box<Reactor>) {
        self.lock().owner = Owner::Offered(reactor);
        self.app_threads.notify_one();
    }

    /// Offers the reactor if an app thread is idle; else gives it back.
    pub(crate) fn offer_if_idle(&self, reactor: Box<Reactor>) -> Option<Box<Reactor>> {
        if self.lock().idle == 0 {
            return Some(reactor);
        }
        self.offer(reactor);
        None
    }

    /// Looks whether the reactor has been lent, and for longer than `slow`.
    pub(crate) fn inspect(&self, look: &mut Look, slow: Duration) -> Inspection {
        let mut floor = self.lock();
        if floor.stopped {
            return Inspection::Stopped;
        }
        *look = Look { lends: floor.lends, lent: floor.owner.slot().is_some() };
        if floor.owner.slot().is_none_or(|reactor| reactor.lent_since().elapsed() < slow) {
            return Inspection::Fine;
        }
        let Some(reactor) = floor.owner.take(Owner::Steward) else { return Inspection::Fine };
        if floor.idle > 0 {
            floor.owner = Owner::Offered(reactor);
            drop(floor);
            self.app_threads.notify_one();
            return Inspection::Offered;
        }
        Inspection::Taken(reactor)
    }

    /// Waits until the reactor is lent, the worker stops, or `longest` has passed. Nothing can be slow meanwhile: the
    /// owner of the reactor waits in it for clients.
    pub(crate) fn park_steward(&self, longest: Duration) {
        let mut floor = self.lock();
        if floor.stopped || floor.owner.slot().is_some() {
            return;
        }
        floor.steward_parked = true;
        let mut floor = self.steward.wait_timeout(floor, longest);
        floor.steward_parked = false;
    }

    fn lock(&self) -> MutexGuard<'_, Floor> {
        self.floor.lock()
    }
}

impl Look {
    /// Whether the reactor was lent between two looks.
    pub(crate) fn busier_than(self, earlier: Look) -> bool {
        self.lends != earlier.lends || self.lent
    }
}
