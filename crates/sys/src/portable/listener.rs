//! Accepting connections with POSIX's calls.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use socket2::{SockAddr, SockRef, Socket};

use crate::Address;

/// Longest path of a unix socket: `sun_path` has 104 bytes on macOS, and one ends it.
pub(crate) const UNIX_PATH_MAX: usize = 103;

/// Takes the next connection, non-blocking and closed on exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(Socket, SockAddr)> {
    let (socket, peer) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    if !peer.is_unix() {
        // Not every system has it inherited.
        socket.set_tcp_nodelay(true)?;
    }
    Ok((socket, peer))
}

/// Whether a descriptor is a socket that may listen: it has an address and no peer. macOS does not say more (SO_ACCEPTCONN).
pub(crate) fn is_listening(fd: BorrowedFd<'_>) -> bool {
    let socket = SockRef::from(&fd);
    socket.local_addr().is_ok() && socket.peer_addr().is_err()
}

/// Nothing can be refused before the socket is closed.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn refuse_newcomers(_listener: BorrowedFd<'_>, _local: &Address) -> io::Result<()> {
    Ok(())
}

/// A path beside `path` that is no longer than it: the end of `name`, which is unlike that of other processes.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
pub(crate) fn shorter(path: &Path, name: &OsStr) -> io::Result<(PathBuf, Option<File>)> {
    let room = path.file_name().map_or(0, OsStr::len);
    let name = name.as_encoded_bytes();
    let end = name.get(name.len().saturating_sub(room)..).unwrap_or(name);
    Ok((path.with_file_name(String::from_utf8_lossy(end).as_ref()), None))
}
