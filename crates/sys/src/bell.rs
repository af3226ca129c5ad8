//! Descriptors by which one thread or process tells another that waits in a loop of its own.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

pub use crate::os::bell::SharedBell;
use crate::signals::set_nonblocking;

/// A bell between threads: it is readable from the first ring until it is silenced.
#[derive(Debug)]
pub struct Bell {
    read: io::PipeReader,
    write: io::PipeWriter,
    rung: AtomicBool,
}

impl Bell {
    /// Errors: no descriptors are left.
    pub fn new() -> io::Result<Bell> {
        let (read, write) = io::pipe()?;
        set_nonblocking(read.as_fd())?;
        set_nonblocking(write.as_fd())?;
        Ok(Bell { read, write, rung: AtomicBool::new(false) })
    }

    /// Rings, unless it rings already. What there is to find must be there before.
    ///
    /// Errors: whatever the system says to writing one byte.
    pub fn ring(&self) -> io::Result<()> {
        if self.rung.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        (&self.write).write_all(&[1])
    }

    /// Where others ring it, by writing a byte.
    pub fn button(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Silences it. News must be looked for afterwards, since a ring in between is lost.
    ///
    /// Errors: whatever the system says to reading.
    pub fn silence(&self) -> io::Result<()> {
        // The byte goes before the mark: a ring in between changes nothing, one after it writes again. A ring whose byte is
        // still to come is heard once more.
        match (&self.read).read(&mut [0; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        self.rung.store(false, Ordering::Release);
        Ok(())
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{is_readable, wait_readable};
    use std::time::Duration;

    #[test]
    fn a_shared_bell_can_be_rung_without_end() {
        let bell = SharedBell::new().unwrap();
        assert!(!is_readable(bell.as_fd()));
        // More than a pipe has room for.
        (0..100_000).for_each(|_| bell.ring().unwrap());
        assert!(is_readable(bell.as_fd()));
    }

    #[test]
    fn it_is_readable_from_the_first_ring_until_it_is_silenced() {
        let bell = Bell::new().unwrap();
        let rings = || wait_readable(bell.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!rings());
        for _ in 0..3 {
            bell.ring().unwrap();
            bell.ring().unwrap();
            assert!(rings());
            bell.silence().unwrap();
            bell.silence().unwrap();
            assert!(!rings());
        }
    }
}
