//! Requests that ask the application while others wait for the same response.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anygate_lock::{Condvar, Mutex, MutexGuard};

/// Maximum time that a request waits for another.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Time for which requests do not wait for each other after a response that could not be stored.
const PASS: Duration = Duration::from_secs(10);
/// Maximum number of keys for which that is remembered.
const PASSES_MAX: usize = 4096;

/// The requests that ask the application, and those that wait for them.
#[derive(Debug)]
pub(super) struct Flights {
    /// Maximum number of requests that wait at the same moment. Where each holds a thread, fewer than there are.
    waiters_max: usize,
    pub(super) by_key: Mutex<HashMap<Arc<[u8]>, Arc<Flight>>>,
    /// Keys whose responses could not be stored lately, each with the time until which that counts.
    passes: Mutex<HashMap<Arc<[u8]>, SystemTime>>,
    pub(super) waiters: AtomicUsize,
}

impl Flights {
    pub(super) fn new(waiters_max: usize) -> Self {
        Flights {
            waiters_max,
            by_key: Mutex::default(),
            passes: Mutex::default(),
            waiters: AtomicUsize::new(0),
        }
    }

    /// Registers a request that asks the application, unless another does.
    pub(super) fn take_off(self: &Arc<Self>, key: &Arc<[u8]>) -> Option<FlightGuard> {
        let mut by_key = lock(&self.by_key);
        if by_key.contains_key(key) {
            return None;
        }
        let flight = Arc::new(Flight::default());
        by_key.insert(Arc::clone(key), Arc::clone(&flight));
        Some(FlightGuard { flights: Arc::clone(self), key: Arc::clone(key), flight })
    }

    /// Waits for the request that asks the application, if there is one and not too many wait.
    pub(super) fn join(self: &Arc<Self>, key: &Arc<[u8]>) -> Option<Waiter> {
        let flight = lock(&self.by_key).get(key).cloned()?;
        if self.waiters.fetch_add(1, Ordering::AcqRel) >= self.waiters_max {
            self.waiters.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Waiter { flights: Arc::clone(self), flight })
    }

    /// Whether a response under this key could not be stored lately, so that requests do not wait for each other.
    pub(super) fn passes_lately(&self, key: &[u8], now: SystemTime) -> bool {
        lock(&self.passes).get(key).is_some_and(|until| *until > now)
    }

    /// Remembers, or forgets, that a response under this key could not be stored.
    pub(super) fn set_passes(&self, key: &Arc<[u8]>, now: SystemTime, passes: bool) {
        let mut known = lock(&self.passes);
        if !passes {
            known.remove(key);
            return;
        }
        if known.len() >= PASSES_MAX {
            known.retain(|_, until| *until > now);
        }
        // When there are too many, all are forgotten: the cost is that some requests wait for nothing.
        if known.len() >= PASSES_MAX {
            known.clear();
        }
        known.insert(Arc::clone(key), now.checked_add(PASS).unwrap_or(now));
    }
}

/// A request that asks the application, for others that wait.
#[derive(Default)]
pub(super) struct Flight {
    progress: Mutex<Progress>,
    over: Condvar,
}

#[derive(Default)]
struct Progress {
    is_over: bool,
    /// Actions at the end.
    then: Vec<Then>,
}

type Then = Box<dyn FnOnce() + Send>;

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flight").finish_non_exhaustive()
    }
}

/// Ends a flight when it is dropped.
#[derive(Debug)]
pub(super) struct FlightGuard {
    flights: Arc<Flights>,
    key: Arc<[u8]>,
    flight: Arc<Flight>,
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        lock(&self.flights.by_key).remove(&self.key);
        let mut progress = lock(&self.flight.progress);
        progress.is_over = true;
        let then = std::mem::take(&mut progress.then);
        drop(progress);
        self.flight.over.notify_all();
        then.into_iter().for_each(|then| then());
    }
}

/// A request that waits for another's response.
#[derive(Debug)]
pub struct Waiter {
    flights: Arc<Flights>,
    flight: Arc<Flight>,
}

impl Waiter {
    /// Whether there is nothing more to wait for.
    pub fn is_over(&self) -> bool {
        lock(&self.flight.progress).is_over
    }

    /// The longest that it should wait.
    pub fn longest(&self) -> Duration {
        WAIT_MAX
    }

    /// Has something done, by the thread of the other request, when there is nothing more to wait for; at once if that is
    /// so already. It must not wait itself.
    pub fn then(&self, then: impl FnOnce() + Send + 'static) {
        let mut progress = lock(&self.flight.progress);
        if !progress.is_over {
            return progress.then.push(Box::new(then));
        }
        drop(progress);
        then();
    }

    /// Waits until the other's response is there or cannot be had, as long as the rules allow; returns whether it came.
    pub fn wait(&self) -> bool {
        let (progress, over) = (lock(&self.flight.progress), &self.flight.over);
        let waited = over.wait_timeout_while(progress, self.longest(), |progress| !progress.is_over);
        waited.is_over
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.flights.waiters.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can leave half a change.
    mutex.lock()
}
