//! A timer that is a descriptor (timerfd_create(2)), for a loop that waits for others too, and for less than a millisecond.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// A timer. It can be read once its time has come; each time that it is set is an edge for epoll.
#[derive(Debug)]
pub struct Timer(OwnedFd);

impl Timer {
    /// Makes a timer that is not set.
    pub fn new() -> io::Result<Timer> {
        Ok(Timer(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?))
    }

    /// Sets it, in place of the time to which it was set. Nothing is at once.
    pub fn set(&self, after: Duration) -> io::Result<()> {
        // A value of 0 would turn it off. More seconds than the kernel can count are for ever.
        let after = Timespec::try_from(after.max(Duration::from_nanos(1)))
            .unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: after };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{is_readable, wait_readable};

    #[test]
    fn it_can_be_read_when_its_time_has_come() {
        let timer = Timer::new().unwrap();
        assert!(!is_readable(timer.as_fd()));
        timer.set(Duration::MAX).unwrap();
        assert!(!is_readable(timer.as_fd()));
        timer.set(Duration::ZERO).unwrap();
        assert!(wait_readable(timer.as_fd(), None).unwrap());
    }
}
