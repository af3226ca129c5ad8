//! What one process shows to all others: a row of numbers in shared memory, of which each part has its meaning.

use std::sync::atomic::{AtomicU64, Ordering};

use anygate_config::LogLevel;

use crate::in_flight::{self, InFlight};
use crate::metrics::{self, ADDRESSES_MAX, Counts};
use crate::shared_memory::recent_errors::{self, Recent};
use crate::shared_memory::text;

const IN_FLIGHT: usize = metrics::CELLS;
const RECENT: usize = IN_FLIGHT + in_flight::CELLS;

const LOG_LEVEL: usize = RECENT + recent_errors::CELLS;

/// Number of addresses, and the text of each.
const ADDRESSES: usize = LOG_LEVEL + 1;
const ADDRESS_WORDS: usize = 17;

/// Numbers in a row.
pub const CELLS: usize = ADDRESSES + 1 + ADDRESSES_MAX * ADDRESS_WORDS;

/// One process's row. One that is too short shows nothing.
#[derive(Clone, Copy)]
pub struct ProcessRow<'a>(pub &'a [AtomicU64]);

impl<'a> ProcessRow<'a> {
    /// Returns its counters.
    pub fn counts(self) -> Counts<'a> {
        Counts(self.0.get(..IN_FLIGHT).unwrap_or_default())
    }

    /// Returns its requests in flight.
    pub fn in_flight(self) -> InFlight<'a> {
        InFlight(self.0.get(IN_FLIGHT..RECENT).unwrap_or_default())
    }

    /// Returns its last warnings and errors.
    pub fn recent(self) -> Recent<'a> {
        Recent(self.0.get(RECENT..LOG_LEVEL).unwrap_or_default())
    }

    /// Returns the log level that this process wants of all others; `None` for the level of the settings.
    pub fn log_level(self) -> Option<LogLevel> {
        let number = self.0.get(LOG_LEVEL)?.load(Ordering::Relaxed);
        (1..).zip(LogLevel::ALL).find(|(of_level, _)| *of_level == number).map(|(_, level)| *level)
    }

    /// Wants this log level of all others.
    pub fn want_log_level(self, level: LogLevel) {
        let number = (1..).zip(LogLevel::ALL).find(|(_, of_number)| **of_number == level);
        if let (Some(cell), Some((number, _))) = (self.0.get(LOG_LEVEL), number) {
            cell.store(number, Ordering::Relaxed);
        }
    }

    /// Shows how many connections wait at each address, and how many may.
    pub fn show_queues(self, queues: impl Iterator<Item = (String, [u32; 2])>) {
        let Some((count, words)) = self.0.get(ADDRESSES..CELLS).and_then(|cells| cells.split_first()) else {
            return;
        };
        let counts = self.counts();
        let mut shown = 0;
        for ((place, (address, [waiting, max])), words) in (0..).zip(queues).zip(words.chunks(ADDRESS_WORDS))
        {
            text::store(words, address.as_bytes());
            counts.set(metrics::LISTEN_QUEUE + place, u64::from(waiting));
            counts.set(metrics::LISTEN_QUEUE_MAX + place, u64::from(max));
            shown += 1;
        }
        count.store(shown, Ordering::Release);
    }

    /// Returns the addresses whose queues this process, the supervisor, shows.
    pub fn addresses(self) -> Vec<String> {
        let Some((count, words)) = self.0.get(ADDRESSES..CELLS).and_then(|cells| cells.split_first()) else {
            return Vec::new();
        };
        let count = usize::try_from(count.load(Ordering::Acquire)).unwrap_or_default();
        words.chunks(ADDRESS_WORDS).take(count).map(text::load).collect()
    }

    /// Adds what a process that is gone leaves to that of all others that are gone.
    pub fn leave_to(self, all: ProcessRow<'_>) {
        self.counts().retire_into(all.counts());
        self.recent().pass_on(all.recent());
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn row() -> Vec<AtomicU64> {
        (0..CELLS).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn parts_do_not_overlap() {
        let (one, all) = (row(), row());
        let shown = ProcessRow(&one);
        shown.counts().add(metrics::CELLS - 1, 7);
        shown.in_flight().begin(UNIX_EPOCH, b"GET", b"/");
        for number in 0..recent_errors::PLACES + 1 {
            shown.recent().add(UNIX_EPOCH, &format!("{number}"));
        }
        assert_eq!(shown.in_flight().list(UNIX_EPOCH).len(), 1);
        assert_eq!(shown.recent().list().len(), recent_errors::PLACES);
        assert_eq!(shown.log_level(), None);
        for level in LogLevel::ALL {
            shown.want_log_level(*level);
            assert_eq!(shown.log_level(), Some(*level));
        }
        let queues =
            (0u32..).take(ADDRESSES_MAX + 1).map(|number| (format!("http://{number}"), [number, 100]));
        shown.show_queues(queues);
        assert_eq!(shown.addresses().len(), ADDRESSES_MAX);
        assert_eq!(shown.addresses()[15], "http://15");
        assert_eq!(shown.counts().get(metrics::LISTEN_QUEUE + 15), 15);
        shown.show_queues([("unix:/b".to_owned(), [2, 3])].into_iter());
        assert_eq!(shown.addresses(), ["unix:/b"]);
        assert_eq!(shown.recent().list().len(), recent_errors::PLACES);
        assert_eq!(shown.log_level(), LogLevel::ALL.last().copied());
        shown.leave_to(ProcessRow(&all));
        assert_eq!(ProcessRow(&all).recent().list().len(), recent_errors::PLACES);
        ProcessRow(&[]).counts().add(0, 1);
        ProcessRow(&[]).want_log_level(LogLevel::Debug);
        ProcessRow(&[]).show_queues([("unix:/b".to_owned(), [2, 3])].into_iter());
    }
}
