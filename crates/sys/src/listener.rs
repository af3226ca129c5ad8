//! Listening sockets: how each kind is bound, and what can go wrong in words a user can act on.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use crate::os::listener as os;
use crate::ours::Ours;
use crate::{Address, Stream, standard_streams, syscall};

/// A listening stream socket; non-blocking and closed on exec.
#[derive(Debug)]
pub struct Listener {
    /// Goes before the descriptor.
    _ours: Ours,
    fd: OwnedFd,
    local: Address,
    /// The file of a unix socket that this process made.
    made: Option<SocketFile>,
    /// This program opened it, so that it may end it.
    own: bool,
}

#[derive(Clone, Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Which clients a socket for all IPv6 addresses takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// Those of IPv6 only, so that the same port can be bound for IPv4 beside it.
    Apart,
    /// As the system says (`net.ipv6.bindv6only`), which usually is those of IPv4 too.
    System,
}

/// Rights of a unix socket's file. `None` keeps what the umask and the running user give.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnixOptions {
    /// Permission bits, for example `0o660`.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// Why a socket cannot be bound.
#[derive(Debug)]
pub enum BindError {
    /// A live server responds on this unix socket.
    Live,
    /// The path exists and is no socket; it is left alone.
    NotASocket,
    /// The path has so many bytes, and no unix socket can have so long a one.
    TooLong(usize),
    /// The descriptor is not open, or no listening stream socket.
    NotListening,
    /// What the system says.
    System(io::Error),
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::Live => f.write_str("another server is listening there"),
            BindError::NotASocket => f.write_str("the path exists and is not a socket"),
            BindError::TooLong(length) => {
                let most = os::UNIX_PATH_MAX;
                write!(f, "the path has {length} bytes, and that of a unix socket has {most} at most")
            }
            BindError::NotListening => f.write_str("it is not an open, listening stream socket"),
            BindError::System(error) => match error.kind() {
                io::ErrorKind::AddrInUse => f.write_str("the address is in use"),
                io::ErrorKind::AddrNotAvailable => f.write_str("this machine does not have that address"),
                io::ErrorKind::PermissionDenied => f.write_str("permission denied"),
                io::ErrorKind::NotFound => f.write_str("the directory does not exist"),
                _ => error.fmt(f),
            },
        }
    }
}

impl std::error::Error for BindError {}

impl From<io::Error> for BindError {
    fn from(error: io::Error) -> Self {
        BindError::System(error)
    }
}

impl Listener {
    /// Listens on an IP address; port 0 lets the system choose.
    ///
    /// `families`: whether `[::]` takes IPv4 clients as well.
    pub fn bind_tcp(address: SocketAddr, families: Families, backlog: u32) -> Result<Self, BindError> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() && families == Families::Apart {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it on Linux, which saves a call for each connection.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        Ok(Self::listen(socket, backlog)?)
    }

