//! Messages of a socket that keeps them apart (unix(7), SOCK_SEQPACKET).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::packets::MESSAGE_MAX;

/// One end.
#[derive(Debug)]
pub struct Packets(OwnedFd);

impl Packets {
    /// Makes two ends, both closed on exec.
    pub fn pair() -> io::Result<(Packets, Packets)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Packets(one), Packets(other)))
    }

    /// Sends one message without waiting.
    ///
    /// Errors: the other end is gone, or does not read.
    pub fn send(&self, message: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_slice();
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "there is room for one");
        }
        let bytes = [IoSlice::new(message.as_bytes())];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.0, &bytes, &mut control, flags)?;
        Ok(())
    }

    /// Waits for one message; `None`: the other end is gone.
    ///
    /// Errors: the system's, and a message that is not text of ours.
    pub fn receive(&self) -> io::Result<Option<(String, Option<OwnedFd>)>> {
        let mut bytes = [0; MESSAGE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let count = loop {
            let into = &mut [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(None),
                received => break received?.bytes,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if count == 0 {
            return Ok(None);
        }
        let text = std::str::from_utf8(bytes.get(..count).unwrap_or_default());
        let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((text.to_owned(), fd)))
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
