//! The options of one uWSGI, and what became of them so far.

use crate::draft::{Draft, Entry};

/// The options of a uWSGI while they become ours.
pub(super) struct Uwsgi {
    pub(super) entries: Vec<Entry>,
    pub(super) draft: Draft,
}

impl Uwsgi {
    /// The last value of an option.
    pub(super) fn last(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.last(key).is_some_and(Entry::is_on)
    }

    /// The last value of the first of these options that is set.
    pub(super) fn value(&self, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.last(key)).map(|entry| entry.value.clone())
    }
}
