//! Descriptors that are ours, which a process that foreign code forks must not keep ([`forked`](crate::forked)).

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::syscall;

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

/// Descriptors that are ours, as they were at some moment: what foreign code that runs in between may not close.
#[derive(Debug)]
pub struct Marks(Vec<(RawFd, Option<File>)>);

/// What tells an open file from others: device and number.
type File = (libc::dev_t, libc::ino_t);

impl Marks {
    /// As they are now.
    pub fn now() -> Marks {
        let mut kept = Vec::new();
        for (index, word) in OURS.iter().enumerate().take(USED.load(Ordering::Relaxed)) {
            numbers(index, word.load(Ordering::Relaxed), |fd| kept.push((fd, file(fd))));
        }
        Marks(kept)
    }

    /// Whether all of them are still open, but for those that we have closed ourselves.
    pub fn are_open(&self) -> bool {
        let is_ours = |fd| {
            let found = word(fd).and_then(|(index, bit)| Some((OURS.get(index)?, bit)));
            found.is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
        };
        self.0.iter().all(|&(fd, before)| !is_ours(fd) || file(fd) == before)
    }
}

/// The file of a descriptor; `None`: it is not open.
fn file(fd: RawFd) -> Option<File> {
    // SAFETY: the structure is plain data, for which zeros are valid.
    let mut found: libc::stat = unsafe { std::mem::zeroed() };
    syscall!(
        "it writes to the structure, which is ours; a number that is not open is an error",
        fstat(fd, ptr::from_mut(&mut found))
    )
    .ok()
    .map(|_| (found.st_dev, found.st_ino))
}

/// Takes all marks, for a child. It does only what signal-safety(7) allows.
pub(crate) fn take_all(mut each: impl FnMut(RawFd)) {
    for (index, word) in OURS.iter().enumerate().take(USED.load(Ordering::Relaxed)) {
        numbers(index, word.swap(0, Ordering::Relaxed), &mut each);
    }
}

/// The descriptors of a word of marks.
fn numbers(index: usize, mut bits: u64, mut each: impl FnMut(RawFd)) {
    while bits != 0 {
        let Ok(fd) = RawFd::try_from(index * BITS + bits.trailing_zeros() as usize) else { break };
        bits &= bits - 1;
        each(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_closed_is_found() {
        let (first, second) = std::io::pipe().unwrap();
        let kept = |fd: &std::io::PipeReader| Marks(vec![(fd.as_raw_fd(), file(fd.as_raw_fd()))]);
        let mark = Ours::mark(&first);
        let before = kept(&first);
        assert!(Marks::now().0.iter().any(|(fd, _)| *fd == first.as_raw_fd()));
        assert!(before.are_open());
        // Another file under the same number.
        let (other, _) = std::io::pipe().unwrap();
        crate::os::process::duplicate_onto(other.as_raw_fd(), first.as_raw_fd());
        assert!(!before.are_open());
        drop(mark);
        assert!(before.are_open());
        drop(second);
    }
}
