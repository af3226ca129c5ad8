//! The bytes of a connection: a socket as it is, one with TLS, or a stream of HTTP/2. Which it is, is chosen once. Nothing
//! here waits unless it says so.

mod h2_shared;
mod h2_stream;
mod tls_session;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anygate_sys::{Stream, poll};

use crate::tls::Tls;
pub(crate) use h2_shared::{Half, Handle, Shared};
pub(crate) use h2_stream::{Call, Stream as Http2Stream, StreamHome};
pub(crate) use tls_session::Greeting;
use tls_session::Secured;

/// The part of a file that is read and encrypted at once.
const PIECE_BYTES: usize = 16 * 1024;

/// The bytes of a connection: a socket as it is, or with TLS.
pub(crate) enum Transport {
    Plain(Stream),
    Tls(Box<Secured>),
    /// Not a connection of its own but one stream of another, which is mostly sent on.
    Http2(Http2Stream),
}

impl Transport {
    /// A connection that begins with a handshake.
    ///
    /// Errors: rustls says no, which it does for lack of memory only.
    pub(crate) fn secured(stream: Stream, tls: &Tls) -> io::Result<Transport> {
        Ok(Transport::Tls(Box::new(Secured::new(stream, tls)?)))
    }

    /// Goes on with the handshake as far as the socket allows. It computes for long: no thread with anything else to do
    /// may call this.
    pub(crate) fn greet(&self) -> Greeting {
        match self {
            Transport::Tls(secured) => secured.greet(),
            Transport::Plain(_) | Transport::Http2(_) => Greeting::Done(Vec::new()),
        }
    }

    /// Whether the handshake is not over: nothing can be received or sent yet. Never waits for who is at it.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.is_greeting())
    }

    /// Whether the handshake goes on when the socket takes more.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.is_stuck())
    }

    /// Whether the handshake failed.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.is_refused())
    }

    /// What the system knows; streams of HTTP/2 share that of their connection.
    pub(crate) fn socket(&self) -> Option<&Stream> {
        match self {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(secured) => Some(&secured.stream),
            Transport::Http2(_) => None,
        }
    }

    /// The stream of HTTP/2 that it is.
    pub(crate) fn http2(&self) -> Option<&Http2Stream> {
        match self {
            Transport::Http2(stream) => Some(stream),
            Transport::Plain(_) | Transport::Tls(_) => None,
        }
    }

    /// Whether TLS agreed on HTTP/2 (ALPN).
    pub(crate) fn agreed_on_http2(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.agreed_on_http2())
    }

    /// Waits until something can be received.
    pub(crate) fn wait_readable(&self, longest: Duration) -> io::Result<bool> {
        match self.socket() {
            Some(socket) => poll::wait_readable(socket.as_fd(), Some(longest)),
            None => Ok(true),
        }
    }

    /// Waits until something can be sent.
    pub(crate) fn wait_writable(&self, longest: Duration) -> io::Result<bool> {
        match self {
            Transport::Http2(stream) => Ok(stream.wait(longest)),
            Transport::Plain(stream) => poll::wait_writable(stream.as_fd(), Some(longest)),
            Transport::Tls(secured) => poll::wait_writable(secured.stream.as_fd(), Some(longest)),
        }
    }

    /// Whether the last read has emptied the socket, since it gave less than was asked for.
    pub(crate) fn is_emptied(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(secured) => secured.is_emptied(),
            Transport::Http2(_) => false,
        }
    }

    /// As [`Stream::recv`].
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.recv(buffer),
            Transport::Tls(secured) => secured.recv(buffer),
            Transport::Http2(stream) => stream.recv(buffer),
        }
    }

    /// As [`Stream::send`]; what was taken may still wait to be flushed.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.send(bytes),
            Transport::Tls(secured) => secured.send(&[io::IoSlice::new(bytes)]),
            Transport::Http2(stream) => stream.send(bytes),
        }
    }

    /// As [`Stream::send_before_more`].
    pub(crate) fn send_before_more(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Transport::Plain(stream) = self { stream.send_before_more(bytes) } else { self.send(bytes) }
    }

    /// As [`Stream::send_vectored`].
    pub(crate) fn send_slices(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.send_vectored(slices),
            Transport::Tls(secured) => secured.send(slices),
            Transport::Http2(stream) => send_each(slices, |slice| stream.send(slice)),
        }
    }

    /// The same for bytes that others follow soon: they may be kept until they are [flushed](Self::flush).
    pub(crate) fn gather(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if let Transport::Tls(secured) = self { secured.gather(slices) } else { self.send_slices(slices) }
    }

    /// Whether the socket has taken something of what was gathered since this was asked last.
    pub(crate) fn is_moving(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.is_moving())
    }

    /// As [`Stream::send_file`]; where the system cannot send a file, it is read here.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: u64, count_max: usize) -> io::Result<usize> {
        if let Transport::Plain(stream) = self {
            return stream.send_file(file, offset, count_max);
        }
        let mut piece = vec![0; count_max.min(PIECE_BYTES)];
        let file = std::fs::File::from(file.try_clone_to_owned()?);
        let count = file.read_at(&mut piece, offset)?;
        match piece.get(..count) {
            None | Some([]) => Ok(0),
            Some(bytes) => self.send(bytes),
        }
    }

    /// Sends what a session still has; `false` when the socket takes no more now.
    pub(crate) fn flush(&self) -> io::Result<bool> {
        match self {
            Transport::Plain(_) | Transport::Http2(_) => Ok(true),
            Transport::Tls(secured) => secured.flush(),
        }
    }

    /// As [`Stream::shutdown_write`], after saying goodbye.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        if let Transport::Tls(secured) = self {
            secured.say_goodbye();
        }
        self.socket().map_or(Ok(()), Stream::shutdown_write)
    }

    /// As [`Stream::reset_on_close`]; the client is not told that this is the end.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(secured) => secured.cut_off(),
            Transport::Http2(stream) => stream.reset(),
        }
        self.socket().map_or(Ok(()), Stream::reset_on_close)
    }
}

/// Sends slices one after the other, as far as all of each is taken. Returns how much was taken in all.
fn send_each(
    slices: &[io::IoSlice<'_>],
    mut send: impl FnMut(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut total = 0;
    for slice in slices.iter().filter(|slice| !slice.is_empty()) {
        match send(slice) {
            Ok(sent) if sent < slice.len() => return Ok(total + sent),
            Ok(sent) => total += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && total > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a receiver gets that takes `room` bytes in all.
    fn sent(room: usize) -> (io::Result<usize>, Vec<u8>) {
        let mut taken = Vec::new();
        let slices = [b"one".as_slice(), b"", b"three", b"five"].map(io::IoSlice::new);
        let result = send_each(&slices, |slice| {
            let count = slice.len().min(room - taken.len());
            taken.extend(slice.iter().take(count));
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        });
        (result, taken)
    }

    #[test]
    fn nothing_follows_a_slice_that_was_taken_in_part() {
        for room in 1..=12 {
            let (result, taken) = sent(room);
            assert_eq!(taken, b"onethreefive".get(..room).unwrap_or_default());
            assert_eq!(result.expect("some were taken"), room);
        }
        assert_eq!(sent(0).0.expect_err("none were taken").kind(), io::ErrorKind::WouldBlock);
    }
}
