//! Records that wait to be sent, as many bytes of them as there may be; beyond that the oldest go.

use std::collections::VecDeque;
use std::time::Duration;

use anygate_lock::{Condvar, Mutex};

/// Most bytes that wait.
const BYTES_MAX: usize = 8 << 20;
/// Most records that are sent together.
const BATCH_MAX: usize = 1024;

#[derive(Default)]
struct Waiting {
    records: VecDeque<Box<[u8]>>,
    bytes: usize,
    ending: bool,
}

/// Records between the thread that takes them and the one that sends them.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    /// Adds records; returns how many are lost for it.
    pub(crate) fn add(&self, records: Vec<Box<[u8]>>) -> u64 {
        let mut waiting = self.waiting.lock();
        waiting.bytes += records.iter().map(|record| record.len()).sum::<usize>();
        waiting.records.extend(records);
        let mut lost = 0;
        while waiting.bytes > BYTES_MAX
            && let Some(oldest) = waiting.records.pop_front()
        {
            waiting.bytes -= oldest.len();
            lost += 1;
        }
        if waiting.records.len() >= BATCH_MAX {
            self.changed.notify_all();
        }
        lost
    }

    /// Waits until there is a batch, or `patience` is over; returns what there is. `None`: nothing, and it is the end.
    pub(crate) fn batch(&self, patience: Duration) -> Option<Vec<Box<[u8]>>> {
        let mut waiting = self.waiting.lock();
        waiting = self.changed.wait_timeout_while(waiting, patience, |waiting| {
            !waiting.ending && waiting.records.len() < BATCH_MAX
        });
        if waiting.ending && waiting.records.is_empty() {
            return None;
        }
        let count = waiting.records.len().min(BATCH_MAX);
        let batch: Vec<_> = waiting.records.drain(..count).collect();
        waiting.bytes -= batch.iter().map(|record| record.len()).sum::<usize>();
        Some(batch)
    }

    /// Waits for so long, unless it is the end; returns whether it is not.
    pub(crate) fn pause(&self, pause: Duration) -> bool {
        let waiting = self.waiting.lock();
        !self.changed.wait_timeout_while(waiting, pause, |waiting| !waiting.ending).ending
    }

    /// Nothing will be added any more.
    pub(crate) fn end(&self) {
        self.waiting.lock().ending = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let queue = Queue::default();
        let record = |number: u8| vec![number; BYTES_MAX / 4].into_boxed_slice();
        assert_eq!(queue.add((0..4).map(record).collect()), 0);
        assert_eq!(queue.add(vec![record(4)]), 1);
        queue.end();
        let batch = queue.batch(Duration::ZERO).unwrap();
        assert_eq!(batch.iter().map(|record| record[0]).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(queue.batch(Duration::ZERO).is_none());
        assert!(!queue.pause(Duration::from_secs(3600)));
    }

    #[test]
    fn batches_have_a_maximum() {
        let queue = Queue::default();
        assert_eq!(queue.add((0..BATCH_MAX + 1).map(|_| Box::from([0])).collect()), 0);
        assert_eq!(queue.batch(Duration::from_secs(3600)).unwrap().len(), BATCH_MAX);
        assert_eq!(queue.batch(Duration::ZERO).unwrap().len(), 1);
        assert_eq!(queue.batch(Duration::ZERO).unwrap().len(), 0);
    }
}
