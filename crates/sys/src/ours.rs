//! Descriptors that are ours, which a process that foreign code forks must not keep ([`forked`](crate::forked)).

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One bit for each descriptor below this number; those above are few, and kept.
const DESCRIPTORS_MAX: usize = 1 << 20;
const BITS: usize = u64::BITS as usize;

/// Descriptors that are ours. The handler of a fork may use nothing but atomics.
static OURS: [AtomicU64; DESCRIPTORS_MAX / BITS] = [const { AtomicU64::new(0) }; DESCRIPTORS_MAX / BITS];
/// Words of it that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// A descriptor that a forked child must not have. To be dropped before the descriptor is closed.
#[derive(Debug)]
pub struct Ours(RawFd);

impl Ours {
    /// Marks a descriptor.
    pub fn mark(fd: &impl AsRawFd) -> Ours {
        mark(fd.as_raw_fd());
        Ours(fd.as_raw_fd())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        unmark(self.0);
    }
}

fn word(fd: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(fd).ok().filter(|number| *number < DESCRIPTORS_MAX)?;
    Some((number / BITS, 1 << (number % BITS)))
}

/// Marks a descriptor that has no owner of its own.
pub(crate) fn mark(fd: RawFd) {
    if let Some((index, bit)) = word(fd)
        && let Some(word) = OURS.get(index)
    {
        word.fetch_or(bit, Ordering::Relaxed);
        USED.fetch_max(index + 1, Ordering::Relaxed);
    }
}

/// The descriptor is about to be closed.
pub(crate) fn unmark(fd: RawFd) {
    if let Some((index, bit)) = word(fd)
        && let Some(word) = OURS.get(index)
    {
        word.fetch_and(!bit, Ordering::Relaxed);
    }
}

/// Takes all marks, for a child. It does only what signal-safety(7) allows.
pub(crate) fn take_all(mut each: impl FnMut(RawFd)) {
    for (index, word) in OURS.iter().enumerate().take(USED.load(Ordering::Relaxed)) {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let Ok(fd) = RawFd::try_from(index * BITS + bits.trailing_zeros() as usize) else { break };
            bits &= bits - 1;
            each(fd);
        }
    }
}
