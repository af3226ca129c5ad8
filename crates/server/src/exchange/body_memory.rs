//! The memory of a worker's request bodies: how much all of them have, and buffers that are used again, since the pages of new
//! ones cost about as much as what is copied into them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anygate_lock::Mutex;

/// Maximum size of a buffer for which nothing has come.
const FIRST_BYTES: usize = 64 * 1024;
/// Minimum size of a buffer that is kept for its next use: small ones are made as quickly.
const SPARE_BYTES_MIN: usize = 128 * 1024;
/// Maximum bytes of buffers that wait for their next use.
const SPARE_BYTES_MAX: usize = 16 << 20;
/// Maximum bytes of bodies for which there is no temporary file, if less is allowed for bodies in memory.
pub(super) const UNSPOOLED_BYTES_MAX: usize = 64 << 20;

/// What the bodies of a worker have in memory.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    /// Bytes of the buffers that bodies have.
    bytes: AtomicUsize,
    bytes_max: usize,
    spare: Mutex<Spare>,
    spare_max: usize,
}

/// Buffers that wait for their next use.
#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl BodyMemory {
    /// Memory for so many bytes of bodies; what exceeds them goes to files.
    pub(crate) fn new(bytes_max: usize) -> BodyMemory {
        let spare_max = SPARE_BYTES_MAX.min(bytes_max / 4);
        BodyMemory { bytes: AtomicUsize::new(0), bytes_max, spare: Mutex::default(), spare_max }
    }

    /// Counts `wanted` more bytes, or as many as are left of `max`, at least `least`. Returns how many.
    fn count(&self, least: usize, wanted: usize, max: usize) -> Option<usize> {
        let mut before = self.bytes.load(Ordering::Relaxed);
        loop {
            let left = max.saturating_sub(before);
            if left < least {
                return None;
            }
            let counted = wanted.min(left);
            let after = before + counted;
            match self.bytes.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(counted),
                Err(now) => before = now,
            }
        }
    }

    /// A spare buffer of at least `least` bytes, and not of many more.
    fn spare(&self, least: usize) -> Option<Vec<u8>> {
        if least < SPARE_BYTES_MIN {
            return None;
        }
        let mut spare = self.spare.lock();
        let fits = |buffer: &Vec<u8>| buffer.len() >= least && buffer.len() / 4 <= least.max(FIRST_BYTES);
        let place = spare.buffers.iter().position(fits)?;
        let buffer = spare.buffers.swap_remove(place);
        spare.bytes -= buffer.len();
        Some(buffer)
    }

    fn give_back(&self, buffer: Vec<u8>) {
        if buffer.len() < SPARE_BYTES_MIN {
            return;
        }
        let mut spare = self.spare.lock();
        if spare.bytes.saturating_add(buffer.len()) <= self.spare_max {
            spare.bytes += buffer.len();
            spare.buffers.push(buffer);
        }
    }
}

/// Bytes of one body in memory.
pub(super) struct BodyBuffer {
    memory: Arc<BodyMemory>,
    /// Those that were received, and room for more: all of it is counted as the worker's.
    bytes: Vec<u8>,
    filled: usize,
}

impl BodyBuffer {
    pub(super) fn new(memory: Arc<BodyMemory>) -> BodyBuffer {
        BodyBuffer { memory, bytes: Vec::new(), filled: 0 }
    }

    /// One for no bytes, of the same worker.
    pub(super) fn emptied(&self) -> BodyBuffer {
        BodyBuffer::new(Arc::clone(&self.memory))
    }

