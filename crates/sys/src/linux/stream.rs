//! Sending, and addresses without a file.

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

use rustix::net::SendFlags;

/// How bytes are sent: a peer that is gone is an error, never a signal.
pub(crate) const SEND: SendFlags = SendFlags::NOSIGNAL;
/// The same for bytes that more will follow at once.
pub(crate) const SEND_BEFORE_MORE: SendFlags = SEND.union(SendFlags::MORE);
/// The same as [`SEND`], as a number.
pub(crate) const SEND_VECTORED: c_int = libc::MSG_NOSIGNAL;

/// Sends a part of a file, without it passing through this process.
pub(crate) fn send_file(
    to: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count_max: usize,
) -> io::Result<usize> {
    let mut offset = offset;
    Ok(rustix::fs::sendfile(to, file, Some(&mut offset), count_max)?)
}

/// The address of a unix socket that has a name and no file (unix(7)).
///
/// Errors: the name is too long.
pub fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(name)
}
