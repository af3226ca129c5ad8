//! Contexts of compression that no message needs now: they are large, and most WebSockets are idle most of the time.

use anygate_lock::Mutex;

/// Contexts that are kept for the next message, of each kind: as many as threads usually compress at once.
const SPARE_CONTEXTS: usize = 8;

/// Contexts that no message needs now.
#[derive(Debug)]
pub(crate) struct Spares<T>(Mutex<Vec<T>>);

impl<T> Default for Spares<T> {
    fn default() -> Self {
        Spares(Mutex::default())
    }
}

impl<T> Spares<T> {
    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().pop()
    }

    pub(crate) fn put(&self, context: Option<T>) {
        let mut spare = self.0.lock();
        if spare.len() < SPARE_CONTEXTS {
            spare.extend(context);
        }
    }
}
