//! The bytes of a connection: a socket as it is, or with a session around it. A session is fed by whoever reads or
//! writes the connection; nothing here waits.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anygate_sys::{Stream, poll};
use rustls::ServerConnection;

use crate::tls::{Tls, facts};

use crate::http2;

/// Ciphertext of one read, and the part of a file that is encrypted at once.
const PIECE_BYTES: usize = 16 * 1024;

/// What a client that speaks plain HTTP is told, in its own language.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 51\r\n\
    Connection: close\r\n\r\n400 Bad Request: this port speaks HTTPS, not HTTP.\n";

/// The bytes of a connection: a socket as it is, or with TLS.
pub(crate) enum Transport {
    Plain(Stream),
    Tls(Box<Secured>),
    /// Not a connection of its own but one stream of another, which only answers.
    Http2(http2::Stream),
}

/// A socket with its session.
pub(crate) struct Secured {
    stream: Stream,
    session: Mutex<Session>,
    /// How the handshake ended; nothing while it goes on.
    greeted: OnceLock<Greeted>,
    /// The handshake waits until the socket takes more.
    is_stuck: AtomicBool,
}

/// How a handshake ended.
enum Greeted {
    /// Well, and with HTTP/2 agreed on or not (ALPN, RFC 7301).
    Well { http2: bool },
    /// The client broke it off, or the rules.
    Badly,
}

/// How far a handshake is.
pub(crate) enum Greeting {
    /// The client has the next word.
    GoingOn,
    /// It is over. These variables tell of the session.
    Done(Vec<(&'static str, String)>),
    /// The connection is to be closed.
    Failed,
}

struct Session {
    tls: ServerConnection,
    /// Received and not yet taken in: rustls takes no more while it has plaintext of a whole record for us.
    pending: Vec<u8>,
    /// Something was received; until then the client may turn out to speak plain HTTP.
    begun: bool,
    /// Nothing more can be received or sent.
    broken: bool,
}

impl Transport {
    /// A connection that begins with a handshake.
    ///
    /// Errors: rustls says no, which it does for lack of memory only.
    pub(crate) fn secured(stream: Stream, tls: &Tls) -> io::Result<Transport> {
        let tls = tls.session().map_err(io::Error::other)?;
        let session = Mutex::new(Session { tls, pending: Vec::new(), begun: false, broken: false });
        let (greeted, is_stuck) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Transport::Tls(Box::new(Secured { stream, session, greeted, is_stuck })))
    }

    /// Goes on with the handshake as far as the socket allows. It computes for long: no thread with anything else to do
    /// may call this.
    pub(crate) fn greet(&self) -> Greeting {
        let Transport::Tls(secured) = self else { return Greeting::Done(Vec::new()) };
        let mut session = secured.lock();
        let result = session.greet(&secured.stream);
        secured.is_stuck.store(session.tls.wants_write(), Ordering::Release);
        match result {
            Ok(()) => {
                let http2 = session.tls.alpn_protocol() == Some(b"h2");
                // Only one thread at a time has the connection, and it asks before.
                let _ = secured.greeted.set(Greeted::Well { http2 });
                Greeting::Done(facts::variables(&session.tls))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Greeting::GoingOn,
            Err(_) => {
                let _ = secured.greeted.set(Greeted::Badly);
                Greeting::Failed
            }
        }
    }

    /// Whether the handshake is not over: nothing can be received or sent yet. Never waits for who is at it.
    pub(crate) fn is_greeting(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.greeted.get().is_none())
    }

    /// Whether the handshake goes on when the socket takes more.
    pub(crate) fn is_stuck(&self) -> bool {
        matches!(self, Transport::Tls(secured) if secured.is_stuck.load(Ordering::Acquire))
    }

    /// Whether the handshake failed.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self, Transport::Tls(secured) if matches!(secured.greeted.get(), Some(Greeted::Badly)))
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
    pub(crate) fn http2(&self) -> Option<&http2::Stream> {
        match self {
            Transport::Http2(stream) => Some(stream),
            Transport::Plain(_) | Transport::Tls(_) => None,
        }
    }

    /// Whether TLS agreed on HTTP/2 (ALPN).
    pub(crate) fn agreed_on_http2(&self) -> bool {
        matches!(self, Transport::Tls(secured) if matches!(secured.greeted.get(), Some(Greeted::Well { http2: true })))
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

    /// Whether a read that gives less than was asked for has emptied the socket.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Transport::Plain(_))
    }

    /// As [`Stream::recv`].
    pub(crate) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.recv(buffer),
            Transport::Tls(secured) => secured.lock().recv(&secured.stream, buffer),
            Transport::Http2(stream) => stream.recv(buffer),
        }
    }

    /// As [`Stream::send`]; what was taken may still wait to be flushed.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(stream) => stream.send(bytes),
            Transport::Tls(secured) => secured.lock().send(&secured.stream, &[io::IoSlice::new(bytes)]),
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
            Transport::Tls(secured) => secured.lock().send(&secured.stream, slices),
            Transport::Http2(stream) => send_each(slices, |slice| stream.send(slice)),
        }
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
            Transport::Tls(secured) => secured.lock().flush(&secured.stream),
        }
    }

    /// As [`Stream::shutdown_write`], after saying goodbye.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        if let Transport::Tls(secured) = self {
            secured.lock().say_goodbye(&secured.stream);
        }
        self.socket().map_or(Ok(()), Stream::shutdown_write)
    }

    /// As [`Stream::reset_on_close`]; the client is not told that this is the end.
    pub(crate) fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(secured) => secured.lock().broken = true,
            Transport::Http2(stream) => stream.reset(),
        }
        self.socket().map_or(Ok(()), Stream::reset_on_close)
    }
}

