//! Accepting connections, and refusing more.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use socket2::{SockAddr, SockFilter, SockRef, Socket};

use crate::Address;

/// Longest path of a unix socket: `sun_path` has 108 bytes, and one ends it.
pub(crate) const UNIX_PATH_MAX: usize = 107;

/// Program of a socket filter (Documentation/networking/filter.rst in Linux) that drops segments with SYN, which ask for a
/// connection, and passes all others, which finish handshakes under way. A client that was not heard asks again.
const WITHOUT_SYN: [SockFilter; 4] = [
    // Loads the flags of the TCP header, tests SYN, and returns how many bytes to keep.
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x45, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Takes the next connection, non-blocking and closed on exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(Socket, SockAddr)> {
    SockRef::from(&listener).accept4(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK)
}

/// Whether a descriptor is a socket that listens.
pub(crate) fn is_listening(fd: BorrowedFd<'_>) -> bool {
    SockRef::from(&fd).is_listener().unwrap_or(false)
}

/// Lets no further connection come, and keeps those that have.
pub(crate) fn refuse_newcomers(listener: BorrowedFd<'_>, local: &Address) -> io::Result<()> {
    match local {
        Address::Unix(_) => SockRef::from(&listener).shutdown(Shutdown::Read),
        Address::Inet(_) => SockRef::from(&listener).attach_filter(&WITHOUT_SYN),
    }
}

/// A short path of the file `name` beside `path`, which holds as long as the folder is open.
pub(crate) fn shorter(path: &Path, name: &OsStr) -> io::Result<(PathBuf, Option<File>)> {
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    Ok((PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name), Some(folder)))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Type};

    use super::*;
    use crate::{Families, Listener, UnixOptions};

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn what_has_come_is_accepted_when_no_more_can_come() {
        let folder = std::env::temp_dir().join(format!("anygate-newcomers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.sock");
        let unix = Listener::bind_unix(&path, UnixOptions::default(), 16).unwrap();
        let _before = UnixStream::connect(&path).unwrap();
        unix.try_clone().unwrap().refuse_newcomers().unwrap();
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(unix.accept().is_ok());
        assert_eq!(unix.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let tcp = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        let Address::Inet(address) = tcp.local().clone() else { panic!() };
        let _before = TcpStream::connect(address).unwrap();
        tcp.refuse_newcomers().unwrap();
        // It asks, and is not heard, until the socket is closed.
        let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        late.set_nonblocking(true).unwrap();
        late.connect(&address.into()).unwrap_err();
        assert!(tcp.accept().is_ok());
        assert_eq!(tcp.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        late.peer_addr().unwrap_err();

        // One that another program opened may serve others yet.
        let foreign = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        let Address::Inet(address) = foreign.local().clone() else { panic!() };
        Listener::adopt(foreign.as_raw_fd()).unwrap().refuse_newcomers().unwrap();
        TcpStream::connect(address).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
    }
}
