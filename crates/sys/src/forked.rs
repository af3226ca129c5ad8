//! Children that foreign code forks: they have nothing of ours. In the child our descriptors become /dev/null, under
//! the same numbers, so that no connection stays open with it and no number is used for something else; and signals do what
//! they do by default.
//!
//! Children that we fork ourselves ([`process::fork`](crate::process::fork)) keep everything, and so do programs that are
//! run, which have no descriptors of ours anyway.

use std::os::fd::RawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{os, ours, signals};

/// The fork that is under way is our own.
static OWN_FORK: AtomicBool = AtomicBool::new(false);

/// This process was forked by foreign code.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether foreign code has forked this process from one of ours. It has one thread of that: what another one had
/// locked then stays so for ever.
pub fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

/// From now on, children that foreign code forks lose what is ours.
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
    IS_CHILD.store(true, Ordering::Relaxed);
    signals::leave();
    // SAFETY: the path is a string that ends with NUL.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    ours::take_all(|fd| replace(fd, null));
    if null >= 0 {
        // SAFETY: it was opened above, and nothing else has it.
        unsafe { libc::close(null) };
    }
}

/// Makes `fd` another name of `null`, or closes it where there is none. Either fails only for a number that is not open.
fn replace(fd: RawFd, null: RawFd) {
    if null >= 0 {
        // The child has one thread, which is in here, so no other thread uses the number meanwhile.
        os::process::duplicate_onto(null, fd);
    } else {
        // SAFETY: as above.
        unsafe { libc::close(fd) };
    }
}