    /// Listens on a unix socket. A socket without a listener is replaced.
    ///
    /// The socket is made under another name with its final rights and then moved into place, so that no client ever
    /// meets it with wrong rights, and two servers that start at once cannot both believe that they own it.
    pub fn bind_unix(path: &Path, options: UnixOptions, backlog: u32) -> Result<Self, BindError> {
        let length = path.as_os_str().len();
        if length > os::UNIX_PATH_MAX {
            return Err(BindError::TooLong(length));
        }
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => return Err(BindError::NotASocket),
            Ok(_) => match UnixStream::connect(path) {
                Ok(_) => return Err(BindError::Live),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                // A full queue is a live server as well.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(BindError::Live),
                Err(error) => return Err(error.into()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let Some(name) = path.file_name() else { return Err(BindError::NotASocket) };
        let mut name = name.to_owned();
        name.push(format!(".{}", std::process::id()));
        let mut temporary = path.with_file_name(&name);
        let mut folder = None;
        if temporary.as_os_str().len() > os::UNIX_PATH_MAX {
            // The other name is too long where the path itself just is not.
            (temporary, folder) = os::shorter(path, &name)?;
        }
        let listener = Self::bind_unix_at(&temporary, options, backlog).and_then(|mut listener| {
            fs::rename(&temporary, path)?;
            listener.local = Address::Unix(Some(path.to_owned()));
            if let Some(made) = &mut listener.made {
                path.clone_into(&mut made.path);
            }
            Ok(listener)
        });
        if listener.is_err() {
            // It may never have been made; what matters is the error that we have.
            let _ = fs::remove_file(&temporary);
        }
        drop(folder);
        listener
    }

    fn bind_unix_at(path: &Path, options: UnixOptions, backlog: u32) -> Result<Self, BindError> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        if options.uid.is_some() || options.gid.is_some() {
            std::os::unix::fs::chown(path, options.uid, options.gid)?;
        }
        if let Some(mode) = options.mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(Self::listen(socket, backlog)?.made_at(path)?)
    }

    /// Makes the socket's file this process's own, to be removed at the end: it made the file, or the program before
    /// did in its name.
    pub fn made_at(mut self, path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        self.local = Address::Unix(Some(path.to_owned()));
        self.made = Some(SocketFile { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() });
        Ok(self)
    }

    /// The path of the socket's file, if this process made it.
    pub fn made(&self) -> Option<&Path> {
        self.made.as_ref().map(|made| made.path.as_path())
    }

    fn listen(socket: Socket, backlog: u32) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let local = socket.local_addr()?.try_into()?;
        Ok(Listener { _ours: Ours::mark(&socket), fd: socket.into(), local, made: None, own: true })
    }