    /// The bytes that were received.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.filled).unwrap_or_default()
    }

    /// Takes bytes, if the bodies of the worker may have more of them. `announced`: the length of the whole body.
    pub(super) fn push(&mut self, bytes: &[u8], announced: Option<u64>) -> bool {
        let grown = self.grow(bytes.len(), announced, self.memory.bytes_max);
        if grown {
            self.append(bytes);
        }
        grown
    }

    /// Takes bytes for which there is no file.
    ///
    /// Errors: other bodies need the memory.
    pub(super) fn push_unspooled(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.grow(bytes.len(), None, self.memory.bytes_max.max(UNSPOOLED_BYTES_MAX)) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no temporary file takes it, and other bodies need the memory",
            ));
        }
        self.append(bytes);
        Ok(())
    }

    /// Room for at most `most` bytes, until [`received`](Self::received) says how many have come.
    pub(super) fn room(&mut self, most: usize, announced: Option<u64>) -> Option<&mut [u8]> {
        if !self.grow(1, announced, self.memory.bytes_max) {
            return None;
        }
        let room = most.min(self.bytes.len() - self.filled);
        self.bytes.get_mut(self.filled..self.filled + room)
    }

    /// So many bytes were received into the room.
    pub(super) fn received(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.bytes.len());
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.filled..end) {
            room.copy_from_slice(bytes);
            self.filled = end;
        }
    }

    /// Makes room for `more` bytes, and for all that was announced, as far as what has come vouches for it and all bodies
    /// together have no more than `max`. Returns whether there is room for `more`.
    fn grow(&mut self, more: usize, announced: Option<u64>, max: usize) -> bool {
        let least = self.filled.saturating_add(more);
        let before = self.bytes.len();
        if least <= before {
            return true;
        }
        let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        // A buffer that is there costs nothing more.
        if let Some(buffer) = announced.and_then(|length| self.memory.spare(length.max(least))) {
            let grown = buffer.len() - before;
            if self.memory.count(grown, grown, max).is_some() {
                self.replace(buffer);
                return true;
            }
            self.memory.give_back(buffer);
        }
        let vouched = least.saturating_mul(if announced.is_some() { 4 } else { 2 }).max(FIRST_BYTES);
        let wanted = announced.map_or(vouched, |length| length.min(vouched)).max(least);
        let Some(grown) = self.memory.count(least - before, wanted - before, max) else { return false };
        match self.bytes.is_empty() {
            // The system has pages of zeros, which cost nothing before they are used.
            true => self.bytes = vec![0; grown],
            false => {
                self.bytes.reserve_exact(grown);
                self.bytes.resize(before + grown, 0);
            }
        }
        true
    }

    /// Goes on in a larger buffer.
    fn replace(&mut self, mut buffer: Vec<u8>) {
        if let (Some(begin), filled) = (buffer.get_mut(..self.filled), self.bytes()) {
            begin.copy_from_slice(filled);
        }
        self.memory.give_back(std::mem::replace(&mut self.bytes, buffer));
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.memory.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announced_length_alone_costs_little() {
        let memory = Arc::new(BodyMemory::new(1 << 30));
        let mut buffer = BodyBuffer::new(Arc::clone(&memory));
        assert!(buffer.push(b"a", Some(1 << 30)));
        assert_eq!((buffer.bytes(), buffer.bytes.len()), (&b"a"[..], FIRST_BYTES));
        let room = buffer.room(1 << 20, Some(1 << 30)).unwrap();
        assert_eq!(room.len(), FIRST_BYTES - 1);
        room.fill(b'b');
        buffer.received(FIRST_BYTES - 1);
        assert!(buffer.room(1 << 20, Some(1 << 30)).unwrap().len() <= 4 * FIRST_BYTES);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), buffer.bytes.len());
    }

    #[test]
    fn all_bodies_together_have_a_maximum_and_give_back_what_they_had() {
        let memory = Arc::new(BodyMemory::new(10));
        let (mut first, mut second) =
            (BodyBuffer::new(Arc::clone(&memory)), BodyBuffer::new(Arc::clone(&memory)));
        assert!(first.push(b"123456", Some(6)));
        assert!(!second.push(b"12345", None));
        assert_eq!(second.room(5, Some(1)).map(|room| room.len()), Some(1));
        second.received(1);
        assert!(first.push(b"789", None));
        assert!(!first.push(b"0", None));
        // Where there are no files there is a little more.
        first.push_unspooled(b"0").unwrap();
        assert!(first.push_unspooled(&vec![0; UNSPOOLED_BYTES_MAX]).is_err());
        assert_eq!((first.bytes(), second.bytes().len()), (&b"1234567890"[..], 1));
        drop((first, second));
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn buffers_are_used_again_and_not_all_are_kept() {
        let memory = Arc::new(BodyMemory::new(1 << 30));
        let body = vec![7; 1 << 20];
        let mut first = BodyBuffer::new(Arc::clone(&memory));
        assert!(first.push(&body, Some(1 << 20)));
        let place = first.bytes.as_ptr();
        drop(first);
        let mut second = BodyBuffer::new(Arc::clone(&memory));
        assert!(second.push(b"8", Some(1 << 20)));
        assert_eq!((second.bytes.as_ptr(), second.bytes()), (place, &b"8"[..]));
        // Not for a body that needs much less.
        drop(second);
        let mut third = BodyBuffer::new(Arc::clone(&memory));
        assert!(third.push(b"9", Some(10)));
        assert!(third.bytes.len() < 1 << 20);
        let all: Vec<_> = (0..40)
            .map(|_| {
                let mut buffer = BodyBuffer::new(Arc::clone(&memory));
                assert!(buffer.push(&body, Some(1 << 20)));
                buffer
            })
            .collect();
        drop(all);
        let spare = memory.spare.lock();
        assert!(spare.bytes <= SPARE_BYTES_MAX);
        assert_eq!(spare.bytes, spare.buffers.iter().map(Vec::len).sum::<usize>());
    }
}
