//! A connected stream socket, TCP or unix alike: the system calls are the same, so there is one type and no branch.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use rustix::buffer::spare_capacity;
use rustix::net::{self, RecvFlags};
use socket2::{SockAddr, SockRef};

use crate::os::stream as os;
pub use crate::os::stream::abstract_address;
use crate::ours::Ours;

/// One end of a connection; non-blocking and closed on exec.
#[derive(Debug)]
pub struct Stream {
    /// Goes before the descriptor.
    _ours: Ours,
    fd: OwnedFd,
}

/// Address of a socket or a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Inet(SocketAddr),
    /// A unix socket's path; `None` when it has no name, as a client's has not.
    Unix(Option<PathBuf>),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Inet(address) => address.fmt(f),
            Address::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Address::Unix(None) => f.write_str("unix:"),
        }
    }
}

impl TryFrom<SockAddr> for Address {
    type Error = io::Error;

    fn try_from(address: SockAddr) -> io::Result<Self> {
        if let Some(inet) = address.as_socket() {
            // A socket for both families sees IPv4 clients as `::ffff:192.0.2.1`: code above must not notice.
            Ok(Address::Inet(match inet.ip().to_canonical() {
                ip if ip.is_ipv4() => SocketAddr::new(ip, inet.port()),
                _ => inet,
            }))
        } else if address.is_unix() {
            Ok(Address::Unix(address.as_pathname().map(PathBuf::from)))
        } else {
            Err(io::Error::new(io::ErrorKind::Unsupported, "the socket is neither TCP nor unix"))
        }
    }
}

impl Stream {
    /// Receives into `buffer`; `Ok(0)` is the end of what the peer sends.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (received, _) = net::recv(&self.fd, buffer, RecvFlags::empty())?;
        Ok(received)
    }

    /// Receives behind what `bytes` holds, as much as there is capacity for, which is not zero.
    pub fn recv_behind(&self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let (received, _) = net::recv(&self.fd, spare_capacity(bytes), RecvFlags::empty())?;
        Ok(received)
    }

    /// Sends from `bytes`; a peer that is gone is an error, never a signal.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(&self.fd, bytes, os::SEND)?)
    }

    /// As [`Stream::send`], for bytes that more will follow at once: they may share a packet with it.
    pub fn send_before_more(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(net::send(&self.fd, bytes, os::SEND_BEFORE_MORE)?)
    }

    /// Sends from several slices with one call.
    pub fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(&self.fd).send_vectored_with_flags(slices, os::SEND_VECTORED)
    }

    /// Sends up to `count` bytes of `file` from `offset`. `Ok(0)` means that the file ends at or before `offset`.
    pub fn send_file(&self, file: BorrowedFd<'_>, offset: u64, count_max: usize) -> io::Result<usize> {
        // SIGPIPE is ignored by every worker (see `signals`), so a peer that is gone is an error here as well.
        os::send_file(self.fd.as_fd(), file, offset, count_max)
    }

    /// Says that nothing more will be sent; the peer may still send.
    pub fn shutdown_write(&self) -> io::Result<()> {
        SockRef::from(&self.fd).shutdown(std::net::Shutdown::Write)
    }

    /// Makes the coming close a reset: the peer learns that what it got is not all.
    pub fn reset_on_close(&self) -> io::Result<()> {
        SockRef::from(&self.fd).set_linger(Some(std::time::Duration::ZERO))
    }

    /// The address of this end.
    pub fn local(&self) -> io::Result<Address> {
        SockRef::from(&self.fd).local_addr()?.try_into()
    }

    /// The address of the other end.
    pub fn peer(&self) -> io::Result<Address> {
        SockRef::from(&self.fd).peer_addr()?.try_into()
    }
}

impl From<OwnedFd> for Stream {
    /// Takes a connected, non-blocking stream socket.
    fn from(fd: OwnedFd) -> Self {
        Stream { _ours: Ours::mark(&fd), fd }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_gone_peer_is_an_error_and_no_signal() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        drop(theirs);
        assert_eq!(stream.send(b"a").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(stream.recv(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn a_part_of_a_file_is_sent_and_its_end_is_zero() {
        let mut file = tempfile();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = Stream::from(OwnedFd::from(ours));
        assert_eq!(stream.send_file(file.as_fd(), 4, 100).unwrap(), 6);
        assert_eq!(stream.send_file(file.as_fd(), 10, 100).unwrap(), 0);
        drop(stream);
        let mut all = String::new();
        theirs.read_to_string(&mut all).unwrap();
        assert_eq!(all, "456789");
    }

    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("anygate-sys-{}", std::process::id()));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }
}
