//! What the kernel tells of the queue of a listening socket.

use std::io::Read;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Address, ListenQueue, Listener, syscall};

/// Length of the head of a netlink message, and with it that of a `unix_diag_msg`.
const HEAD: usize = 16;
const DIAG_HEAD: usize = HEAD + 16;
/// Of `linux/sock_diag.h` and `linux/unix_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;

pub(crate) fn queue(listener: &Listener) -> Option<ListenQueue> {
    match listener.local() {
        Address::Inet(_) => of_tcp(listener),
        Address::Unix(_) => of_unix(listener),
    }
}

fn of_tcp(listener: &Listener) -> Option<ListenQueue> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    syscall!(
        "the kernel writes as many bytes as `length` says, which `info` has",
        getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length
        )
    )
    .ok()?;
    // SAFETY: all of it was zero, and any number is a value of its fields.
    let info = unsafe { info.assume_init() };
    // What these two are of a socket that listens (net/ipv4/tcp.c).
    Some(ListenQueue { waiting: info.tcpi_unacked, max: info.tcpi_sacked })
}

fn of_unix(listener: &Listener) -> Option<ListenQueue> {
    let inode = u32::try_from(rustix::fs::fstat(listener.as_fd()).ok()?.st_ino).ok()?;
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let mut socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(protocol)).ok()?;
    // The response is there when the request has been sent.
    socket.set_nonblocking(true).ok()?;
    socket.send(&request(inode)).ok()?;
    let mut response = [0; 512];
    let length = socket.read(&mut response).ok()?;
    parse(response.get(..length)?)
}

/// A `nlmsghdr` and a `unix_diag_req`.
fn request(inode: u32) -> Vec<u8> {
    let mut message = Vec::with_capacity(40);
    message.extend(40u32.to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    let [flag, ..] = libc::NLM_F_REQUEST.to_le_bytes();
    message.extend(u16::from(flag).to_ne_bytes());
    // Number and sender of the message.
    message.extend([0; 8]);
    let [family, ..] = libc::AF_UNIX.to_le_bytes();
    message.extend([family, 0, 0, 0]);
    // Any state, this inode, what is to be shown, and no cookie.
    for number in [u32::MAX, inode, UDIAG_SHOW_RQLEN, u32::MAX, u32::MAX] {
        message.extend(number.to_ne_bytes());
    }
    message
}

/// Finds the attribute with the lengths in a response.
fn parse(response: &[u8]) -> Option<ListenQueue> {
    if short(response, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut rest = response.get(DIAG_HEAD..)?;
    loop {
        let length = usize::from(short(rest, 0)?);
        if short(rest, 2)? == UNIX_DIAG_RQLEN {
            return Some(ListenQueue { waiting: long(rest, 4)?, max: long(rest, 8)? });
        }
        // The next one begins at a multiple of four.
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::{Families, UnixOptions};

    #[test]
    fn clients_that_are_not_accepted_are_counted() {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let tcp = Listener::bind_tcp(address, Families::System, 7).unwrap();
        let Address::Inet(address) = *tcp.local() else { panic!() };
        let path = std::env::temp_dir().join(format!("anygate-queue-{}", std::process::id()));
        let unix = Listener::bind_unix(&path, UnixOptions::default(), 7).unwrap();
        assert_eq!(tcp.queue(), Some(ListenQueue { waiting: 0, max: 7 }));
        let _clients: Vec<_> = (0..3)
            .map(|_| (TcpStream::connect(address).unwrap(), UnixStream::connect(&path).unwrap()))
            .collect();
        tcp.accept().unwrap();
        unix.accept().unwrap();
        assert_eq!(tcp.queue(), Some(ListenQueue { waiting: 2, max: 7 }));
        // A kernel without unix_diag, and a sandbox without netlink, tell nothing.
        if let Some(queue) = unix.queue() {
            assert_eq!(queue, ListenQueue { waiting: 2, max: 7 });
        }
        unix.remove_file().unwrap();
    }

    #[test]
    fn a_response_that_is_none_says_nothing() {
        let mut response = request(1);
        assert_eq!(parse(&response), None);
        response.truncate(DIAG_HEAD);
        response.extend(5u16.to_ne_bytes());
        response.extend([9, 0, 1, 0, 0, 0]);
        response.extend(12u16.to_ne_bytes());
        response.extend(UNIX_DIAG_RQLEN.to_ne_bytes());
        response.extend(3u32.to_ne_bytes());
        assert_eq!(parse(&response), None);
        response.extend(7u32.to_ne_bytes());
        assert_eq!(parse(&response), Some(ListenQueue { waiting: 3, max: 7 }));
        // An error in its place.
        response.splice(4..6, 2u16.to_ne_bytes());
        assert_eq!(parse(&response), None);
        assert_eq!(parse(&[]), None);
    }
}
