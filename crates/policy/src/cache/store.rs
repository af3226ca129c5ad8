//! Stores of responses: the memory of this process, or another store with the same few operations.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use anygate_lock::Mutex;
use anygate_proto::head::RequestHead;

use super::entry::Entry;

/// Maximum number of responses per URI that differ by request fields.
const VARIANTS_MAX: usize = 16;

/// Responses by key. A store may forget anything at any time, and nothing it does may fail for its user.
pub trait Store: Send + Sync + fmt::Debug {
    /// A response under this key that fits the request.
    fn load(&self, key: &[u8], request: &RequestHead, now: SystemTime) -> Option<Arc<Entry>>;

    /// Keeps a response, in place of one that the same requests fit.
    fn save(&self, key: &[u8], request: &RequestHead, entry: &Arc<Entry>, now: SystemTime);

    /// Forgets all responses under a key.
    fn remove(&self, key: &[u8]);

    /// Forgets all responses under keys that begin so.
    fn remove_prefix(&self, prefix: &[u8]);

    /// Whether others use it, too.
    fn is_shared(&self) -> bool;
}

/// Responses in the memory of this process; the least recently used make room.
#[derive(Debug)]
pub struct Memory {
    bytes_max: usize,
    kept: Mutex<StoredResponses>,
}

#[derive(Debug, Default)]
struct StoredResponses {
    by_key: HashMap<Arc<[u8]>, Variants>,
    /// Keys by when they were used last.
    used: BTreeMap<u64, Arc<[u8]>>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Variants {
    used: u64,
    /// The latest first.
    variants: Vec<Arc<Entry>>,
}

impl Memory {
    /// A store of so many bytes.
    pub fn new(bytes_max: usize) -> Memory {
        Memory { bytes_max, kept: Mutex::default() }
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StoredResponses> {
        // Each change is whole before anything could panic.
        self.kept.lock()
    }
}

impl Store for Memory {
    fn load(&self, key: &[u8], request: &RequestHead, now: SystemTime) -> Option<Arc<Entry>> {
        let mut kept = self.lock();
        kept.touch(key);
        let entries = kept.by_key.get_mut(key)?;
        let before = size(key, &entries.variants);
        entries.variants.retain(|entry| !entry.keep(now).is_zero());
        let found = entries.variants.iter().find(|entry| entry.fits(request)).cloned();
        let (after, is_empty) = (size(key, &entries.variants), entries.variants.is_empty());
        kept.bytes = (kept.bytes + after).saturating_sub(before);
        if is_empty {
            kept.remove(key);
        }
        found
    }

    fn save(&self, key: &[u8], request: &RequestHead, entry: &Arc<Entry>, _now: SystemTime) {
        if entry.bytes() > self.bytes_max {
            return;
        }
        let mut kept = self.lock();
        let entries = kept.by_key.entry(key.into()).or_default();
        let before = if entries.variants.is_empty() { 0 } else { size(key, &entries.variants) };
        entries.variants.retain(|other| !other.fits(request));
        entries.variants.truncate(VARIANTS_MAX - 1);
        entries.variants.insert(0, Arc::clone(entry));
        let after = size(key, &entries.variants);
        kept.bytes = (kept.bytes + after).saturating_sub(before);
        kept.touch(key);
        while kept.bytes > self.bytes_max {
            let Some((_, oldest)) = kept.used.pop_first() else { break };
            kept.remove(&oldest);
        }
    }

    fn remove(&self, key: &[u8]) {
        self.lock().remove(key);
    }

    fn remove_prefix(&self, prefix: &[u8]) {
        let mut kept = self.lock();
        let keys: Vec<_> = kept.by_key.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in keys {
            kept.remove(&key);
        }
    }

    fn is_shared(&self) -> bool {
        false
    }
}

impl StoredResponses {
    fn touch(&mut self, key: &[u8]) {
        self.clock += 1;
        let Some((key, used)) =
            self.by_key.get_key_value(key).map(|(key, entries)| (Arc::clone(key), entries.used))
        else {
            return;
        };
        self.used.remove(&used);
        if let Some(entries) = self.by_key.get_mut(&key) {
            entries.used = self.clock;
        }
        self.used.insert(self.clock, key);
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(entries) = self.by_key.remove(key) {
            self.used.remove(&entries.used);
            self.bytes = self.bytes.saturating_sub(size(key, &entries.variants));
        }
    }
}

fn size(key: &[u8], variants: &[Arc<Entry>]) -> usize {
    key.len() + variants.iter().map(|entry| entry.bytes()).sum::<usize>()
}
