//! Messages of a stream: a byte with the length goes before each.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::os::stream::SEND;
use crate::packets::MESSAGE_MAX;

/// One end.
#[derive(Debug)]
pub struct Packets(OwnedFd);

impl Packets {
    /// Makes two ends, both closed on exec.
    pub fn pair() -> io::Result<(Packets, Packets)> {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
        fcntl_setfd(&one, FdFlags::CLOEXEC)?;
        fcntl_setfd(&other, FdFlags::CLOEXEC)?;
        Ok((Packets(one), Packets(other)))
    }

    /// Sends one message without waiting.
    ///
    /// Errors: the other end is gone, or does not read.
    pub fn send(&self, message: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let length = u8::try_from(message.len()).ok().filter(|&length| usize::from(length) <= MESSAGE_MAX);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = fd.as_slice();
        if !fds.is_empty() {
            let fits = control.push(SendAncillaryMessage::ScmRights(fds));
            debug_assert!(fits, "there is room for one");
        }
        let length = [length];
        let bytes = [IoSlice::new(&length), IoSlice::new(message.as_bytes())];
        // A stream takes so few bytes as a whole, or none.
        let sent = rustix::net::sendmsg(&self.0, &bytes, &mut control, SEND | SendFlags::DONTWAIT)?;
        if sent == message.len() + 1 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Waits for one message; `None`: the other end is gone.
    ///
    /// Errors: the system's, and a message that is not text of ours.
    pub fn receive(&self) -> io::Result<Option<(String, Option<OwnedFd>)>> {
        let mut length = [0];
        let (count, fd) = self.receive_some(&mut length)?;
        if count == 0 {
            return Ok(None);
        }
        let mut bytes = [0; MESSAGE_MAX];
        let [length] = length;
        let message = bytes.get_mut(..usize::from(length)).ok_or(io::ErrorKind::InvalidData)?;
        let mut done = 0;
        while let Some(rest) = message.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.receive_some(rest)? {
                (0, _) => return Ok(None),
                (count, _) => done += count,
            }
        }
        let text = std::str::from_utf8(message);
        let text = text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some((text.to_owned(), fd)))
    }

    /// Waits for some bytes; none are the end.
    fn receive_some(&self, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let count = loop {
            let into = &mut [IoSliceMut::new(bytes)];
            match rustix::net::recvmsg(&self.0, into, &mut control, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok((0, None)),
                received => break received?.bytes,
            }
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if let Some(fd) = &fd {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        Ok((count, fd))
    }
}

impl AsFd for Packets {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
