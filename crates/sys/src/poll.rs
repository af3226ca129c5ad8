//! Waiting for one descriptor, and sharing a listening socket between processes.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

pub use crate::os::poll::register_listener;

/// Waits until `fd` can be read, has ended or failed; `false` when `longest` passed first.
pub fn wait_readable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::IN, longest)
}

/// Waits as [`wait_readable`] does, but `false` also when a signal came.
pub fn wait_readable_or_signalled(fd: BorrowedFd<'_>, longest: Duration) -> io::Result<bool> {
    match poll_once(fd, PollFlags::IN, Some(longest)) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        result => result,
    }
}

/// Whether `fd` can be read now, has ended or failed.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    // What is wrong with it shows when it is read.
    poll_once(fd, PollFlags::IN, Some(Duration::ZERO)).unwrap_or(true)
}

/// Waits until `fd` can be written or failed; `false` when `longest` passed first.
pub fn wait_writable(fd: BorrowedFd<'_>, longest: Option<Duration>) -> io::Result<bool> {
    wait(fd, PollFlags::OUT, longest)
}

fn wait(fd: BorrowedFd<'_>, events: PollFlags, longest: Option<Duration>) -> io::Result<bool> {
    let until = longest.and_then(|longest| Instant::now().checked_add(longest));
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match poll_once(fd, events, left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn poll_once(fd: BorrowedFd<'_>, events: PollFlags, longest: Option<Duration>) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::from_borrowed_fd(fd, events)], longest)? > 0)
}

/// poll(2); without a time it waits for ever.
fn poll(fds: &mut [PollFd<'_>], longest: Option<Duration>) -> io::Result<usize> {
    // More seconds than the kernel can count are for ever.
    let longest = longest.and_then(|longest| Timespec::try_from(longest).ok());
    Ok(rustix::event::poll(fds, longest.as_ref())?)
}

/// Waits until one of `fds` can be read, has ended or failed, or `longest` has passed, or a signal came.
pub fn wait_any_readable(fds: &[BorrowedFd<'_>], longest: Option<Duration>) -> io::Result<()> {
    let mut polls: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match poll(&mut polls, longest) {
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
    let mut polls: Vec<PollFd<'_>> = Vec::with_capacity(2);
    for (fd, Wanted { read, write }) in [first, second] {
        let mut events = PollFlags::empty();
        events.set(PollFlags::IN, read);
        events.set(PollFlags::OUT, write);
        if !events.is_empty() {
            polls.push(PollFd::from_borrowed_fd(fd, events));
        }
    }
    match poll(&mut polls, None) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
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
        wait_any_readable(&[quiet.as_fd(), ours.as_fd()], Some(Duration::from_secs(600))).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(300));
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