impl Secured {
    fn lock(&self) -> MutexGuard<'_, Session> {
        // A panic inside rustls would leave a session that refuses everything; it ends with its connection.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // RFC 8446 section 6.1: "Each party MUST send a "close_notify" alert before closing its write side of the
        // connection". Without it a client cannot tell the end from a cut.
        let session = self.session.get_mut().unwrap_or_else(PoisonError::into_inner);
        session.say_goodbye(&self.stream);
    }
}

impl Session {
    /// Goes on with the handshake until it is over and all of it is sent, or the socket blocks.
    fn greet(&mut self, stream: &Stream) -> io::Result<()> {
        loop {
            if !self.flush(stream)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if !self.tls.is_handshaking() {
                return Ok(());
            }
            if self.take_in(stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn recv(&mut self, stream: &Stream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.broken {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Cut off without a goodbye; what HTTP says about lengths tells whether something is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            self.take_in(stream)?;
            self.flush(stream)?;
        }
    }

    /// Lets rustls have what was received, or what can be received now. Gives how much it took; 0 at the end.
    fn take_in(&mut self, stream: &Stream) -> io::Result<usize> {
        if self.pending.is_empty() {
            let mut piece = [0; PIECE_BYTES];
            let count = stream.recv(&mut piece)?;
            self.pending.extend_from_slice(piece.get(..count).unwrap_or_default());
        }
        let first = self.pending.first().copied();
        let taken = self.tls.read_tls(&mut self.pending.as_slice())?;
        self.pending.drain(..taken);
        if self.pending.is_empty() {
            // An idle connection keeps no memory for its next request.
            self.pending = Vec::new();
        }
        if let Err(error) = self.tls.process_new_packets() {
            return Err(self.refuse(stream, first, &error));
        }
        self.begun = true;
        Ok(taken)
    }

    /// The client broke the protocol: tells it so.
    fn refuse(&mut self, stream: &Stream, first: Option<u8>, error: &rustls::Error) -> io::Error {
        self.broken = true;
        if !self.begun && first.is_some_and(|byte| byte.is_ascii_uppercase()) {
            // If it does not take this it is gone.
            let _ = stream.send(NOT_TLS);
        } else {
            let mut writer = Writer(stream);
            while self.tls.wants_write() && self.tls.write_tls(&mut writer).is_ok() {}
        }
        tracing::debug!("refused a TLS connection: {error}");
        io::Error::new(io::ErrorKind::InvalidData, "broken TLS")
    }

    /// What is sent at once shares a record, if it is not too long.
    fn send(&mut self, stream: &Stream, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if !self.flush(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.tls.writer().write_vectored(slices)?;
        self.flush(stream)?;
        Ok(taken)
    }

    fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut writer = Writer(stream);
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut writer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn say_goodbye(&mut self, stream: &Stream) {
        if !self.broken && !self.tls.is_handshaking() {
            self.tls.send_close_notify();
            // If the socket takes no more the client is not reading, and learns of the end otherwise.
            let _ = self.flush(stream);
        }
    }
}

/// Sends slices one after the other, as far as all of each is taken. Gives how much was taken in all.
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

/// A socket as rustls wants it.
struct Writer<'s>(&'s Stream);

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
