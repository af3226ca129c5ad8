//! A socket with a TLS session around it (rustls keeps the session). The threads that read or write the connection
//! feed it; nothing here waits.

use std::io::{self, Read, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anygate_lock::{Mutex, MutexGuard};
use anygate_sys::Stream;
use rustls::ServerConnection;

use crate::tls::{Tls, facts};

/// Ciphertext of one read.
const PIECE_BYTES: usize = 16 * 1024;
/// Ciphertext that is gathered before any is sent: rustls keeps 64 KB, and takes up to a frame of HTTP/2 more at a time.
const GATHERED_BYTES: usize = 40 * 1024;
/// More than a record adds to what is in it.
const RECORD_BYTES: usize = 64;
/// Response to a client that sends plain HTTP.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 51\r\n\
    Connection: close\r\n\r\n400 Bad Request: this port speaks HTTPS, not HTTP.\n";

/// A socket with its session.
pub(crate) struct Secured {
    pub(super) stream: Stream,
    session: Mutex<Session>,
    /// How the handshake ended; nothing while it goes on.
    greeted: OnceLock<Greeted>,
    /// The handshake waits until the socket takes more.
    is_stuck: AtomicBool,
    /// Nothing was left to receive behind what was received last.
    is_emptied: AtomicBool,
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
    /// Received, and taken in up to a place: rustls takes a few KB at a time, and none while it has plaintext of a whole
    /// record for us.
    pending: Vec<u8>,
    taken: usize,
    /// The socket gave less than it could have, and the client has not said goodbye.
    socket_is_empty: bool,
    /// Something was received; until then the client may turn out to speak plain HTTP.
    begun: bool,
    /// Bytes that were gathered since all of them were sent last.
    gathered: usize,
    /// The socket has taken something since this was asked last.
    is_moving: bool,
    /// Nothing more can be received or sent.
    broken: bool,
}

impl Secured {
    /// A session that begins with a handshake.
    ///
    /// Errors: rustls says no, which it does for lack of memory only.
    pub(super) fn new(stream: Stream, tls: &Tls) -> io::Result<Self> {
        let tls = tls.session().map_err(io::Error::other)?;
        let session = Mutex::new(Session {
            tls,
            pending: Vec::new(),
            taken: 0,
            socket_is_empty: false,
            begun: false,
            gathered: 0,
            is_moving: false,
            broken: false,
        });
        let (is_stuck, is_emptied) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Secured { stream, session, greeted: OnceLock::new(), is_stuck, is_emptied })
    }

    /// Goes on with the handshake as far as the socket allows.
    pub(super) fn greet(&self) -> Greeting {
        let mut session = self.lock();
        let result = session.greet(&self.stream);
        self.is_stuck.store(session.tls.wants_write(), Ordering::Release);
        match result {
            Ok(()) => {
                let http2 = session.tls.alpn_protocol() == Some(b"h2");
                // Only one thread at a time has the connection, and it asks before.
                let _ = self.greeted.set(Greeted::Well { http2 });
                Greeting::Done(facts::variables(&session.tls))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Greeting::GoingOn,
            Err(_) => {
                let _ = self.greeted.set(Greeted::Badly);
                Greeting::Failed
            }
        }
    }

    /// Whether the handshake is not over. Never waits for who is at it.
    pub(super) fn is_greeting(&self) -> bool {
        self.greeted.get().is_none()
    }

    /// Whether the handshake goes on when the socket takes more.
    pub(super) fn is_stuck(&self) -> bool {
        self.is_stuck.load(Ordering::Acquire)
    }

    /// Whether the handshake failed.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.greeted.get(), Some(Greeted::Badly))
    }

    /// Whether client and server agreed on HTTP/2.
    pub(super) fn agreed_on_http2(&self) -> bool {
        matches!(self.greeted.get(), Some(Greeted::Well { http2: true }))
    }

    pub(super) fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut session = self.lock();
        let received = session.recv(&self.stream, buffer);
        let is_emptied = received.as_ref().is_ok_and(|&count| count < buffer.len()) && session.is_empty();
        self.is_emptied.store(is_emptied, Ordering::Relaxed);
        received
    }

    /// Whether the last [`recv`](Self::recv) left nothing behind that no event will tell of.
    pub(super) fn is_emptied(&self) -> bool {
        self.is_emptied.load(Ordering::Relaxed)
    }

    pub(super) fn send(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.lock().send(&self.stream, slices)
    }

    /// Takes what is to be sent together with what follows it, at the latest when it is flushed.
    pub(super) fn gather(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.lock().gather(&self.stream, slices)
    }

    /// Whether the socket has taken something since this was asked last.
    pub(super) fn is_moving(&self) -> bool {
        std::mem::take(&mut self.lock().is_moving)
    }

    /// Sends what the session still has; `false` when the socket takes no more now.
    pub(super) fn flush(&self) -> io::Result<bool> {
        self.lock().flush(&self.stream)
    }

    /// Tells the client that nothing more comes.
    pub(super) fn say_goodbye(&self) {
        self.lock().say_goodbye(&self.stream);
    }

    /// Ends the session without telling the client.
    pub(super) fn cut_off(&self) {
        self.lock().broken = true;
    }

    fn lock(&self) -> MutexGuard<'_, Session> {
        // A panic inside rustls would leave a session that refuses everything; it ends with its connection.
        self.session.lock()
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // RFC 8446 section 6.1: "Each party MUST send a "close_notify" alert before closing its write side of the
        // connection". Without it a client cannot tell the end from a cut.
        let session = self.session.get_mut();
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

    /// Lets rustls have what was received, or what can be received now. Returns how much it took; 0 at the end.
    fn take_in(&mut self, stream: &Stream) -> io::Result<usize> {
        if self.pending.is_empty() {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let count = stream.recv_behind(&mut piece)?;
            self.socket_is_empty = count < piece.capacity();
            self.pending = piece;
        }
        let mut rest = self.pending.get(self.taken..).unwrap_or_default();
        let first = rest.first().copied();
        let taken = self.tls.read_tls(&mut rest)?;
        self.taken += taken;
        if self.taken >= self.pending.len() {
            // An idle connection keeps no memory for its next request.
            (self.pending, self.taken) = (Vec::new(), 0);
        }
        match self.tls.process_new_packets() {
            Ok(state) => self.socket_is_empty &= !state.peer_has_closed(),
            Err(error) => return Err(self.refuse(stream, first, &error)),
        }
        self.begun = true;
        Ok(taken)
    }

    /// Whether there is nothing to receive, provided that all plaintext was read.
    fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.socket_is_empty
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

    /// Each record that is sent by itself costs a system call, and HTTP/2 has one for each frame.
    fn gather(&mut self, stream: &Stream, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if (self.broken || self.gathered > GATHERED_BYTES) && !self.flush(stream)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.tls.writer().write_vectored(slices)?;
        self.gathered += taken + RECORD_BYTES;
        Ok(taken)
    }

    fn flush(&mut self, stream: &Stream) -> io::Result<bool> {
        if self.broken {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let mut writer = Writer(stream);
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut writer) {
                Ok(_) => self.is_moving = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.gathered = 0;
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
