//! Children that somebody else's code forks: they have nothing of ours. In the child our descriptors become /dev/null, under
//! the same numbers, so that no connection stays open with it and no number is used for something else; and signals do what
//! they do by default.
//!
//! Children that we fork ourselves ([`process::fork`](crate::process::fork)) keep everything, and so do programs that are
//! run, which have no descriptors of ours anyway.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::signals;

/// One bit for each descriptor below this number; those above are few, and kept.
const DESCRIPTORS_MAX: usize = 1 << 20;
const BITS: usize = u64::BITS as usize;

/// Descriptors that are ours. The handler of a fork may use nothing but atomics.
static OURS: [AtomicU64; DESCRIPTORS_MAX / BITS] = [const { AtomicU64::new(0) }; DESCRIPTORS_MAX / BITS];
/// Words of it that were ever used.
static USED: AtomicUsize = AtomicUsize::new(0);
/// The fork that is under way is our own.
static OWN_FORK: AtomicBool = AtomicBool::new(false);

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

/// Has children that somebody else forks from now on lose what is ours.
pub fn watch() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the handler does only what signal-safety(7) allows, which holds in the child of a process with threads.
        let failed = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        debug_assert_eq!(failed, 0, "it fails for lack of memory only");
    });
}

/// Runs `fork` as one of our own.
pub(crate) fn own<R>(fork: impl FnOnce() -> R) -> R {
    OWN_FORK.store(true, Ordering::Relaxed);
    let result = fork();
    OWN_FORK.store(false, Ordering::Relaxed);
    result
}

extern "C" fn in_child() {
    if OWN_FORK.load(Ordering::Relaxed) {
        return;
    }
    signals::leave();
    // SAFETY: the path is a string that ends with NUL.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    for (index, word) in OURS.iter().enumerate().take(USED.load(Ordering::Relaxed)) {
        let mut bits = word.swap(0, Ordering::Relaxed);
        while bits != 0 {
            let Ok(fd) = RawFd::try_from(index * BITS + bits.trailing_zeros() as usize) else { break };
            bits &= bits - 1;
            replace(fd, null);
        }
    }
    if null >= 0 {
        // SAFETY: it was opened above, and nobody else has it.
        unsafe { libc::close(null) };
    }
}

/// Makes `fd` another name of `null`, or closes it where there is none. Either fails only for a number that is not open.
fn replace(fd: RawFd, null: RawFd) {
    if null >= 0 {
        // SAFETY: integers only. The child has one thread, which is in here, so nobody uses the number meanwhile.
        unsafe { libc::dup3(null, fd, libc::O_CLOEXEC) };
    } else {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}
