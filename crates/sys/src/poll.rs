//! Waiting for one descriptor, and sharing a listening socket between processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::syscall;

/// Adds `listener` to `epoll` so that a new connection wakes one of the processes that share it, not all
/// (EPOLLEXCLUSIVE, epoll_ctl(2)). Level-triggered: what one process leaves is told to the next.
#[cfg(target_os = "linux")]
pub fn register_exclusive(epoll: BorrowedFd<'_>, listener: BorrowedFd<'_>, token: u64) -> io::Result<()> {
    let events = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE).cast_unsigned();
    let mut event = libc::epoll_event { events, u64: token };
    // The event is a local that outlives the call; the kernel copies it.
    syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, listener.as_raw_fd(), &raw mut event))?;
    Ok(())
}

/// Waits until `fd` can be read, has ended or failed; `false` when `longest` passed first.
pub fn wait_readable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, libc::POLLIN, longest)
}

/// Waits until `fd` can be written or failed; `false` when `longest` passed first.
pub fn wait_writable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, libc::POLLOUT, longest)
}

fn wait(fd: BorrowedFd<'_>, events: libc::c_short, longest: Option<Duration>) -> io::Result<bool> {
    let until = longest.and_then(|longest| Instant::now().checked_add(longest));
    loop {
        let millis = until.map_or(-1, |until| {
            let left = until.saturating_duration_since(Instant::now());
            // Rounded up, so that a wait is never cut to zero and spun on.
            libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
        });
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
        // One structure, a local that outlives the call.
        match syscall!(poll(&raw mut poll, 1, millis)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn waiting_ends_with_data_or_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!wait_readable(ours.as_fd(), Some(Duration::from_millis(5))).unwrap());
        assert!(wait_writable(ours.as_fd(), Some(Duration::from_secs(5))).unwrap());
        theirs.write_all(b"x").unwrap();
        assert!(wait_readable(ours.as_fd(), None).unwrap());
    }
}
