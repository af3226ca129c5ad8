//! A bell that is a pipe, of which every process has both ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::signals::set_nonblocking;

/// A bell between processes, made before they are forked. It is watched edge-triggered and never silenced: each ring is told
/// once.
#[derive(Debug)]
pub struct SharedBell {
    read: io::PipeReader,
    write: io::PipeWriter,
}

impl SharedBell {
    /// Errors: no descriptors are left.
    pub fn new() -> io::Result<SharedBell> {
        let (read, write) = io::pipe()?;
        set_nonblocking(read.as_fd())?;
        set_nonblocking(write.as_fd())?;
        Ok(SharedBell { read, write })
    }

    /// What is read where it is heard, and where 8 bytes, as a number of the machine, ring it.
    pub fn ends(&self) -> (BorrowedFd<'_>, BorrowedFd<'_>) {
        (self.read.as_fd(), self.write.as_fd())
    }

    /// Rings.
    ///
    /// Errors: whatever the system says to writing.
    pub fn ring(&self) -> io::Result<()> {
        if let Err(error) = rustix::io::write(&self.write, &[1]) {
            if error != rustix::io::Errno::AGAIN {
                return Err(error.into());
            }
            // It is full of rings that were told. Another process may have made room meanwhile, and rung.
            match rustix::io::read(&self.read, &mut [0; 4096]) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            rustix::io::write(&self.write, &[1])?;
        }
        Ok(())
    }
}

impl AsFd for SharedBell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}
