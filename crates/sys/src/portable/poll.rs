//! Listening sockets that several processes watch.

use std::io;
use std::os::fd::BorrowedFd;

/// Adds `listener` to what `poller`, which is the poll's of `mio`, watches, level-triggered: what one process leaves is told to
/// the next. A new connection wakes all processes.
#[cfg(target_os = "linux")]
pub fn register_listener(
    poller: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
    token: u64,
    _exclusive: bool,
) -> io::Result<()> {
    use rustix::event::epoll;
    Ok(epoll::add(poller, listener, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?)
}

/// The same of a kqueue(2).
#[cfg(not(target_os = "linux"))]
pub fn register_listener(
    poller: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
    token: u64,
    _exclusive: bool,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::event::kqueue::{Event, EventFilter, EventFlags, kevent};

    let token = usize::try_from(token).map_err(io::Error::other)?;
    let filter = EventFilter::Read(listener.as_raw_fd());
    let change = Event::new(filter, EventFlags::ADD, std::ptr::without_provenance_mut(token));
    let mut none: [Event; 0] = [];
    // SAFETY: the descriptor is of a listener that the caller has, and the kernel forgets it when it is closed.
    unsafe { kevent(poller, &[change], &mut none[..], None) }?;
    Ok(())
}
