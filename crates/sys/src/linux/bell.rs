//! A bell that is a counter of the kernel (eventfd(2)).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// A bell between processes, made before they are forked. It is watched edge-triggered and never silenced: each ring is told
/// once.
#[derive(Debug)]
pub struct SharedBell(OwnedFd);

impl SharedBell {
    /// Errors: no descriptors are left.
    pub fn new() -> io::Result<SharedBell> {
        Ok(SharedBell(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// What is read where it is heard, and where 8 bytes, as a number of the machine, ring it.
    pub fn ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.0.as_fd(), self.0.as_fd())
    }

    /// Rings.
    ///
    /// Errors: whatever the system says to writing.
    pub fn ring(&self) -> io::Result<()> {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

impl AsFd for SharedBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
