//! Sending, and addresses without a file, which only Linux has.

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::SocketAddr;

use rustix::net::SendFlags;

/// How bytes are sent. macOS has no flag that keeps a peer that is gone from being a signal; every process of ours ignores it
/// (see `signals`), as Python does.
pub(crate) const SEND: SendFlags = SendFlags::empty();
/// The same for bytes that more will follow at once.
pub(crate) const SEND_BEFORE_MORE: SendFlags = SEND;
/// The same as [`SEND`], as a number.
pub(crate) const SEND_VECTORED: c_int = 0;

/// Bytes of a file that are sent at a time.
const PIECE: usize = 64 * 1024;

/// Sends a part of a file, through memory: sendfile has not the same shape on all systems.
pub(crate) fn send_file(
    to: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    count_max: usize,
) -> io::Result<usize> {
    let mut buffer = vec![0; count_max.min(PIECE)];
    let read = rustix::io::pread(file, &mut buffer, offset)?;
    match buffer.get(..read) {
        Some(bytes) if !bytes.is_empty() => Ok(rustix::net::send(to, bytes, SEND)?),
        _ => Ok(0),
    }
}

/// The address of a unix socket that has a name and no file.
///
/// Errors: always.
pub fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has unix sockets without a file"))
}
