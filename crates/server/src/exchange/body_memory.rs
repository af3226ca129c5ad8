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
    /// Bytes that were received and not dropped.
    bytes: AtomicUsize,
    bytes_max: usize,
    spare: Mutex<Spare>,
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
        BodyMemory { bytes: AtomicUsize::new(0), bytes_max, spare: Mutex::default() }
    }

    /// Counts more bytes, unless all together would be more than `max`.
    fn count(&self, bytes: usize, max: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= max;
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
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
        if spare.bytes.saturating_add(buffer.len()) <= SPARE_BYTES_MAX {
            spare.bytes += buffer.len();
            spare.buffers.push(buffer);
        }
    }
}

/// Bytes of one body in memory.
pub(super) struct BodyBuffer {
    memory: Arc<BodyMemory>,
    /// Those that were received, and room for more.
    bytes: Vec<u8>,
    filled: usize,
    /// Bytes of it that are counted as the worker's.
    counted: usize,
}

impl BodyBuffer {
    pub(super) fn new(memory: Arc<BodyMemory>) -> BodyBuffer {
        BodyBuffer { memory, bytes: Vec::new(), filled: 0, counted: 0 }
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
        let counted = self.memory.count(bytes.len(), self.memory.bytes_max);
        if counted {
            self.counted += bytes.len();
            self.append(bytes, announced);
        }
        counted
    }

    /// Takes bytes for which there is no file.
    ///
    /// Errors: other bodies need the memory.
    pub(super) fn push_unspooled(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.memory.count(bytes.len(), self.memory.bytes_max.max(UNSPOOLED_BYTES_MAX)) {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "no temporary file takes it, and other bodies need the memory",
            ));
        }
        self.counted += bytes.len();
        self.append(bytes, None);
        Ok(())
    }

    /// Room for at most `most` bytes, which are counted until [`received`](Self::received) says how many have come.
    pub(super) fn room(&mut self, most: usize, announced: Option<u64>) -> Option<&mut [u8]> {
        if self.filled == self.bytes.len() {
            self.grow(1, announced);
        }
        let room = most.min(self.bytes.len() - self.filled);
        if !self.memory.count(room, self.memory.bytes_max) {
            return None;
        }
        self.counted += room;
        self.bytes.get_mut(self.filled..self.filled + room)
    }

    /// So many bytes were received into the room.
    pub(super) fn received(&mut self, count: usize) {
        self.filled = (self.filled + count).min(self.bytes.len());
        self.memory.bytes.fetch_sub(self.counted - self.filled, Ordering::Relaxed);
        self.counted = self.filled;
    }

    fn append(&mut self, bytes: &[u8], announced: Option<u64>) {
        if self.bytes.len() - self.filled < bytes.len() {
            self.grow(bytes.len(), announced);
        }
        let end = self.filled + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.filled..end) {
            room.copy_from_slice(bytes);
            self.filled = end;
        }
    }

    /// Makes room for `more` bytes, and for all that was announced, as far as what has come vouches for it.
    fn grow(&mut self, more: usize, announced: Option<u64>) {
        let least = self.filled.saturating_add(more);
        let announced = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        // A buffer that is there costs nothing more.
        if let Some(mut buffer) = announced.and_then(|length| self.memory.spare(length.max(least))) {
            if let (Some(begin), filled) = (buffer.get_mut(..self.filled), self.bytes()) {
                begin.copy_from_slice(filled);
            }
            self.memory.give_back(std::mem::replace(&mut self.bytes, buffer));
            return;
        }
        let vouched = least.saturating_mul(if announced.is_some() { 4 } else { 2 }).max(FIRST_BYTES);
        let wanted = announced.map_or(vouched, |length| length.min(vouched)).max(least);
        match self.bytes.is_empty() {
            // The system has pages of zeros, which cost nothing before they are used.
            true => self.bytes = vec![0; wanted],
            false => self.bytes.resize(wanted, 0),
        }
    }
}

impl Drop for BodyBuffer {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.counted, Ordering::Relaxed);
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
        buffer.received(0);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), FIRST_BYTES);
    }

    #[test]
    fn all_bodies_together_have_a_maximum_and_give_back_what_they_had() {
        let memory = Arc::new(BodyMemory::new(10));
        let (mut first, mut second) =
            (BodyBuffer::new(Arc::clone(&memory)), BodyBuffer::new(Arc::clone(&memory)));
        assert!(first.push(b"123456", None));
        assert!(!second.push(b"12345", None));
        assert!(second.room(5, None).is_none());
        assert_eq!(second.room(4, None).map(|room| room.len()), Some(4));
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
