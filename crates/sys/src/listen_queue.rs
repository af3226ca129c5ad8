//! How many connections wait in a listening socket, which only the kernel knows. Linux tells it of TCP with the socket's
//! `TCP_INFO`, and of unix sockets over netlink (sock_diag(7)). Other systems do not tell.

use crate::Listener;

/// Connections that wait to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenQueue {
    /// How many there are.
    pub waiting: u32,
    /// How many there may be: the backlog, as the system limits it. Clients that come then wait longer or are refused.
    pub max: u32,
}

impl Listener {
    /// Returns the state of the socket's queue; `None` if the system does not tell it.
    pub fn queue(&self) -> Option<ListenQueue> {
        crate::os::listen_queue::queue(self)
    }
}
