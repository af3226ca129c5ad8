//! What the requests of a cache share: the store, what was removed from it, and the requests that are under way.

use std::sync::Arc;
use std::time::SystemTime;

use anygate_proto::head::RequestHead;

use super::entry::Entry;
use super::epochs::Epochs;
use super::flights::Flights;
use super::store::Store;

/// The parts of a cache that recorders use, too.
#[derive(Debug)]
pub(super) struct Contents {
    /// Maximum length of a body that is stored.
    pub(super) entry_max_bytes: usize,
    pub(super) store: Arc<dyn Store>,
    pub(super) epochs: Epochs,
    pub(super) flights: Arc<Flights>,
}

impl Contents {
    /// The stored response to a request, unless it was removed by another process.
    pub(super) fn load(&self, key: &[u8], request: &RequestHead, now: SystemTime) -> Option<Arc<Entry>> {
        let entry = self.store.load(key, request, now)?;
        (self.store.is_shared() || entry.epoch == self.epochs.of(key)).then_some(entry)
    }

    /// Removes the responses under a key, for all processes.
    pub(super) fn forget(&self, key: &[u8]) {
        self.epochs.pass(key);
        self.store.remove(key);
    }
}
