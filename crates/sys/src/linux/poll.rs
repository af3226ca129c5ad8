//! Listening sockets that several processes watch.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::epoll;

/// Adds `listener` to `epoll`, level-triggered: what one process leaves is told to the next. A new connection wakes one of
/// the processes that have it `exclusive` (EPOLLEXCLUSIVE, epoll_ctl(2)), and all others.
pub fn register_listener(
    epoll: BorrowedFd<'_>,
    listener: BorrowedFd<'_>,
    token: u64,
    exclusive: bool,
) -> io::Result<()> {
    let exclusive = if exclusive { epoll::EventFlags::EXCLUSIVE } else { epoll::EventFlags::empty() };
    Ok(epoll::add(epoll, listener, epoll::EventData::new_u64(token), epoll::EventFlags::IN | exclusive)?)
}
