//! Waiting for one descriptor, and sharing a listening socket between processes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::syscall;

/// Adds `listener` to `epoll`, level-triggered: what one process leaves is told to the next. A new connection wakes one of
/// the processes that have it `exclusive` (EPOLLEXCLUSIVE, epoll_ctl(2)), and all others.
#[cfg(target_os = "linux")]
pub fn register_listener(
    epoll: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
    token: u64,
    exclusive: bool,
) -> io::Result<()> {
    let exclusive = if exclusive { libc::EPOLLEXCLUSIVE } else { 0 };
    let events = (libc::EPOLLIN | exclusive).cast_unsigned();
    let mut event = libc::epoll_event { events, u64: token };
    // The event is a local that outlives the call; the kernel copies it.
    syscall!(epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, listener.as_raw_fd(), &raw mut event))?;
    Ok(())
}

/// Waits until `fd` can be read, has ended or failed; `false` when `longest` passed first.
pub fn wait_readable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, libc::POLLIN, longest)
}

/// Whether `fd` can be read now, has ended or failed.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    // What is wrong with it shows when it is read.
    poll_once(fd, libc::POLLIN, 0).unwrap_or(true)
}

/// Waits until `fd` can be written or failed; `false` when `longest` passed first.
pub fn wait_writable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, libc::POLLOUT, longest)
}

fn wait(fd: BorrowedFd<'_>, events: libc::c_short, longest: Option<Duration>) -> io::Result<bool> {
    let until = longest.and_then(|longest| Instant::now().checked_add(longest));
    loop {
        let left = until.map_or(-1, |until| millis(until.saturating_duration_since(Instant::now())));
        match poll_once(fd, events, left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn poll_once(fd: BorrowedFd<'_>, events: libc::c_short, milliseconds: libc::c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // One structure, a local that outlives the call.
    Ok(syscall!(poll(&raw mut poll, 1, milliseconds))? > 0)
}

/// Waits until one of `fds` can be read, has ended or failed, or `longest` has passed, or a signal came.
pub fn wait_any_readable(fds: &[BorrowedFd<'_>], longest: Option<Duration>) -> io::Result<()> {
    let mut polls: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let count = libc::nfds_t::try_from(polls.len()).unwrap_or(libc::nfds_t::MAX);
    // The structures are a local that outlives the call; the count is theirs.
    match syscall!(poll(polls.as_mut_ptr(), count, longest.map_or(-1, millis))) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Events to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// That it can be read, or has ended.
    pub read: bool,
    /// That it can be written.
    pub write: bool,
}

/// Waits until one of two descriptors is as wanted, or failed, or a signal came. One of which nothing is wanted does not end
/// the wait.
pub fn wait_either(first: (BorrowedFd<'_>, Wanted), second: (BorrowedFd<'_>, Wanted)) -> io::Result<()> {
    let mut polls = [first, second].map(|(fd, wanted)| {
        let read = if wanted.read { libc::POLLIN } else { 0 };
        let write = if wanted.write { libc::POLLOUT } else { 0 };
        let events = read | write;
        libc::pollfd { fd: if events == 0 { -1 } else { fd.as_raw_fd() }, events, revents: 0 }
    });
    // Two structures, locals that outlive the call.
    match syscall!(poll(polls.as_mut_ptr(), 2, -1)) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Rounded up, so that a wait is never cut to zero and spun on.
fn millis(wait: Duration) -> libc::c_int {
    libc::c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_first_of_several_ends_a_wait() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (quiet, _other) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        let begun = Instant::now();
        wait_any_readable(&[quiet.as_fd(), ours.as_fd()], Some(Duration::from_secs(20))).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        wait_any_readable(&[quiet.as_fd()], Some(Duration::from_millis(1))).unwrap();
    }

    #[test]
    fn either_of_two_ends_a_wait_if_it_is_as_wanted() {
        let read = Wanted { read: true, write: false };
        let write = Wanted { read: false, write: true };
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (quiet, other) = UnixStream::pair().unwrap();
        wait_either((quiet.as_fd(), read), (ours.as_fd(), write)).unwrap();
        theirs.write_all(b"x").unwrap();
        wait_either((ours.as_fd(), read), (quiet.as_fd(), read)).unwrap();
        drop(other);
        wait_either((quiet.as_fd(), Wanted::default()), (ours.as_fd(), read)).unwrap();
    }

    #[test]
    fn waiting_ends_with_data_or_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!wait_readable(ours.as_fd(), Some(Duration::from_millis(5))).unwrap());
        assert!(!is_readable(ours.as_fd()));
        assert!(wait_writable(ours.as_fd(), Some(Duration::from_secs(5))).unwrap());
        theirs.write_all(b"x").unwrap();
        assert!(wait_readable(ours.as_fd(), None).unwrap());
        assert!(is_readable(ours.as_fd()));
    }
}