    /// Takes over a listening socket that another program opened and that this process inherited under the number `fd`.
    /// The number itself stays open; a duplicate is used. In the place of the standard input, where programs of FastCGI get
    /// their socket (FastCGI 1.0, 2.2), comes `/dev/null`.
    pub fn adopt(fd: RawFd) -> Result<Self, BindError> {
        let copy = syscall!("a number that is not open is an error", fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))
            .map_err(|_| BindError::NotListening)?;
        // SAFETY: the call above succeeded and made a new descriptor that nothing else owns.
        let copy = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) };
        let listener = Self::from_fd(copy)?;
        if fd == 0 {
            standard_streams::close_input()?;
        }
        Ok(listener)
    }

    /// Takes over the listening socket `fd`, which the program that started this one left for it. Programs that this one starts
    /// do not get it.
    pub fn take_over(fd: RawFd) -> Result<Self, BindError> {
        syscall!("a number that is not open is an error", fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))
            .map_err(|_| BindError::NotListening)?;
        // SAFETY: it is open, and was left for us by its number, so nothing else in this program owns it.
        Self::from_fd(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
    }

    /// Takes a listening socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, BindError> {
        let socket = SockRef::from(&fd);
        if !os::is_listening(fd.as_fd())
            || socket.r#type().map_err(|_| BindError::NotListening)? != Type::STREAM
        {
            return Err(BindError::NotListening);
        }
        socket.set_nonblocking(true)?;
        let local: Address = socket.local_addr()?.try_into()?;
        if matches!(local, Address::Inet(_)) {
            socket.set_tcp_nodelay(true)?;
        }
        Ok(Listener { _ours: Ours::mark(&fd), fd, local, made: None, own: false })
    }

    /// Another handle on the same socket; it does not own the socket's file.
    pub fn try_clone(&self) -> io::Result<Self> {
        let fd = self.fd.try_clone()?;
        Ok(Listener { _ours: Ours::mark(&fd), fd, local: self.local.clone(), made: None, own: self.own })
    }

    /// Lets no further connection come, in any process that has this socket, before it is closed for good. What has come can
    /// still be accepted, so that none is reset by the close. A socket that another program opened is left as it is.
    ///
    /// Errors: whatever the system says. The socket can be closed all the same.
    pub fn refuse_newcomers(&self) -> io::Result<()> {
        if self.own { os::refuse_newcomers(self.fd.as_fd(), &self.local) } else { Ok(()) }
    }

    /// Takes the next connection. `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<(Stream, Address)> {
        let (socket, peer) = os::accept(self.fd.as_fd())?;
        let peer = peer.try_into().unwrap_or(Address::Unix(None));
        Ok((Stream::from(OwnedFd::from(socket)), peer))
    }

    /// Returns the address that it listens on.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// Removes the file of a unix socket, if this process made it and it is still the same one.
    pub fn remove_file(&self) -> io::Result<()> {
        let Some(made) = &self.made else { return Ok(()) };
        match fs::symlink_metadata(&made.path) {
            Ok(metadata) if metadata.dev() == made.device && metadata.ino() == made.inode => {
                fs::remove_file(&made.path)
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
    use std::os::fd::IntoRawFd;

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("anygate-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_port_in_use_is_named_so() {
        let first = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        let Address::Inet(address) = first.local().clone() else { panic!() };
        let error = Listener::bind_tcp(address, Families::System, 16).unwrap_err();
        assert_eq!(error.to_string(), "the address is in use");
        let error = Listener::bind_tcp("192.0.2.1:0".parse().unwrap(), Families::System, 16).unwrap_err();
        assert_eq!(error.to_string(), "this machine does not have that address");
    }

    #[test]
    fn both_families_share_a_port() {
        let v4 = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        let Address::Inet(address) = v4.local() else { panic!() };
        // A machine without IPv6 cannot show it.
        match Listener::bind_tcp((Ipv6Addr::LOCALHOST, address.port()).into(), Families::Apart, 16) {
            Ok(v6) => assert!(v6.local().to_string().starts_with("[::1]:")),
            Err(error) => assert_eq!(error.to_string(), "this machine does not have that address"),
        }
    }

    #[test]
    fn accepting_without_a_client_would_block() {
        let listener = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let Address::Inet(address) = listener.local() else { panic!() };
        let client = TcpStream::connect(address).unwrap();
        crate::poll::wait_readable(listener.as_fd(), None).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        assert_eq!(peer, Address::Inet(client.local_addr().unwrap()));
        assert_eq!(stream.recv(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(SockRef::from(&stream).tcp_nodelay().unwrap());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_refused() {
        let path = folder("stale").join("x.sock");
        let options = UnixOptions { mode: Some(0o620), uid: None, gid: None };
        let first = Listener::bind_unix(&path, options, 16).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o620);
        assert!(matches!(Listener::bind_unix(&path, options, 16), Err(BindError::Live)));
        drop(first);
        let second = Listener::bind_unix(&path, options, 16).unwrap();
        assert_eq!(second.local(), &Address::Unix(Some(path.clone())));
        second.remove_file().unwrap();
        assert!(!path.exists());
        fs::write(&path, "data").unwrap();
        assert!(matches!(Listener::bind_unix(&path, options, 16), Err(BindError::NotASocket)));
        assert_eq!(fs::read(&path).unwrap(), b"data");
        second.remove_file().unwrap();
        assert!(path.exists(), "what is not ours is not removed");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_path_may_be_as_long_as_one_can_be() {
        let folder = folder("long");
        let long = |bytes: usize| folder.join("x".repeat(bytes - folder.as_os_str().len() - 1));
        let path = long(os::UNIX_PATH_MAX);
        let listener = Listener::bind_unix(&path, UnixOptions::default(), 16).unwrap();
        assert_eq!(listener.local(), &Address::Unix(Some(path.clone())));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        UnixStream::connect(&path).unwrap();
        listener.remove_file().unwrap();
        let path = long(os::UNIX_PATH_MAX + 1);
        let error = Listener::bind_unix(&path, UnixOptions::default(), 16).unwrap_err();
        assert!(matches!(error, BindError::TooLong(length) if length == os::UNIX_PATH_MAX + 1));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_listening_sockets_are_adopted() {
        let listener = Listener::bind_tcp(loopback(), Families::System, 16).unwrap();
        let adopted = Listener::adopt(listener.as_raw_fd()).unwrap();
        assert_eq!(adopted.local(), listener.local());
        assert!(matches!(Listener::adopt(9999), Err(BindError::NotListening)));
        let file = fs::File::open("/dev/null").unwrap().into_raw_fd();
        assert!(matches!(Listener::adopt(file), Err(BindError::NotListening)));
    }
}
