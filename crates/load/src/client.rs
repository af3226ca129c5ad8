//! One connection of a load: sends a request, and compares the response with the right one.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::outcome::{ErrorKind, Outcome};
use crate::plan::Request;
use crate::response::Decoder;
use crate::schedule::Due;

/// What the connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is to be made anew.
    Closed,
    Connecting,
    /// It is free for a request.
    Free,
    /// A request is sent, or a response received.
    Busy,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// There is more to come.
    Pending,
    /// The response is complete, right or wrong. The connection is free, or closed.
    Complete,
    /// The server has closed the connection; the request may be sent once more on another one.
    Ended,
    /// There is no response.
    Failed(ErrorKind),
}

#[derive(Debug)]
pub(crate) struct Client {
    socket: Option<TcpStream>,
    pub(crate) state: State,
    /// The request that it sends, or is to send.
    pub(crate) current: Option<Due>,
    /// When the request, or the connection, was begun.
    pub(crate) since: Instant,
    sent: usize,
    decoder: Decoder,
    /// Bytes that were received and not used yet.
    pending: Vec<u8>,
    /// How many bytes of the body have come, and whether all of them were right.
    compared: usize,
    is_right: bool,
    /// Whether anything of the response has come.
    has_begun: bool,
    /// Whether the connection has served a request before.
    is_used: bool,
    /// Whether the request is sent for the second time.
    is_again: bool,
    /// Whether the last thing that it tried has failed.
    is_failing: bool,
}

impl Client {
    pub(crate) fn new(now: Instant) -> Client {
        Client {
            socket: None,
            state: State::Closed,
            current: None,
            since: now,
            sent: 0,
            decoder: Decoder::new(),
            pending: Vec::new(),
            compared: 0,
            is_right: true,
            has_begun: false,
            is_used: false,
            is_again: false,
            is_failing: false,
        }
    }

    /// Begins to connect.
    ///
    /// Errors: this process cannot have another socket.
    pub(crate) fn connect(
        &mut self,
        registry: &Registry,
        token: Token,
        address: SocketAddr,
        now: Instant,
    ) -> io::Result<()> {
        let mut socket = TcpStream::connect(address)?;
        registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        self.socket = Some(socket);
        self.state = State::Connecting;
        self.since = now;
        self.is_used = false;
        self.pending.clear();
        Ok(())
    }

    /// Looks whether the connection has come about: `None` when it has not yet.
    pub(crate) fn connected(&mut self) -> Option<Result<(), ErrorKind>> {
        let socket = self.socket.as_ref()?;
        if !matches!(socket.take_error(), Ok(None)) {
            return Some(Err(ErrorKind::Connect));
        }
        match socket.peer_addr() {
            Ok(_) => {
                // Without it small requests wait for nothing; a load does without it, too.
                drop(socket.set_nodelay(true));
                self.state = State::Free;
                Some(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => None,
            Err(_) => Some(Err(ErrorKind::Connect)),
        }
    }

    /// Drops the connection.
    pub(crate) fn close(&mut self) {
        self.socket = None;
        self.state = State::Closed;
    }

    /// Drops the connection and the request. Returns whether the one before has failed, too.
    pub(crate) fn give_up(&mut self) -> bool {
        self.close();
        self.current = None;
        self.is_again = false;
        std::mem::replace(&mut self.is_failing, true)
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, due: Due, now: Instant) {
        self.current = Some(due);
        self.since = now;
        self.state = State::Busy;
        self.sent = 0;
        self.compared = 0;
        self.is_right = true;
        self.has_begun = false;
        self.decoder.begin();
    }

    /// Sends what the socket takes.
    pub(crate) fn send(&mut self, request: &Request) -> Progress {
        let Some(socket) = &mut self.socket else { return Progress::Ended };
        while let Some(rest @ [_, ..]) = request.bytes.get(self.sent..) {
            match socket.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What the server said before it closed can still be read.
                Err(_) => break,
            }
        }
        Progress::Pending
    }

    /// Reads what has come. `has_ended`: the server sends nothing further.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        request: &Request,
        has_ended: bool,
        outcome: &mut Outcome,
    ) -> Progress {
        loop {
            let Some(socket) = &mut self.socket else { return Progress::Ended };
            let count = match socket.read(buffer) {
                Ok(0) => return self.ended(request, outcome),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Progress::Pending,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.ended(request, outcome),
            };
            // A usize is at most a u64 on every target.
            outcome.received += u64::try_from(count).unwrap_or(u64::MAX);
            self.has_begun = true;
            let progress = self.use_bytes(buffer.get(..count).unwrap_or_default(), request, outcome);
            // A read that does not fill the buffer has emptied the socket (epoll(7)), but for its end.
            if progress != Progress::Pending || (count < buffer.len() && !has_ended) {
                return progress;
            }
        }
    }

    fn use_bytes(&mut self, bytes: &[u8], request: &Request, outcome: &mut Outcome) -> Progress {
        let mut pending = std::mem::take(&mut self.pending);
        let is_direct = pending.is_empty();
        if !is_direct {
            pending.extend_from_slice(bytes);
        }
        let available = if is_direct { bytes } else { &pending };
        let length = available.len();
        let (compared, is_right) = (&mut self.compared, &mut self.is_right);
        let used = self.decoder.decode(available, &mut |part| {
            if let Some(body) = &request.body {
                *is_right &= body.get(*compared..).is_some_and(|rest| rest.starts_with(part));
            }
            *compared += part.len();
        });
        let Ok(used) = used else { return Progress::Failed(ErrorKind::Malformed) };
        if self.decoder.is_done() {
            // It was asked for no more.
            return if used == length {
                self.complete(request, outcome)
            } else {
                Progress::Failed(ErrorKind::Malformed)
            };
        }
        if is_direct {
            pending.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            pending.drain(..used);
        }
        self.pending = pending;
        Progress::Pending
    }

    fn ended(&mut self, request: &Request, outcome: &mut Outcome) -> Progress {
        if self.has_begun && self.decoder.ends_here() {
            return self.complete(request, outcome);
        }
        if self.is_used && !self.is_again && !self.has_begun {
            self.is_again = true;
            return Progress::Ended;
        }
        Progress::Failed(ErrorKind::Closed)
    }

    fn complete(&mut self, request: &Request, outcome: &mut Outcome) -> Progress {
        let Some(due) = self.current.take() else { return Progress::Failed(ErrorKind::Malformed) };
        let is_whole = request.body.as_ref().is_none_or(|body| body.len() == self.compared);
        if self.decoder.status != request.status {
            outcome.error(ErrorKind::Status);
            *outcome.statuses.entry(self.decoder.status).or_default() += 1;
        } else if !(self.is_right && is_whole) {
            outcome.error(ErrorKind::Body);
        } else {
            outcome.response(due.kind, due.since.elapsed());
        }
        self.is_used = true;
        self.is_again = false;
        self.is_failing = false;
        // A request that is not sent whole leaves its rest on the connection.
        let is_kept = self.decoder.is_kept && self.sent == request.bytes.len();
        if is_kept {
            self.state = State::Free;
        } else {
            self.close();
        }
        Progress::Complete
    }

    /// Whether the server has ended a connection that nothing was sent on.
    pub(crate) fn is_lost(&mut self, buffer: &mut [u8]) -> bool {
        let Some(socket) = &mut self.socket else { return true };
        loop {
            match socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                _ => return true,
            }
        }
    }
}
